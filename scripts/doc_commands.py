#!/usr/bin/env python3
"""What documents tell people to type.

    scripts/doc_commands.py FILE.md [SECTION]      prints it, a line for each command, of one section or of the whole file

Commands stand in indented blocks. Other indented blocks are settings, units, log lines and drawings: a block is one of
commands when its first word is a program that we tell people to run, or a file of the tree.
"""

import dataclasses
import pathlib
import re
import sys

REPO = pathlib.Path(__file__).resolve().parent.parent
PROGRAMS = {
    "apt", "cmake", "cp", "cpack", "crictl", "crispctl", "dnf", "helm", "kubeadm", "kubectl", "kubelet", "make", "mkdir",
    "sha256sum", "source", "systemctl", "tar",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Block:
    """Indented lines of a document, without the indentation."""

    file: str  # from the root of the tree
    line: int  # of its first line, from 1
    section: str  # the nearest heading above
    lines: tuple[str, ...]

    @property
    def place(self):
        return f"{self.file}:{self.line}"


@dataclasses.dataclass(frozen=True)
class Command:
    place: str
    section: str
    text: str  # without the comment behind it


def blocks(path):
    """The indented blocks of a Markdown file. What continues an entry of a list is none."""
    found, section, in_list, current, start = [], "", False, [], 0
    for number, line in enumerate([*path.read_text(encoding="utf-8").splitlines(), "end"], 1):
        if line.startswith("    ") and not in_list:
            if not current:
                start = number
            current.append(line[4:])
            continue
        if not line.strip():
            if current:
                current.append("")
            continue
        if current:
            lines = tuple("\n".join(current).rstrip().split("\n"))
            found.append(Block(str(path.relative_to(REPO)), start, section, lines))
            current = []
        if not line.startswith(" "):
            in_list = bool(re.match(r"(: {3}|[-*] |\d+\. )", line))
        if line.startswith("#"):
            section = line.lstrip("# ")
    return found


def is_commands(block):
    word = block.lines[0].split()[0]
    return word in PROGRAMS or ("/" in word and (word.startswith("build/") or (REPO / word).is_file()))


def commands(block):
    """Comments are gone, continued lines are one."""
    found, whole = [], ""
    for offset, line in enumerate(block.lines):
        line = re.sub(r"(^|\s+)#.*$", "", line)
        whole += line.removesuffix("\\")
        if line.endswith("\\"):
            continue
        if whole.strip():
            found.append(Command(f"{block.file}:{block.line + offset}", block.section, " ".join(whole.split())))
        whole = ""
    return found


def main():
    path = pathlib.Path(sys.argv[1]).resolve()
    section = sys.argv[2] if len(sys.argv) > 2 else None
    found = [block for block in blocks(path) if is_commands(block) and section in (None, block.section)]
    if not found:
        sys.exit(f"{sys.argv[1]}: no commands in {section or 'it'}")
    for block in found:
        for command in commands(block):
            print(command.text)


if __name__ == "__main__":
    main()
