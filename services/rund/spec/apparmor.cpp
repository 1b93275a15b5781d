#include "services/rund/spec/apparmor.h"

#include "libs/base/try.h"
#include "libs/os/files.h"

namespace crisp::rund {
namespace {

constexpr std::string_view kField = "linux.security_context.apparmor";

struct Wish {
  bool by_default = false;
  std::string name;  // of a Localhost profile
};

Result<Wish> WishOf(const runtime::v1::LinuxContainerSecurityContext& security) {
  using runtime::v1::SecurityProfile;
  Wish wish;
  if (security.has_apparmor()) {
    switch (security.apparmor().profile_type()) {
      case SecurityProfile::Unconfined: return wish;
      case SecurityProfile::RuntimeDefault: wish.by_default = true; return wish;
      case SecurityProfile::Localhost: wish.name = security.apparmor().localhost_ref(); break;
      default:
        return InvalidArgument("{}.profile_type: unknown type {}", kField,
                               static_cast<int>(security.apparmor().profile_type()));
    }
  } else {
    wish.name = security.apparmor_profile();
    if (wish.name == "unconfined") return Wish();
    if (wish.name.empty() || wish.name == "runtime/default") return Wish{true, ""};
  }
  if (wish.name.starts_with("localhost/")) wish.name.erase(0, 10);
  if (wish.name.empty()) return InvalidArgument("{}: the Localhost profile has no name", kField);
  if (wish.name == "unconfined") return Wish();
  return wish;
}

Status CannotTell(const Status& why) {
  return FailedPrecondition("{}: whether the profile is loaded cannot be told: {}", kField,
                            why.message());
}

}  // namespace

Result<bool> IsAppArmorLoaded(const std::string& list, const std::string& name) {
  const std::string loaded = CRISP_TRY(os::ReadFile(list).While("loaded AppArmor profiles"));
  // Lines of "name (mode)".
  return ("\n" + loaded).find("\n" + name + " (") != std::string::npos;
}

Result<std::string> AppArmorProfile(const runtime::v1::LinuxContainerSecurityContext& security,
                                    bool privileged, const SpecDefaults& defaults,
                                    std::vector<std::string>& notes) {
  const Wish wish = CRISP_TRY(WishOf(security));
  const HostFacts& host = defaults.host;
  if (wish.name.empty()) {
    if (!wish.by_default || privileged || !host.apparmor) return std::string();
    const bool asked = security.has_apparmor() || !security.apparmor_profile().empty();
    const auto loaded = IsAppArmorLoaded(host.apparmor_profiles, defaults.apparmor_profile);
    if (!loaded.ok() && asked) return CannotTell(loaded.status());
    if (loaded.ok() && *loaded) return defaults.apparmor_profile;
    if (!loaded.ok()) notes.push_back("no AppArmor profile: " + loaded.status().message());
    if (!asked) return std::string();
    return FailedPrecondition("{}: the node's default profile \"{}\" is not loaded", kField,
                              defaults.apparmor_profile);
  }
  if (!host.apparmor) {
    return FailedPrecondition(
        "{}: the profile \"{}\" is asked for, but AppArmor is not enabled on this node", kField,
        wish.name);
  }
  if (privileged) return std::string();
  const auto loaded = IsAppArmorLoaded(host.apparmor_profiles, wish.name);
  if (!loaded.ok()) return CannotTell(loaded.status());
  if (!*loaded) {
    return FailedPrecondition("{}: the profile \"{}\" is not loaded", kField, wish.name);
  }
  return wish.name;
}

}  // namespace crisp::rund
