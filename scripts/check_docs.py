#!/usr/bin/env python3
"""scripts/check_docs.py BUILD_DIR: what the documents tell people to type works.

Each command that stands in an indented block of a document (scripts/doc_commands.py) is typed, in the order of the document, on
a node of its own: the build tree installed as a package would, in mount, network and pid namespaces that end with the test,
with a registry that stands for docker.io. What cannot be typed here is in ELSEWHERE, with the reason and where it is tested.
Settings that the documents show are those that the daemons take. Commands of crispctl that the text only mentions exist, with
the options that stand behind them. Exit 77 (skipped): not root.
"""

import fnmatch
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import doc_commands  # noqa: E402
from doc_commands import REPO  # noqa: E402

IMAGE = "docker.io/library/busybox:1.36"
# A document's commands need what those of another have left, or take away what others need: they are typed in this order.
ORDER = ["README.md", "deploy/man/crispctl.1.md", "deploy/man/crisp.yaml.5.md", "deploy/examples/README.md"]
LAST = ["deploy/man/crisp.7.md"]
ELSEWHERE = [
    (r"scripts/(demo|test)", "the test `demo`; what runs this one"),
    (r"scripts/install-deps", "installs packages: scripts/test does it first of all"),
    (r"(cmake (--build )?--preset|cpack|apt install) ", "integration/vm/run --clone"),
    (r"cmake --build \S+ --target install", "the test release_bundle"),
    (r"(deploy/packaging/bundle|sha256sum -c crisp-|tar --zstd -xf crisp-|crisp-\S+/install)", "the test release_bundle"),
    (r"crictl ", "no package of Debian's; the CRI has its own tests"),
    (r"(kubelet|kubeadm|kubectl) ", "no packages of Debian's; their files are those of the test `examples`"),
    (r"helm(/image)? ", "helm/check, where helm is installed"),
    (r"systemctl ", "integration/vm/run; here: the units are there"),
    (r"integration/", "they take minutes; here: they are there"),
    (r"build/dev/bin/crisp-bench-streams ", "integration/bench/run"),
]
# Blocks that are neither commands nor settings of crisp, by their first line.
NO_COMMANDS = [
    (r"kubelet, crictl ──|front          listens", "a drawing"),
    (r"- hosts: nodes", "a playbook: the test ansible_role"),
    (r"\d{4}-\d\d-\d\dT", "a line of a log"),
    (r"\[\w+\]$", "a drop-in of a unit"),
]
# What a person has, or has done, before.
BEFORE = {
    "crispctl image import /media/images.tar": [f"crispctl image export {IMAGE} /media/images.tar"],
    "crispctl rmp coredns": [f"crispctl run --detach --name coredns {IMAGE} -- sleep 1000"],
    "crispctl network check web": [f"crispctl run --net --detach --name web {IMAGE} -- sleep 1000"],
    "crispctl config check /tmp/crisp.yaml": ["cp /etc/crisp/crisp.yaml /tmp/crisp.yaml"],
    "crispctl config convert --report report.txt -o /etc/crisp/crisp.yaml": [
        "mkdir -p /etc/crio && printf '[crio.runtime]\\nlog_level = \"debug\"\\n' >/etc/crio/crio.conf",
        "mv /etc/crisp/crisp.yaml /tmp/shipped.yaml",
        # A machine that has containerd, too, would be asked which of them is meant.
        "mkdir -p /etc/containerd && mount -t tmpfs tmpfs /etc/containerd",
    ],
    "crispctl config convert --from containerd node7/config.toml": [
        "mkdir -p node7 && echo 'version = 2' >node7/config.toml && mv /tmp/shipped.yaml /etc/crisp/crisp.yaml"
    ],
}

problems = []


def complain(place, text):
    problems.append(f"{place}: {text}")


def documents():
    names = subprocess.run(["git", "ls-files", "*.md"], cwd=REPO, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    first = [name for name in ORDER if name in names]
    return first + [name for name in names if name not in ORDER + LAST] + LAST


class Node:
    """The build tree, installed, in namespaces of its own."""

    def __init__(self, build, work):
        self.build, self.work = build, work
        self.home = work / "home"
        self.children = {}
        installed = work / "installed"
        self.home.mkdir()
        for component in ("daemons", "config", "systemd", "crispctl", "docs", "monitoring"):
            subprocess.run(
                ["cmake", "--install", build, "--component", component],
                env={**os.environ, "DESTDIR": str(installed)}, check=True, stdout=subprocess.DEVNULL,
            )  # fmt: skip
        for top in ("usr", "etc"):
            self.cover(f"/{top}", installed / top)
        (work / "nothing").mkdir()
        self.cover("/var", work / "nothing")
        # Images cannot be unpacked into an overlay.
        for place in ("/run", "/tmp", "/srv", "/media", "/var/lib/crisp"):
            self.empty(pathlib.Path(place))
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        for place in ("/etc/cni/net.d", "/etc/containers", "/tmp/registry"):
            pathlib.Path(place).mkdir(parents=True, exist_ok=True)
        for file in pathlib.Path("/etc/cni/net.d").iterdir():
            file.unlink()
        shutil.copy(REPO / "deploy/examples/cni/10-bridge.conflist", "/etc/cni/net.d")

    def cover(self, place, over):
        upper = self.work / f"upper{place}"
        for directory in (upper / "upper", upper / "work"):
            directory.mkdir(parents=True)
        options = f"lowerdir={over}:{place},upperdir={upper}/upper,workdir={upper}/work"
        subprocess.run(["mount", "-t", "overlay", "-o", options, "none", place], check=True)

    def empty(self, place):
        """What we ourselves run from stays visible."""
        kept = {path: os.open(path, os.O_PATH) for path in (REPO, self.build) if place in path.parents}
        place.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
        for path, descriptor in kept.items():
            path.mkdir(parents=True, exist_ok=True)
            subprocess.run(
                ["mount", "--no-canonicalize", "--bind", f"/proc/self/fd/{descriptor}", path], pass_fds=[descriptor], check=True
            )

    def start_registry(self):
        pathlib.Path("/tmp/registry/config.yml").write_text(
            "version: 0.1\nstorage: {filesystem: {rootdirectory: /tmp/registry}}\nhttp: {addr: '127.0.0.1:5000'}\n", "ascii"
        )
        pathlib.Path("/etc/containers/registries.conf").write_text(
            '[[registry]]\nprefix = "docker.io"\nlocation = "127.0.0.1:5000"\ninsecure = true\n', "ascii"
        )
        self.start("registry", ["docker-registry", "serve", "/tmp/registry/config.yml"])
        self.await_success(["busybox", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:5000/v2/"])
        image = "127.0.0.1:5000/library/busybox"
        subprocess.run(
            [REPO / "scripts/make-image", "--push", f"{image}:1.36", "--push", f"{image}:latest"], check=True, stdout=subprocess.DEVNULL
        )

    def start_daemons(self):
        for name in ("rund", "imaged", "netd", "crid"):
            self.start(name, [f"/usr/bin/crisp-{name}"])
        self.await_success(["crispctl", "status"])

    def start(self, name, argv):
        log = open(self.work / f"{name}.log", "ab")
        self.children[name] = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=REPO)

    def stop(self, name):
        child = self.children.pop(name)
        child.send_signal(signal.SIGTERM)
        child.wait(30)

    def await_success(self, argv):
        for _ in range(300):
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
            if done.returncode == 0:
                return
            time.sleep(0.1)
        sys.exit(f"{' '.join(argv)} does not succeed: {done.stdout}")

    def shell(self, text):
        """What bash says to it; the exit code and the words."""
        where = REPO if re.match(r"(scripts|build|deploy|integration)/|.* deploy/", text) else self.home
        if text.startswith("build/dev/"):
            text = f"{self.build}/{text.removeprefix('build/dev/')}"
        done = subprocess.run(
            ["bash", "-c", text], cwd=where, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout


# Commands that do not end by themselves, or want a terminal.


def type_run_local(node, _):
    node.start("run-local", ["env", f"CRISP_BUILD_DIR={node.build}", "scripts/run-local", "/tmp/crisp"])
    node.await_success(["grep", "^ready unix:///tmp/crisp/run/crisp.sock", str(node.work / "run-local.log")])


def type_start_of_target(node, _):
    if "run-local" in node.children:
        node.stop("run-local")
    if "crid" not in node.children:
        node.start_daemons()


def type_in_terminal(node, text):
    done = subprocess.run(
        ["script", "--quiet", "--return", "--command", text, "/dev/null"], cwd=node.home, input="exit\n", stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=60, check=False,
    )  # fmt: skip
    return None if done.returncode == 0 else done.stdout


def type_endless(node, text):
    child = subprocess.Popen(text.split(), cwd=node.home, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    time.sleep(1)
    ended = child.poll()
    child.send_signal(signal.SIGINT)
    said = child.communicate(timeout=10)[0]
    return None if ended is None else f"it ended with {ended}: {said}"


def type_port_forward(node, text):
    node.start("port-forward", text.split())
    node.await_success(["sh", "-c", "busybox wget -q -O - http://127.0.0.1:8080/ 2>&1 | grep -q 404"])
    node.stop("port-forward")


def type_stop_of_daemons(node, _):
    for name in ("crid", "netd", "imaged", "rund"):
        node.stop(name)


# They say so when there is nothing to tell.
NOTHING = {
    "crispctl logs --previous web": (1, "no earlier attempt"),
}
SPECIAL = {
    "scripts/run-local /tmp/crisp": type_run_local,
    "systemctl enable --now crisp.target": type_start_of_target,
    "crispctl exec -i -t web sh": type_in_terminal,
    "crispctl logs --follow --tail 20 web": type_endless,
    "crispctl port-forward web 8080:8080": type_port_forward,
    "systemctl stop crisp.target crisp-crid.socket 'crisp-*@*'": type_stop_of_daemons,
}


def check_elsewhere(place, text):
    """What can be said of a command that is not typed here."""
    words = text.replace("'", "").split()
    if words[0] == "systemctl":
        units = os.listdir(REPO / "deploy/systemd")
        for unit in words[1:]:
            if unit.startswith("crisp") and not fnmatch.filter(units, re.sub(r"@.*$", "@", unit) + "*"):
                complain(place, f"there is no unit {unit}")
    elif "/" in words[0] and not words[0].startswith(("build/", "crisp-")) and not os.access(REPO / words[0], os.X_OK):
        complain(place, f"there is no {words[0]}")
    elif words[:2] == ["cmake", "--preset"] and f'"name": "{words[2]}"' not in (REPO / "CMakePresets.json").read_text("ascii"):
        complain(place, f"there is no preset {words[2]}")


def type_command(node, place, text):
    for before in BEFORE.get(text, []):
        code, said = node.shell(before)
        if code != 0:
            complain(place, f"before it: {before}: {said}")
    if text in SPECIAL:
        said = SPECIAL[text](node, text)
        if said:
            complain(place, f"{text}: {said}")
        check_elsewhere(place, text)
        return
    if any(re.match(pattern, text) for pattern, _ in ELSEWHERE):
        check_elsewhere(place, text)
        return
    code, said = node.shell(text)
    wanted, words = NOTHING.get(text, (0, ""))
    if code != wanted or words not in said:
        complain(place, f"{text}: exit code {code}: {said}")


def check_settings(node, block):
    """Settings that a document shows: as a drop-in of those that are shipped, or the file that a setting names."""
    directory = pathlib.Path(tempfile.mkdtemp(dir=node.work))
    shutil.copy(REPO / "deploy/config/crisp.yaml", directory)
    (directory / "crisp.yaml.d").mkdir()
    text = "\n".join(block.lines) + "\n"
    if block.lines[0] == "Classes:":
        (directory / "classes.yaml").write_text(text, "utf-8")
        text = f"rund: {{blockio_config_file: {directory}/classes.yaml}}\n"
    (directory / "crisp.yaml.d/10-shown.yaml").write_text(text, "utf-8")
    code, said = node.shell(f"crispctl config check {directory}/crisp.yaml")
    if code != 0:
        complain(block.place, said)


def check_block(node, block):
    if doc_commands.is_commands(block):
        for command in doc_commands.commands(block):
            for part in command.text.split(" && "):
                type_command(node, command.place, part)
    elif block.lines[0].startswith("# /etc/crisp/") or block.lines[0] == "Classes:":
        check_settings(node, block)
    elif not any(re.match(pattern, block.lines[0]) for pattern, _ in NO_COMMANDS):
        complain(block.place, "nobody knows what this block is: see scripts/check_docs.py")


def commands_of_crispctl(path=()):
    """{"image import": the words of its --help}, all of them and what leads to them."""
    text = subprocess.run(["crispctl", *path, "--help"], check=True, stdout=subprocess.PIPE, text=True).stdout
    found = {" ".join(path): text}
    _, _, below = text.partition("\nSubcommands:\n")
    for word in re.findall(r"^  (\S+)", below, re.MULTILINE):
        found |= commands_of_crispctl((*path, word))
    return found


def check_mentions(name, known):
    text = re.sub(r"[*_`\\]", "", (REPO / name).read_text("utf-8")) if name.endswith(".md") else ""
    for number, line in enumerate(text.splitlines(), 1):
        for words in re.findall(r"\bcrispctl((?: +-{0,2}[a-z][a-z-]*)+)", line):
            command, rest = "", words.split()
            while rest and f"{command} {rest[0]}".strip() in known:
                command = f"{command} {rest.pop(0)}".strip()
            for option in rest:
                if not option.startswith("--") or command == "":
                    break
                if option not in known[command] and option not in known[""]:
                    complain(f"{name}:{number}", f"crispctl {command} has no {option}")


def check(build, work):
    node = Node(build, work)
    try:
        check_all(node)
    finally:
        # The processes end with the namespace; the cgroups of pods stay, where nobody removes them.
        subprocess.run(["timeout", "60", "crispctl", "rmp", "--all"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        for child in node.children.values():
            child.terminate()


def check_all(node):
    node.start_registry()
    count = 0
    for name in documents():
        for block in doc_commands.blocks(REPO / name):
            check_block(node, block)
            count += 1
    known = commands_of_crispctl()
    for name in documents():
        check_mentions(name, known)
    if problems:
        sys.exit("\n".join(problems))
    print(f"{count} blocks of {len(documents())} documents: in order")


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    if os.geteuid() != 0:
        sys.exit(77)
    if len(sys.argv) == 3:
        check(build, pathlib.Path(sys.argv[2]))
        return
    with tempfile.TemporaryDirectory(dir=build, prefix="docs.") as work:
        inside = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", sys.argv[0], str(build), work]
        sys.exit(subprocess.run(inside, check=False).returncode)


if __name__ == "__main__":
    main()
