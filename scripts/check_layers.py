#!/usr/bin/env python3
"""Reads every #include of ours and says which ones break the layers.

usage: check_layers.py [root]      exit 0: none; 1: each breach as file:line: why

- A library includes those of lower layers, or a peer that its CMakeLists.txt names in DEPS or PRIVATE_DEPS.
- Services include libraries and protos, never each other; nobody includes a service's rpc/ or app but its own
  app and main. core/ (and what core stands on) knows neither gRPC nor asio.
- A third-party header is seen in its home only, and there by .cpp files (fmt and nlohmann may travel).
- Includes of ours are written from the root of the repository.
"""
import pathlib
import re
import sys

LAYERS = [
    {"base"},
    {"log", "metrics", "os", "digest", "json", "ref", "sqlite"},
    {"config", "settings", "process", "archive", "loop", "work", "systemd"},
    {"http", "rpc"},
    {"daemon"},
    {"testing"},  # above all: only tests link it
]
LAYER = {lib: number for number, libs in enumerate(LAYERS) for lib in libs}

# (what an include looks like, its homes as path prefixes, whether headers of ours may have it too)
HOMES = [
    (r"yaml-cpp/|toml(\+\+|plusplus)?[./]", ["libs/config/"], False),
    (r"sqlite3\.h", ["libs/sqlite/"], False),
    (r"openssl/", ["libs/digest/", "libs/http/"], False),
    (r"gpgme\.h", ["services/imaged/trust/"], False),
    (r"boost/beast", ["libs/http/", "services/rund/streaming/"], False),
    (r"boost/asio", ["libs/loop/", "libs/http/", "services/rund/streaming/"], False),
    (r"spdlog/", ["libs/log/"], False),
    (r"prometheus/", ["libs/metrics/"], False),
    (r"isa-l|igzip_lib\.h|zstd\.h", ["libs/archive/"], False),
    (r"systemd/sd-bus\.h", ["libs/systemd/"], False),
    (r"seccomp\.h$", ["libs/os/", "services/rund/spec/"], False),
    (r"sys/capability\.h", ["libs/os/", "services/rund/spec/"], False),
    (r"CLI/|CLI11", ["libs/daemon/", "services/crispctl/"], False),
    (r"catch2/", [], None),  # tests only
]
GRPC = re.compile(r"grpc(pp|\+\+)?/|.*\.grpc\.pb\.h$")
GRPC_HOMES = re.compile(
    r"libs/(rpc|daemon)/|services/[^/]+/(rpc/|app\.(h|cpp)$|main\.cpp$)|services/crispctl/|scripts/cmake/pch/")
# Inside a service: what may not be reached from where.
EDGE = re.compile(r"services/([^/]+)/(rpc/|app\.h$)")
INNER = re.compile(r"services/([^/]+)/(core|store|runtime|registry|spec)/")

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
SUFFIXES = {".h", ".cpp", ".c"}


def sources(root):
    for top in ("libs", "services", "integration"):
        for path in sorted((root / top).rglob("*")):
            if path.suffix in SUFFIXES and path.is_file():
                yield path


def peers(root):
    """library → what its CMakeLists.txt names."""
    named = {}
    for path in (root / "libs").glob("*/CMakeLists.txt"):
        named[path.parent.name] = set(re.findall(r"crisp::([a-z0-9_]+)", path.read_text()))
    return named


def is_test(name):
    return "/tests/" in name or name.startswith(("integration/", "libs/testing/"))


def check_lib(name, target, deps):
    lib = name.split("/")[1]
    if target.startswith("services/"):
        return "a library includes a service"
    other = target.split("/")[1]
    if other == lib:
        return None
    if lib not in LAYER:
        return f"library '{lib}' has no layer: give it one in scripts/check_layers.py"
    if other not in LAYER:
        return f"library '{other}' has no layer"
    if other == "testing":
        return None if is_test(name) else "only tests use libs/testing"
    if is_test(name):
        return None
    if LAYER[other] > LAYER[lib]:
        return f"'{other}' is in a higher layer than '{lib}'"
    if LAYER[other] == LAYER[lib] and other not in deps.get(lib, ()):
        return f"'{other}' is a peer of '{lib}' and not among its DEPS"
    return None


def check_service(name, target):
    service = name.split("/")[1]
    if target.startswith("libs/"):
        if target.startswith("libs/testing/") and not is_test(name):
            return "only tests use libs/testing"
        return None
    if target.split("/")[1] != service:
        return "a service includes another service"
    edge = EDGE.match(target)
    if edge and not is_test(name):
        if target.endswith("app.h"):
            if not re.fullmatch(rf"services/{service}/(main|app)\.cpp", name):
                return "only main includes the app"
        elif not re.match(rf"services/{service}/(rpc/|app\.)", name):
            return "only the app includes rpc/"
    if "/tests/" in target and not is_test(name):
        return "something that is shipped includes a test"
    return None


def check_third_party(name, target):
    if GRPC.match(target):
        if is_test(name) or GRPC_HOMES.match(name):
            return None
        return "gRPC is for rpc/, app.cpp and libs/rpc"
    for pattern, homes, headers in HOMES:
        if not re.match(pattern, target):
            continue
        if is_test(name):
            return None
        if headers is None:
            return "tests only"
        if not any(name.startswith(home) for home in homes):
            if INNER.match(name) and target.startswith("boost/asio"):
                return "core knows no asio"
            return "its home is " + " or ".join(homes)
        if name.endswith(".h") and not headers:
            return "third-party headers are for .cpp files"
        return None
    return None


def check(root):
    deps = peers(root)
    breaches = []
    for path in sources(root):
        name = path.relative_to(root).as_posix()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            found = INCLUDE.match(line)
            if not found:
                continue
            bracket, target = found.groups()
            if target.startswith(("libs/", "services/")):
                if not (root / target).is_file():
                    why = "no such file"
                elif name.startswith("libs/"):
                    why = check_lib(name, target, deps)
                elif name.startswith("services/"):
                    why = check_service(name, target)
                else:
                    why = None
            else:
                why = check_third_party(name, target)
                if why is None and bracket == '"' and (path.parent / target).is_file():
                    why = "write includes of ours from the root of the repository"
            if why:
                breaches.append(f"{name}:{number}: {target}: {why}")
    return breaches


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    breaches = check(root)
    for breach in breaches:
        print(breach)
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
