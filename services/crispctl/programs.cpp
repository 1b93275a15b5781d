#include "services/crispctl/programs.h"

#include <fmt/format.h>

#include <chrono>
#include <string_view>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/try.h"
#include "libs/os/files.h"
#include "libs/process/command.h"

namespace crisp::ctl {
namespace {

constexpr std::chrono::seconds kCheck{30};

/// Where a program of ours may be, in order.
std::vector<std::string> Directories() {
  std::vector<std::string> directories;
  if (const Result<std::string> self = os::ReadLink("/proc/self/exe"); self.ok()) {
    directories.push_back(self->substr(0, self->rfind('/')));
  }
  directories.insert(directories.end(), {"/usr/libexec/crisp", "/usr/bin"});
  return directories;
}

/// Its last words, without the line's end.
std::string_view Trimmed(std::string_view text) {
  while (!text.empty() && text.back() == '\n') text.remove_suffix(1);
  return text;
}

Status CheckBy(const std::string& program, const std::string& settings_path) {
  process::Command command;
  command.program = program;
  command.args = {"--check-config", "--config", settings_path};
  command.env = process::PlainEnvironment();
  const process::Output output =
      CRISP_TRY(process::Run(CallContext::Background(kCheck, "crispctl"), command));
  if (output.exit_code == 0) return Status::Ok();
  const std::string_view words = Trimmed(output.err);
  if (words.empty()) return InvalidArgument("{} ends with {}", program, output.exit_code);
  return InvalidArgument("{}", words);
}

}  // namespace

std::string FindProgram(const std::string& name, const std::string& directory) {
  const std::vector<std::string> places =
      directory.empty() ? Directories() : std::vector<std::string>{directory};
  for (const std::string& place : places) {
    std::string path = fmt::format("{}/{}", place, name);
    if (os::Exists(path)) return path;
  }
  return "";
}

Status CheckByDaemons(const std::string& settings_path, const std::string& directory) {
  bool any = false;
  for (const char* name : {"crisp-crid", "crisp-imaged", "crisp-netd", "crisp-rund"}) {
    const std::string program = FindProgram(name, directory);
    if (program.empty()) continue;
    any = true;
    CRISP_TRY(CheckBy(program, settings_path));
  }
  return any ? Status::Ok() : NotFound("no daemon of crisp is installed here");
}

}  // namespace crisp::ctl
