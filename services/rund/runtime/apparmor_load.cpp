#include "services/rund/runtime/apparmor_load.h"

#include <fmt/ranges.h>

#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/os/files.h"
#include "libs/process/command.h"
#include "services/rund/spec/apparmor.h"

namespace crisp::rund {
namespace {

/// The first of these that is there.
Result<std::string> Find(std::initializer_list<std::string> paths, std::string_view what) {
  for (const std::string& path : paths) {
    if (os::Exists(path)) return path;
  }
  return NotFound("{} is none of {}", what, fmt::join(paths, ", "));
}

}  // namespace

Status LoadAppArmorProfile(const CallContext& cc, const std::string& list,
                           const std::string& name) {
  if (CRISP_TRY(IsAppArmorLoaded(list, name))) return Status::Ok();
  if (name.find('/') != std::string::npos) return NotFound("the profile {} is not loaded", name);
  const std::string file = CRISP_TRY(
      Find({"/etc/apparmor.d/" + name, "/usr/share/crisp/apparmor/" + name}, "the profile's file"));
  process::Command command;
  command.program =
      CRISP_TRY(Find({"/sbin/apparmor_parser", "/usr/sbin/apparmor_parser"}, "apparmor_parser"));
  command.args = {"--replace", "--write-cache", file};
  command.env = process::PlainEnvironment();
  const process::Output out = CRISP_TRY(process::Run(cc, command).While("apparmor_parser"));
  if (out.exit_code != 0) return FailedPrecondition("apparmor_parser {}: {}", file, out.err);
  log::Info("AppArmor profile loaded", {{"profile", name}, {"file", file}});
  return Status::Ok();
}

}  // namespace crisp::rund
