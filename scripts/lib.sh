# shellcheck shell=bash disable=SC2034
# Shared by the scripts here; sourced (by scripts with set -euo pipefail), never run.

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Where the programs are; scripts/run-local and the benchmark take CRISP_BUILD_DIR from the caller.
BUILD=${CRISP_BUILD_DIR:-$REPO/build/dev}

if [[ -t 2 && ${NO_COLOR:-} == "" ]]; then
  BOLD=$'\e[1m' RED=$'\e[31m' PLAIN=$'\e[0m'
else
  BOLD='' RED='' PLAIN=''
fi

say() { printf '%s==> %s%s\n' "$BOLD" "$*" "$PLAIN" >&2; }
die() {
  printf '%s%s: %s%s\n' "$RED" "$(basename "$0")" "$*" "$PLAIN" >&2
  exit 1
}
need_root() { [[ $EUID -eq 0 ]] || die "must run as root (namespaces, mounts, cgroups)"; }

# Packages of Debian 12.
BUILD_PACKAGES=(
  g++ cmake ninja-build ccache pkg-config python3
  libgrpc++-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc
  libboost1.81-dev libyaml-cpp-dev libtomlplusplus-dev nlohmann-json3-dev libfmt-dev libspdlog-dev
  prometheus-cpp-dev libsqlite3-dev libssl-dev libisal-dev libzstd-dev zlib1g-dev libseccomp-dev libcap-dev libcli11-dev
  libgpgme-dev libsystemd-dev
  catch2 libbenchmark-dev lowdown
)
RUN_PACKAGES=(
  runc crun conmon containernetworking-plugins docker-registry busybox-static
  iproute2 iptables nftables util-linux procps zstd python3 gpg gpg-agent openssl skopeo umoci
)
CHECK_PACKAGES=(
  clang-format shellcheck mandoc man-db apparmor zsh fish dpkg-dev fakeroot lintian patchelf rpm prometheus python3-yaml ansible-core
  btrfs-progs erofs-utils
)
# A machine of another kind, in software emulation.
VM_PACKAGES=(qemu-system-x86 debootstrap)
BENCH_PACKAGES=(socat)
FUZZ_PACKAGES=(clang libclang-rt-14-dev)
TIDY_PACKAGES=(clang clang-tidy)

# install_packages NAME...: asks apt only when something is missing.
install_packages() {
  local name missing=()
  for name in "$@"; do
    [[ $(dpkg-query -W -f '${db:Status-Abbrev}' "$name" 2>/dev/null) == ii* ]] || missing+=("$name")
  done
  [[ ${#missing[@]} -gt 0 ]] || return 0
  [[ $EUID -eq 0 ]] || die "missing packages, and only root can install them: ${missing[*]}"
  say "installing ${missing[*]}"
  (
    # Programs are all we want of them: no package starts a service here.
    if [[ ! -e /usr/sbin/policy-rc.d ]]; then
      trap 'rm -f /usr/sbin/policy-rc.d' EXIT
      printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
      chmod +x /usr/sbin/policy-rc.d
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null ||
      { apt-get update -qq && apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null; }
  ) || die "apt-get could not install: ${missing[*]}"
}

# build TARGET...: configures the dev preset if need be and builds these targets ("all": everything).
build() {
  cd "$REPO" || exit
  mkdir -p build
  cmake --preset dev >"$REPO/build/configure.log" 2>&1 || {
    cat "$REPO/build/configure.log" >&2
    die "cmake failed"
  }
  cmake --build --preset dev --target "$@"
}

# free_port: a TCP port of 127.0.0.1 that nobody listens on now.
free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# start_registry DIR PORT: Debian's docker-registry on loopback, plain HTTP, all of it under DIR. Sets REGISTRY_PID.
start_registry() {
  local dir=$1 port=$2 tries
  mkdir -p "$dir/data"
  cat >"$dir/config.yml" <<YAML
version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: $dir/data}
  delete: {enabled: true}
http:
  addr: 127.0.0.1:$port
YAML
  docker-registry serve "$dir/config.yml" >"$dir/log" 2>&1 </dev/null &
  REGISTRY_PID=$!
  for tries in $(seq 100); do
    busybox wget -q -O /dev/null "http://127.0.0.1:$port/v2/" 2>/dev/null && return 0
    kill -0 "$REGISTRY_PID" 2>/dev/null || break
    sleep 0.05
  done
  kill "$REGISTRY_PID" 2>/dev/null || true
  wait "$REGISTRY_PID" 2>/dev/null || true
  cat "$dir/log" >&2
  die "the registry did not start (tried $tries times)"
}

# start_crisp DIR: the four daemons of the build tree, with everything of theirs below DIR (scripts/run-local; before, DIR may have
# a crisp.yaml.d). Returns when they are healthy. Sets CRISP_PID.
start_crisp() {
  local dir=$1
  mkdir -p "$dir"
  "$REPO/scripts/run-local" "$dir" >"$dir/run-local.out" 2>&1 &
  CRISP_PID=$!
  for _ in $(seq 600); do
    ! grep -q ^ready "$dir/run-local.out" || return 0
    kill -0 "$CRISP_PID" 2>/dev/null || die "the daemons did not start: $(cat "$dir/run-local.out")"
    sleep 0.05
  done
  die "the daemons are not healthy"
}

# remove_cgroups NAME...: these, with what is below them, in every hierarchy. They stay busy until the last process of theirs has
# gone, which after a kill -9 takes a moment: waits for it.
remove_cgroups() {
  local name
  for name in "$@"; do
    for _ in $(seq 50); do
      find /sys/fs/cgroup -depth -type d -path "*/$name*" -exec rmdir {} + 2>/dev/null || true
      [[ -n $(find /sys/fs/cgroup -maxdepth 2 -name "$name" -print -quit) ]] || break
      sleep 0.1
    done
  done
}

# stop_child [PID]: ends a process that this shell has started, and waits for it.
stop_child() {
  [[ -n ${1:-} ]] || return 0
  kill -TERM "$1" 2>/dev/null || return 0
  wait "$1" 2>/dev/null || true
}
