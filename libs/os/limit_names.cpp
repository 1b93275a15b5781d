#include "libs/os/limit_names.h"

#include <sys/resource.h>

#include <array>
#include <charconv>

#include "libs/base/closest.h"
#include "libs/base/text.h"
#include "libs/base/try.h"

namespace crisp::os {
namespace {

// By number, as <linux/capability.h> counts them.
constexpr std::array<std::string_view, kCapabilities> kCapabilityNames = {"CAP_CHOWN",
                                                                          "CAP_DAC_OVERRIDE",
                                                                          "CAP_DAC_READ_SEARCH",
                                                                          "CAP_FOWNER",
                                                                          "CAP_FSETID",
                                                                          "CAP_KILL",
                                                                          "CAP_SETGID",
                                                                          "CAP_SETUID",
                                                                          "CAP_SETPCAP",
                                                                          "CAP_LINUX_IMMUTABLE",
                                                                          "CAP_NET_BIND_SERVICE",
                                                                          "CAP_NET_BROADCAST",
                                                                          "CAP_NET_ADMIN",
                                                                          "CAP_NET_RAW",
                                                                          "CAP_IPC_LOCK",
                                                                          "CAP_IPC_OWNER",
                                                                          "CAP_SYS_MODULE",
                                                                          "CAP_SYS_RAWIO",
                                                                          "CAP_SYS_CHROOT",
                                                                          "CAP_SYS_PTRACE",
                                                                          "CAP_SYS_PACCT",
                                                                          "CAP_SYS_ADMIN",
                                                                          "CAP_SYS_BOOT",
                                                                          "CAP_SYS_NICE",
                                                                          "CAP_SYS_RESOURCE",
                                                                          "CAP_SYS_TIME",
                                                                          "CAP_SYS_TTY_CONFIG",
                                                                          "CAP_MKNOD",
                                                                          "CAP_LEASE",
                                                                          "CAP_AUDIT_WRITE",
                                                                          "CAP_AUDIT_CONTROL",
                                                                          "CAP_SETFCAP",
                                                                          "CAP_MAC_OVERRIDE",
                                                                          "CAP_MAC_ADMIN",
                                                                          "CAP_SYSLOG",
                                                                          "CAP_WAKE_ALARM",
                                                                          "CAP_BLOCK_SUSPEND",
                                                                          "CAP_AUDIT_READ",
                                                                          "CAP_PERFMON",
                                                                          "CAP_BPF",
                                                                          "CAP_CHECKPOINT_RESTORE"};

constexpr std::array<ResourceLimit, 16> kLimits = {{
    {"RLIMIT_AS", RLIMIT_AS},
    {"RLIMIT_CORE", RLIMIT_CORE},
    {"RLIMIT_CPU", RLIMIT_CPU},
    {"RLIMIT_DATA", RLIMIT_DATA},
    {"RLIMIT_FSIZE", RLIMIT_FSIZE},
    {"RLIMIT_LOCKS", RLIMIT_LOCKS},
    {"RLIMIT_MEMLOCK", RLIMIT_MEMLOCK},
    {"RLIMIT_MSGQUEUE", RLIMIT_MSGQUEUE},
    {"RLIMIT_NICE", RLIMIT_NICE},
    {"RLIMIT_NOFILE", RLIMIT_NOFILE},
    {"RLIMIT_NPROC", RLIMIT_NPROC},
    {"RLIMIT_RSS", RLIMIT_RSS},
    {"RLIMIT_RTPRIO", RLIMIT_RTPRIO},
    {"RLIMIT_RTTIME", RLIMIT_RTTIME},
    {"RLIMIT_SIGPENDING", RLIMIT_SIGPENDING},
    {"RLIMIT_STACK", RLIMIT_STACK},
}};

constexpr std::string_view kCapabilityPrefix = "CAP_";
constexpr std::string_view kLimitPrefix = "RLIMIT_";

/// "chown", "CAP_CHOWN" → "CAP_CHOWN".
std::string Canonical(std::string_view name, std::string_view prefix) {
  std::string upper(name);
  for (char& c : upper) {
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  }
  return upper.starts_with(prefix) ? upper : std::string(prefix) + upper;
}

std::optional<std::uint64_t> Amount(std::string_view text) {
  if (text == "-1") return RLIM_INFINITY;
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::vector<std::string> LimitNames() {
  std::vector<std::string> names;
  for (const ResourceLimit& limit : kLimits) {
    names.push_back(Lower(limit.name.substr(kLimitPrefix.size())));
  }
  return names;
}

}  // namespace

std::optional<int> CapabilityNumber(std::string_view name) {
  const std::string canonical = Canonical(name, kCapabilityPrefix);
  for (int number = 0; number < kCapabilities; ++number) {
    if (CapabilityName(number) == canonical) return number;
  }
  return std::nullopt;
}

std::string_view CapabilityName(int number) {
  return kCapabilityNames.at(static_cast<std::size_t>(number));
}

bool IsAllCapabilities(std::string_view name) {
  return Canonical(name, kCapabilityPrefix) == "CAP_ALL";
}

Status CheckCapability(std::string_view name) {
  if (IsAllCapabilities(name) || CapabilityNumber(name)) return Status::Ok();
  const std::size_t bare = kCapabilityPrefix.size();
  std::vector<std::string> known;
  for (const std::string_view one : kCapabilityNames) known.emplace_back(one.substr(bare));
  return InvalidArgument("'{}' is no capability{}", name,
                         DidYouMean(Canonical(name, kCapabilityPrefix).substr(bare), known));
}

std::span<const ResourceLimit> ResourceLimits() { return kLimits; }

const ResourceLimit* FindResourceLimit(std::string_view name) {
  const std::string canonical = Canonical(name, kLimitPrefix);
  for (const ResourceLimit& limit : kLimits) {
    if (limit.name == canonical) return &limit;
  }
  return nullptr;
}

Result<Ulimit> ParseUlimit(std::string_view text) {
  const auto equals = text.find('=');
  const auto colon = text.find(':', equals == text.npos ? 0 : equals);
  if (equals == text.npos || equals == 0 || colon == text.npos) {
    return InvalidArgument("'{}' is no limit of the form name=soft:hard", text);
  }
  const std::string_view name = text.substr(0, equals);
  const auto soft = Amount(text.substr(equals + 1, colon - equals - 1));
  const auto hard = Amount(text.substr(colon + 1));
  if (!soft || !hard) {
    return InvalidArgument("'{}' is no limit of the form name=soft:hard (numbers; -1 for no limit)",
                           text);
  }
  if (FindResourceLimit(name) == nullptr) {
    const std::vector<std::string> names = LimitNames();
    return InvalidArgument("'{}' is no limit that the kernel knows{} (known: {})", name,
                           DidYouMean(name, names), fmt::join(names, ", "));
  }
  if (*soft > *hard) return InvalidArgument("'{}' has more soft than hard", text);
  return Ulimit{std::string(name), *soft, *hard};
}

Result<std::uint32_t> ParseUmask(std::string_view text) {
  std::uint32_t umask = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), umask, 8);
  if (error == std::errc() && end == text.data() + text.size() && umask <= 0777) return umask;
  return InvalidArgument("'{}' is not an octal mask up to 0777", text);
}

}  // namespace crisp::os
