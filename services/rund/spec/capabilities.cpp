#include "services/rund/spec/capabilities.h"

#include "libs/base/try.h"

namespace crisp::rund {
namespace {

// By number, as <linux/capability.h> counts them.
constexpr std::array<std::string_view, 41> kNames = {"CAP_CHOWN",
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

constexpr CapabilityBits Bit(int number) {
  return CapabilityBits{1} << static_cast<unsigned>(number);
}
constexpr CapabilityBits kAllKnown = (CapabilityBits{1} << kNames.size()) - 1;

std::string Canonical(std::string_view name) {
  std::string upper(name);
  for (char& c : upper) {
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  }
  return upper.starts_with("CAP_") ? upper : "CAP_" + upper;
}

struct Asked {
  bool all = false;
  CapabilityBits bits = 0;
};

template <typename Names>
Result<Asked> Read(const Names& names, std::string_view field) {
  Asked asked;
  for (const std::string& name : names) {
    if (Canonical(name) == "CAP_ALL") {
      asked.all = true;
      continue;
    }
    const auto number = CapabilityNumber(name);
    if (!number) return InvalidArgument("{}: unknown capability \"{}\"", field, name);
    asked.bits |= Bit(*number);
  }
  return asked;
}

std::vector<std::string> NamesOf(CapabilityBits bits) {
  std::vector<std::string> names;
  for (int n = 0; n < static_cast<int>(kNames.size()); ++n) {
    if ((bits & Bit(n)) != 0) names.emplace_back(CapabilityName(n));
  }
  return names;
}

}  // namespace

std::optional<int> CapabilityNumber(std::string_view name) {
  const std::string canonical = Canonical(name);
  const auto* it = std::find(kNames.begin(), kNames.end(), canonical);
  if (it == kNames.end()) return std::nullopt;
  return static_cast<int>(it - kNames.begin());
}

std::string_view CapabilityName(int number) { return kNames.at(static_cast<std::size_t>(number)); }

bool CapabilitySets::Has(std::string_view name) const {
  const auto number = CapabilityNumber(name);
  return number && (bounding & Bit(*number)) != 0;
}

nlohmann::json CapabilitySets::ToJson() const {
  return {{"bounding", NamesOf(bounding)},
          {"effective", NamesOf(effective)},
          {"permitted", NamesOf(effective)},
          {"inheritable", NamesOf(ambient)},
          {"ambient", NamesOf(ambient)}};
}

Result<CapabilitySets> BuildCapabilities(std::span<const std::string> defaults,
                                         const runtime::v1::Capability& asked, bool privileged,
                                         bool root_user, CapabilityBits daemon_has) {
  daemon_has &= kAllKnown;
  const Asked base = CRISP_TRY(Read(defaults, "rund.default_capabilities"));
  const Asked add = CRISP_TRY(
      Read(asked.add_capabilities(), "linux.security_context.capabilities.add_capabilities"));
  const Asked drop = CRISP_TRY(
      Read(asked.drop_capabilities(), "linux.security_context.capabilities.drop_capabilities"));
  const Asked ambient =
      CRISP_TRY(Read(asked.add_ambient_capabilities(),
                     "linux.security_context.capabilities.add_ambient_capabilities"));

  CapabilitySets sets;
  const CapabilityBits by_name = ((add.bits & ~drop.bits) | ambient.bits) & ~daemon_has;
  if (by_name != 0 && !privileged) {
    return FailedPrecondition(
        "linux.security_context.capabilities: {} cannot be given, the runtime daemon on this node "
        "does not have it itself",
        fmt::join(NamesOf(by_name), ", "));
  }
  if (privileged) {
    sets.bounding = daemon_has;
  } else {
    sets.bounding = base.all ? daemon_has : base.bits;
    if (const CapabilityBits missing = sets.bounding & ~daemon_has; missing != 0) {
      sets.notes.push_back(
          fmt::format("default capabilities that this daemon does not have itself are left out: {}",
                      fmt::join(NamesOf(missing), ", ")));
      sets.bounding &= daemon_has;
    }
    if (add.all) sets.bounding = daemon_has;
    if (drop.all) sets.bounding = 0;
    sets.bounding |= add.bits;
    sets.bounding &= ~drop.bits;
  }
  sets.ambient = ambient.all ? sets.bounding : ambient.bits & daemon_has;
  sets.bounding |= sets.ambient;
  sets.effective = root_user ? sets.bounding : sets.ambient;
  return sets;
}

}  // namespace crisp::rund
