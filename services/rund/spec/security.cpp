#include "services/rund/spec/security.h"

#include <charconv>

#include "libs/base/text.h"
#include "libs/base/try.h"
#include "libs/json/json.h"
#include "libs/os/files.h"
#include "services/rund/spec/seccomp.h"
#include "services/rund/spec/text.h"

namespace crisp::rund {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxProfile = std::size_t{2} << 20U;
constexpr std::size_t kMaxFlags = 16;

bool IsAction(const std::string& name) {
  static const std::set<std::string, std::less<>> kActions = {
      "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL",         "SCMP_ACT_KILL_THREAD",
      "SCMP_ACT_LOG",   "SCMP_ACT_TRACE", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"};
  return kActions.contains(name);
}

bool IsOperator(const std::string& name) {
  static const std::set<std::string, std::less<>> kOperators = {
      "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE",       "SCMP_CMP_EQ",
      "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"};
  return kOperators.contains(name);
}

Result<std::uint64_t> Natural(const json& object, const char* key) {
  const auto it = object.find(key);
  if (it == object.end() || it->is_null()) return std::uint64_t{0};
  if (!it->is_number_unsigned()) return InvalidArgument("{} is not a natural number", key);
  return it->get<std::uint64_t>();
}

Status CopyErrno(const json& from, const char* key, json& to) {
  const auto it = from.find(key);
  if (it == from.end() || it->is_null()) return Status::Ok();
  const std::uint64_t value = CRISP_TRY(Natural(from, key));
  if (value > 4095) return InvalidArgument("{} is {}", key, value);
  to[key] = value;
  return Status::Ok();
}

/// "x86_64"-like names as the container tools write them in includes and excludes.
std::string_view GoArchitecture() {
#if defined(__x86_64__)
  return "amd64";
#elif defined(__aarch64__)
  return "arm64";
#else
  return "";
#endif
}

/// Whether an includes or excludes object has something that is true here. `minKernel` counts as
/// true: all kernels that crisp runs on are newer than those that profiles ask about.
Result<bool> Matches(const json& filter, const CapabilitySets& capabilities, bool all) {
  bool any = false;
  for (const std::string& cap : CRISP_TRY(crisp::json::OptStrings(filter, "caps"))) {
    const bool has = capabilities.Has(cap);
    any = any || has;
    if (all && !has) return false;
  }
  const auto arches = CRISP_TRY(crisp::json::OptStrings(filter, "arches"));
  if (!arches.empty()) {
    const bool here = std::find(arches.begin(), arches.end(), GoArchitecture()) != arches.end();
    any = any || here;
    if (all && !here) return false;
  }
  if (!CRISP_TRY(crisp::json::OptString(filter, "minKernel")).empty()) any = true;
  return all ? true : any;
}

Result<json> NormaliseArguments(const json& rule) {
  json args = json::array();
  for (const json& given : CRISP_TRY(crisp::json::OptArray(rule, "args"))) {
    if (!given.is_object()) return InvalidArgument("args holds something else than objects");
    const std::uint64_t index = CRISP_TRY(Natural(given, "index"));
    if (index > 5) return InvalidArgument("args: index {}", index);
    const std::string op = CRISP_TRY(crisp::json::GetString(given, "op"));
    if (!IsOperator(op)) return InvalidArgument("args: unknown op \"{}\"", op);
    args.push_back({{"index", index},
                    {"value", CRISP_TRY(Natural(given, "value"))},
                    {"valueTwo", CRISP_TRY(Natural(given, "valueTwo"))},
                    {"op", op}});
  }
  return args;
}

/// Null for a rule that does not apply here.
Result<json> NormaliseRule(const json& given, const CapabilitySets& capabilities) {
  if (!given.is_object()) return InvalidArgument("not an object");
  const json includes = CRISP_TRY(crisp::json::OptObject(given, "includes"));
  const json excludes = CRISP_TRY(crisp::json::OptObject(given, "excludes"));
  if (!CRISP_TRY(Matches(includes, capabilities, true))) return json();
  if (CRISP_TRY(Matches(excludes, capabilities, false))) return json();
  std::vector<std::string> names = CRISP_TRY(crisp::json::OptStrings(given, "names"));
  if (const std::string name = CRISP_TRY(crisp::json::OptString(given, "name")); !name.empty()) {
    names.push_back(name);
  }
  if (names.empty()) return InvalidArgument("names is empty");
  const std::string action = CRISP_TRY(crisp::json::GetString(given, "action"));
  if (!IsAction(action)) return InvalidArgument("unknown action \"{}\"", action);
  json rule = {{"names", names}, {"action", action}};
  CRISP_TRY(CopyErrno(given, "errnoRet", rule));
  if (json args = CRISP_TRY(NormaliseArguments(given)); !args.empty()) {
    rule["args"] = std::move(args);
  }
  return rule;
}

/// The architectures of a profile: its own list, or those that its archMap gives for this machine.
Result<std::vector<std::string>> ProfileArchitectures(const json& profile) {
  std::vector<std::string> names = CRISP_TRY(crisp::json::OptStrings(profile, "architectures"));
  const std::vector<std::string> here = SeccompArchitectures();
  for (const json& entry : CRISP_TRY(crisp::json::OptArray(profile, "archMap"))) {
    const std::string architecture = CRISP_TRY(crisp::json::GetString(entry, "architecture"));
    if (here.empty() || architecture != here.front()) continue;
    names.push_back(architecture);
    for (std::string& sub : CRISP_TRY(crisp::json::OptStrings(entry, "subArchitectures"))) {
      names.push_back(std::move(sub));
    }
  }
  return names;
}

Result<json> LoadProfile(const std::string& path, const CapabilitySets& capabilities) {
  const std::string text =
      CRISP_TRY(os::ReadFile(path, Bytes(kMaxProfile)).While("seccomp profile"));
  return NormaliseSeccomp(text, capabilities).While("seccomp profile {}", path);
}

Result<json> LocalhostProfile(std::string_view reference, const CapabilitySets& capabilities) {
  if (reference.starts_with("localhost/")) reference.remove_prefix(10);
  if (!reference.starts_with('/')) {
    return InvalidArgument(
        "linux.security_context.seccomp: the Localhost profile \"{}\" is not an absolute path",
        reference);
  }
  return LoadProfile(std::string(reference), capabilities);
}

/// 1.20.1 < 1.21; what cannot be read as a version counts as old.
bool OlderThan(std::string_view version, int major, int minor) {
  int has_major = 0;
  int has_minor = 0;
  const char* end = version.data() + version.size();
  const auto [dot, bad] = std::from_chars(version.data(), end, has_major);
  if (bad != std::errc() || dot == end || *dot != '.') return true;
  if (std::from_chars(dot + 1, end, has_minor).ec != std::errc()) return true;
  return has_major != major ? has_major < major : has_minor < minor;
}

}  // namespace

Result<json> NormaliseSeccomp(std::string_view text, const CapabilitySets& capabilities) {
  const json profile = CRISP_TRY(crisp::json::Parse(text, {.max_bytes = kMaxProfile}));
  const std::string default_action = CRISP_TRY(crisp::json::GetString(profile, "defaultAction"));
  if (!IsAction(default_action)) {
    return InvalidArgument("defaultAction: unknown action \"{}\"", default_action);
  }
  if (profile.contains("listenerPath")) return InvalidArgument("listenerPath is not supported");
  json section = {{"defaultAction", default_action}};
  CRISP_TRY(CopyErrno(profile, "defaultErrnoRet", section));
  const auto architectures = CRISP_TRY(ProfileArchitectures(profile));
  if (!architectures.empty()) section["architectures"] = architectures;
  const auto flags = CRISP_TRY(crisp::json::OptStrings(profile, "flags"));
  if (flags.size() > kMaxFlags) return InvalidArgument("flags: {} of them", flags.size());
  if (!flags.empty()) section["flags"] = flags;
  json rules = json::array();
  std::size_t index = 0;
  for (const json& given : CRISP_TRY(crisp::json::OptArray(profile, "syscalls"))) {
    json rule = CRISP_TRY(NormaliseRule(given, capabilities).While("syscalls[{}]", index++));
    if (!rule.is_null()) rules.push_back(std::move(rule));
  }
  if (!rules.empty()) section["syscalls"] = std::move(rules);
  return section;
}

Result<json> BuildSeccomp(const runtime::v1::LinuxContainerSecurityContext& security,
                          const CapabilitySets& capabilities, const SpecDefaults& defaults,
                          bool privileged) {
  using runtime::v1::SecurityProfile;
  if (privileged) return json();
  const auto runtime_default = [&defaults, &capabilities]() -> Result<json> {
    if (!defaults.seccomp_profile.empty()) {
      return LoadProfile(defaults.seccomp_profile, capabilities);
    }
    return DefaultSeccomp(capabilities);
  };
  if (security.has_seccomp()) {
    const SecurityProfile& profile = security.seccomp();
    switch (profile.profile_type()) {
      case SecurityProfile::Unconfined: return json();
      case SecurityProfile::RuntimeDefault: return runtime_default();
      case SecurityProfile::Localhost:
        return LocalhostProfile(profile.localhost_ref(), capabilities);
      default:
        return InvalidArgument("linux.security_context.seccomp.profile_type: unknown type {}",
                               static_cast<int>(profile.profile_type()));
    }
  }
  const std::string& path = security.seccomp_profile_path();
  if (path.empty() || path == "unconfined") return json();
  if (path == "runtime/default" || path == "docker/default") return runtime_default();
  if (path.starts_with("localhost/")) return LocalhostProfile(path, capabilities);
  return InvalidArgument("linux.security_context.seccomp_profile_path: unknown profile \"{}\"",
                         path);
}

Status CheckSeccompProfile(const std::string& path) {
  CapabilitySets all;
  all.bounding = ~CapabilityBits{0};
  // Which rules apply is a matter of the capabilities.
  for (const CapabilitySets& capabilities : {CapabilitySets(), all}) {
    const json section = CRISP_TRY(LoadProfile(path, capabilities));
    CRISP_TRY(CompileSeccomp(section).While("seccomp profile {}", path));
  }
  return Status::Ok();
}

Status PlaceSeccomp(json seccomp, const RuntimeInfo& runtime, const SpecDefaults& defaults,
                    json& spec) {
  if (seccomp.is_null()) return Status::Ok();
  // Flags are not part of a program.
  if (runtime.is_crun && OlderThan(runtime.version, 1, 21) && !seccomp.contains("flags")) {
    const std::string program =
        CRISP_TRY(CompileSeccompCached(seccomp, defaults.seccomp_cache_dir));
    spec["annotations"]["run.oci.seccomp_bpf_data"] = Base64(program);
    return Status::Ok();
  }
  spec["linux"]["seccomp"] = std::move(seccomp);
  return Status::Ok();
}

Status CheckSandboxSecurity(const runtime::v1::LinuxSandboxSecurityContext& security) {
  using runtime::v1::SecurityProfile;
  constexpr std::int64_t kMaxId = 0xFFFFFFFE;
  const auto bad_id = [](std::int64_t id) { return id < 0 || id > kMaxId; };
  if (security.has_run_as_user() && bad_id(security.run_as_user().value())) {
    return InvalidArgument("linux.security_context.run_as_user: {} is not a valid id",
                           security.run_as_user().value());
  }
  if (security.has_run_as_group() && bad_id(security.run_as_group().value())) {
    return InvalidArgument("linux.security_context.run_as_group: {} is not a valid id",
                           security.run_as_group().value());
  }
  for (const std::int64_t gid : security.supplemental_groups()) {
    if (bad_id(gid)) {
      return InvalidArgument("linux.security_context.supplemental_groups: {} is not a valid id",
                             gid);
    }
  }
  if (!runtime::v1::SupplementalGroupsPolicy_IsValid(security.supplemental_groups_policy())) {
    return InvalidArgument("linux.security_context.supplemental_groups_policy: unknown policy {}",
                           static_cast<int>(security.supplemental_groups_policy()));
  }
  if (!SecurityProfile::ProfileType_IsValid(security.seccomp().profile_type())) {
    return InvalidArgument("linux.security_context.seccomp.profile_type: unknown type {}",
                           static_cast<int>(security.seccomp().profile_type()));
  }
  // Of no process of ours, but a pod with a profile that is not there is not what was asked for.
  if (security.seccomp().profile_type() == SecurityProfile::Localhost) {
    CRISP_TRY(LocalhostProfile(security.seccomp().localhost_ref(), {}));
  }
  if (!SecurityProfile::ProfileType_IsValid(security.apparmor().profile_type())) {
    return InvalidArgument("linux.security_context.apparmor.profile_type: unknown type {}",
                           static_cast<int>(security.apparmor().profile_type()));
  }
  return Status::Ok();
}

}  // namespace crisp::rund
