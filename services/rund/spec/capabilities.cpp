#include "services/rund/spec/capabilities.h"

#include "libs/base/try.h"
#include "libs/os/limit_names.h"

namespace crisp::rund {
namespace {

constexpr CapabilityBits Bit(int number) {
  return CapabilityBits{1} << static_cast<unsigned>(number);
}
constexpr CapabilityBits kAllKnown = Bit(os::kCapabilities) - 1;

struct Asked {
  bool all = false;
  CapabilityBits bits = 0;
};

template <typename Names>
Result<Asked> Read(const Names& names, std::string_view field) {
  Asked asked;
  for (const std::string& name : names) {
    if (os::IsAllCapabilities(name)) {
      asked.all = true;
      continue;
    }
    const auto number = os::CapabilityNumber(name);
    if (!number) return InvalidArgument("{}: unknown capability \"{}\"", field, name);
    asked.bits |= Bit(*number);
  }
  return asked;
}

std::vector<std::string> NamesOf(CapabilityBits bits) {
  std::vector<std::string> names;
  for (int n = 0; n < os::kCapabilities; ++n) {
    if ((bits & Bit(n)) != 0) names.emplace_back(os::CapabilityName(n));
  }
  return names;
}

}  // namespace

bool CapabilitySets::Has(std::string_view name) const {
  const auto number = os::CapabilityNumber(name);
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
