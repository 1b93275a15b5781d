#include "services/rund/runtime/criu.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <deque>

#include "libs/base/text.h"
#include "libs/base/try.h"
#include "libs/os/files.h"
#include "libs/process/command.h"
#include "libs/work/operations.h"
#include "services/rund/runtime/conmon.h"

namespace crisp::rund {
namespace {

constexpr std::size_t kMaxWords = 4096;
constexpr std::size_t kMaxErrors = 4;
constexpr Bytes kMaxLog = MiB(64);

/// In the PATH that helpers get; "" = nowhere.
std::string FindInPath(const std::string& program) {
  for (const std::string& variable : process::PlainEnvironment()) {
    std::string_view rest = variable;
    if (!rest.starts_with("PATH=")) continue;
    rest.remove_prefix(5);
    while (!rest.empty()) {
      const std::string_view dir = rest.substr(0, rest.find(':'));
      rest.remove_prefix(std::min(rest.size(), dir.size() + 1));
      const std::string path = std::string(dir) + "/" + program;
      if (access(path.c_str(), X_OK) == 0) return path;
    }
  }
  return "";
}

process::Command CommandOf(const OciRuntime& runtime, std::vector<std::string> args) {
  process::Command command;
  command.program = runtime.info().path;
  command.args = runtime.options();
  std::move(args.begin(), args.end(), std::back_inserter(command.args));
  command.env = process::PlainEnvironment();
  return command;
}

/// What may be there of sockets, locks and terminals: written too rather than an error, since who
/// keeps a checkpoint to look at it wants it all.
const std::vector<std::string>& CommonOptions() {
  static const std::vector<std::string> kOptions = {"--file-locks", "--tcp-established",
                                                    "--ext-unix-sk"};
  return kOptions;
}

}  // namespace

Status CheckCriu(const CallContext& cc, const OciRuntime& runtime, const std::string& criu) {
  if (criu.empty() ? FindInPath("criu").empty() : !os::Exists(criu)) {
    return Unimplemented(
        "containers cannot be checkpointed or restored: there is no program criu "
        "on this node (install CRIU)");
  }
  // An older one, or one that was built without CRIU, does not know the command.
  const auto asked = process::Run(cc, CommandOf(runtime, {"checkpoint", "--help"}));
  if (asked.ok() && asked->exit_code == 0) return Status::Ok();
  if (!asked.ok() && asked.code() != Code::kNotFound) return asked.status();
  return Unimplemented(
      "containers of the runtime {} cannot be checkpointed or restored: {} has no command for it",
      runtime.info().name, runtime.info().path);
}

Status DumpProcesses(const CallContext& cc, const OciRuntime& runtime, const ContainerId& id,
                     const std::string& images, const std::string& work) {
  std::vector<std::string> args = {"checkpoint",  "--image-path", images,
                                   "--work-path", work,           "--leave-running"};
  args.insert(args.end(), CommonOptions().begin(), CommonOptions().end());
  args.push_back(id.str());
  const work::Stage stage(cc, fmt::format("runtime {}: checkpoint", runtime.info().name));
  process::RunOptions options;
  options.max_output = KiB(64);
  auto output = process::Run(cc, CommandOf(runtime, std::move(args)), options);
  if (output.ok() && output->exit_code == 0) return Status::Ok();
  KillDump(images);
  if (!output.ok()) return std::move(output).status().While("{} checkpoint", runtime.info().name);
  return FailedPrecondition("{} checkpoint: {}", runtime.info().name,
                            CriuWordsIn(work, "dump.log", RuntimeWords(output->err)));
}

void KillDump(const std::string& images) { KillAllWith({"--image-path", images}); }

std::vector<std::string> RestoreOptions(const std::string& selinux_process,
                                        const std::string& selinux_mount) {
  std::vector<std::string> options = CommonOptions();
  if (!selinux_process.empty()) options.push_back("--lsm-profile=selinux:" + selinux_process);
  if (!selinux_mount.empty()) options.push_back("--lsm-mount-context=" + selinux_mount);
  return options;
}

std::string CriuWords(std::string_view log) {
  std::deque<std::string_view> errors;
  while (!log.empty()) {
    std::string_view line = log.substr(0, log.find('\n'));
    log.remove_prefix(std::min(log.size(), line.size() + 1));
    // "(00.728218) Error (criu/files-reg.c:1710): Can't lookup mount=22 …"
    const auto error = line.find(" Error (");
    if (error == line.npos || line.find(')') > error) continue;
    const auto text = line.find("): ", error);
    if (text == line.npos) continue;
    errors.push_back(line.substr(text + 3));
    if (errors.size() > kMaxErrors) errors.pop_front();
  }
  // That it has failed is known.
  if (errors.size() > 1 && errors.back().find("FAILED") != std::string_view::npos)
    errors.pop_back();
  return ToUtf8(fmt::format("{}", fmt::join(errors, "; ")), kMaxWords);
}

std::string CriuWordsIn(const std::string& work, const std::string& file,
                        const std::string& runtime_words) {
  const auto log = os::ReadFile(work + "/" + file, kMaxLog);
  const std::string words = log.ok() ? CriuWords(*log) : "";
  return words.empty() ? runtime_words : "CRIU: " + words;
}

}  // namespace crisp::rund
