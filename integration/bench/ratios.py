"""ratios.py DIR: puts floor-*.json and crisp-*.json of one run side by side, with the goals and how far we are.

containerd-*.json, where the run had it pull too, becomes goals of how many times as fast we are.
"""

import json
import pathlib
import re
import statistics
import sys


def load(directory, who):
    """name -> (unit, values of all rounds)"""
    series = {}
    for path in sorted(pathlib.Path(directory).glob(f"{who}-*.json")):
        for name, entry in json.loads(path.read_text(encoding="utf-8")).items():
            series.setdefault(name, (entry["unit"], []))[1].extend(entry["values"])
    return series


def median(series, name):
    return statistics.median(series[name][1]) if name in series else None


def floor_name(name):
    """A crowd's pull has the floor of one pull."""
    return re.sub(r", \d+ at once$", "", name) if name.startswith("pull ") else name


def quantile(values, part):
    return sorted(values)[round(part * (len(values) - 1))]


def main():
    directory = sys.argv[1]
    floor, crisp, containerd = (load(directory, who) for who in ("floor", "crisp", "containerd"))
    print("| crisp | unit | n | min | median | p95 | floor, median | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (unit, values) in crisp.items():
        base = median(floor, floor_name(name))
        ratio = f"{median(crisp, name) / base:.2f}" if base else ""
        print(
            f"| {name.strip()} | {unit} | {len(values)} | {min(values):.2f} | {statistics.median(values):.2f} "
            f"| {quantile(values, 0.95):.2f} | {f'{base:.2f}' if base else ''} | {ratio} |"
        )
    print()
    print("| goal | wanted | reached | |")
    print("|---|---|---|---|")

    def goal(text, wanted, value, good):
        if value is not None:
            print(f"| {text} | {wanted} | {value:.2f} | {'ok' if good else 'MISSED'} |")

    def ratio(name, inverse=False):
        ours, base = median(crisp, name), median(floor, floor_name(name))
        if ours is None or base is None:
            return None
        return base / ours if inverse else ours / base

    for name in ("pod start, host", "pod start, CNI"):
        value = ratio(name)
        goal(f"{name}: of the floor", "<= 1.25", value, value and value <= 1.25)
    value = ratio("  sandbox, CNI")
    goal("RunPodSandbox, CNI: of the namespaces and plugins by themselves", "<= 1.15", value, value and value <= 1.15)
    for name in [name for name in crisp if name.startswith("  sandbox, CNI, ")]:
        value = ratio(name)
        goal(f"RunPodSandbox, {name[11:]}: of the same", "<= 1.15", value, value and value <= 1.15)
    for name in ("  create + start, host", "  create + start, CNI"):
        value = ratio(name)
        goal(f"{name.strip()}: of the runtime under conmon", "<= 1.15", value, value and value <= 1.15)
    value = ratio("ExecSync /bin/true")
    goal("ExecSync true: of the runtime's exec", "<= 1.1", value, value and value <= 1.1)
    for name in [name for name in crisp if name.endswith("pods up, CNI")]:
        value = ratio(name)
        goal(f"{name}: rate, of the floor's", ">= 0.8", value, value and value >= 0.8)
    for name in [name for name in crisp if name.startswith("pull ")]:
        if name.endswith(", CPU"):
            value = ratio(name)
            goal(f"{name}: of the floor's", "<= 1.15", value, value and value <= 1.15)
        elif name.endswith(", peak memory above idle"):
            value = median(crisp, name)
            goal(f"{name}, MB", "<= 48", value, value <= 48)
        else:
            value = ratio(name, inverse=True)
            goal(f"{name}: speed, of the floor's", ">= 0.9", value, value and value >= 0.9)
    for name in [name for name in containerd if name.startswith("pull ") and "," not in name]:
        value = median(containerd, name) / median(crisp, name)
        wanted = 3 if "large" in name else 4
        goal(f"{name}: times as fast as containerd", f">= {wanted}", value, value >= wanted)
    beside, alone = median(crisp, "pod start, CNI, beside a pull"), median(crisp, "pod start, CNI, no pull")
    value = beside / alone if beside and alone else None
    goal("pod start beside a pull at full speed: of one without", "<= 1.2", value, value and value <= 1.2)
    value = median(crisp, "PSS of the daemons, idle")
    goal("PSS of four idle daemons, MB", "<= 24", value, value and value <= 24)
    value = median(crisp, "PSS with the pods' helpers, 50 pods, at rest")
    goal("PSS with 50 pods at rest and helpers, MB", "<= 50", value, value and value <= 50)
    version = median(crisp, "Version, 50 pods")
    for name in ("ListContainers, 50 pods", "ListPodSandbox, 50 pods"):
        if name in crisp and version:
            value = median(crisp, name) / version
            goal(f"{name}: of a Version call", "<= 1.3", value, value <= 1.3)
    for name in [name for name in crisp if name.endswith(" stuck in stop")]:
        value = quantile(crisp[name][1], 0.99)
        goal(f"{name}: p99, ms", "<= 5", value, value <= 5)
    value = median(crisp, "ListContainerStats, 50 pods")
    goal("ListContainerStats of 50 containers, ms", "<= 3", value, value and value <= 3)
    value = median(crisp, "CPU of a collection every 10 s, for 100 containers")
    goal("CPU of a collection every 10 s, for 100 containers, ms per s", "<= 10", value, value is not None and value <= 10)
    value = median(crisp, "CPU of the daemons, idle, 50 pods")
    goal("CPU of the daemons with 50 idle pods, ms per s", "<= 1", value, value is not None and value <= 1)
    for name in [name for name in crisp if name.endswith("to a full list")]:
        value = median(crisp, name)
        goal(f"{name}, ms", "<= 100", value, value <= 100)
    for name in ("exec, stdin to stdout", "port-forward, there and back"):
        value = ratio(name)
        goal(f"{name}: throughput, of socat's", ">= 0.7", value, value and value >= 0.7)
    value = ratio("port-forward, round trip of a byte")
    goal("port-forward, round trip of a byte: of socat's", "<= 1.5", value, value and value <= 1.5)
    for name in [name for name in crisp if name.endswith(": wrong digests")]:
        value = median(crisp, name)
        goal(name, "0", value, value == 0)
    for name in [name for name in crisp if name.endswith(" execs in sequence")]:
        value, (unit, _) = median(crisp, name), crisp[name]
        allowed = 2 if unit == "MB" else 0
        goal(f"{name}{unit and f', {unit}'}", f"<= {allowed}", value, value <= allowed)
    for name in [name for name in crisp if name.endswith("at a time: with the right answer")]:
        value, wanted = median(crisp, name), int(name.split()[0])
        goal(name, str(wanted), value, value == wanted)


main()
