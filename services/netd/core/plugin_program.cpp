#include "services/netd/core/plugin_program.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <utility>

#include "libs/base/try.h"
#include "libs/json/json.h"
#include "libs/log/log.h"
#include "libs/os/file_stamp.h"
#include "libs/os/files.h"
#include "libs/process/command.h"
#include "libs/work/operations.h"
#include "libs/work/pause.h"

namespace crisp::netd {
namespace {

constexpr std::size_t kMaxWords = 4096;  // of a plugin, in an error
constexpr int kLockFd = 3;               // the number in the plugin

std::string Trimmed(std::string_view text) {
  const std::size_t start = text.find_first_not_of(" \t\r\n");
  if (start == std::string_view::npos) return {};
  text = text.substr(start, text.find_last_not_of(" \t\r\n") + 1 - start);
  if (text.size() > kMaxWords) text = text.substr(text.size() - kMaxWords);
  return std::string(text);
}

/// The plugin's own reason: the error object of its stdout, else what it said at all.
std::string WordsOf(const process::Output& output) {
  const Result<nlohmann::json> error = json::Parse(output.out);
  if (error.ok() && error->is_object()) {
    std::string words = json::OptString(*error, "msg").value_or("");
    const std::string details = json::OptString(*error, "details").value_or("");
    if (!details.empty()) words += words.empty() ? details : "; " + details;
    if (!words.empty()) return Trimmed(words);
  }
  std::string words = Trimmed(output.err);
  const std::string out = Trimmed(output.out);
  if (!out.empty()) words += words.empty() ? out : "; " + out;
  if (!words.empty()) return words;
  if (output.signal != 0) return fmt::format("it died of signal {}", output.signal);
  return fmt::format("it said nothing (exit code {})", output.exit_code);
}

/// What the kernel runs by itself, unlike a script.
bool IsBinary(const std::string& program) {
  constexpr std::string_view kElf = "\177ELF";
  std::array<char, kElf.size()> start{};
  const Result<os::UniqueFd> file = os::Open(program, O_RDONLY);
  if (!file.ok()) return false;
  const ssize_t got = ::read(file->get(), start.data(), start.size());
  return got == static_cast<ssize_t>(start.size()) &&
         std::string_view(start.data(), start.size()) == kElf;
}

/// A program whose file is open for writing (ETXTBSY) is tried again until the call is over.
Result<process::Output> RunWhole(const CallContext& cc, const process::Command& command) {
  constexpr std::chrono::milliseconds kRound(20);
  while (true) {
    Result<process::Output> output = process::Run(cc, command);
    if (output.status().error() != ETXTBSY) return output;
    static_cast<void>(work::Pause(cc, kRound).ok());
  }
}

/// What the plugin printed, or why it has failed.
Result<std::string> AnswerOf(const std::string& type, const PluginCall& call,
                             Result<process::Output> output) {
  if (output.code() == Code::kUnavailable) {
    // No process to be had is not a missing program.
    return ResourceExhausted("plugin {}: {}: {}", type, call.verb, output.status().message());
  }
  if (!output.ok()) return output.status().While("plugin {}: {}", type, call.verb);
  if (output->exit_code != 0) {
    return Internal("plugin {}: {} failed: {}", type, call.verb, WordsOf(*output));
  }
  if (output->truncated) return Internal("plugin {}: {} printed too much", type, call.verb);
  return std::move(output->out);
}

}  // namespace

PluginPrograms::PluginPrograms(std::vector<std::string> bin_dirs, OnPluginRun on_run)
    : bin_dirs_(std::move(bin_dirs)), on_run_(std::move(on_run)) {
  for (const std::string& dir : bin_dirs_) {
    if (!cni_path_.empty()) cni_path_.push_back(':');
    cni_path_ += dir;
  }
}

Result<std::string> PluginPrograms::Find(const std::string& type) const {
  for (const std::string& dir : bin_dirs_) {
    std::string path = dir + "/" + type;
    if (::access(path.c_str(), X_OK) == 0) return path;
  }
  return Unavailable("network plugin '{}' is not in {}", type, cni_path_);
}

process::Command PluginPrograms::CommandOf(const std::string& program,
                                           const PluginCall& call) const {
  process::Command command;
  command.program = program;
  command.stdin_data = call.input;
  command.env = {fmt::format("CNI_COMMAND={}", call.verb), "CNI_PATH=" + cni_path_,
                 "GOMAXPROCS=1",  // a plugin is short: one thread costs it less CPU
                 "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:" + cni_path_};
  if (call.for_container) {
    command.env.push_back("CNI_CONTAINERID=" + call.container_id);
    command.env.push_back("CNI_NETNS=" + call.netns);
    command.env.push_back("CNI_IFNAME=" + call.interface);
    command.env.push_back("CNI_ARGS=" + call.cni_args);
  }
  if (!call.mark.empty()) command.env.push_back(call.mark);
  if (call.lock_fd >= 0) command.fds = {{kLockFd, call.lock_fd}};
  return command;
}

std::optional<process::Held> PluginPrograms::StartAhead(const CallContext& cc,
                                                        const std::string& type,
                                                        const PluginCall& call) const {
  const Result<std::string> program = Find(type);
  if (!program.ok() || !IsBinary(*program)) return std::nullopt;
  Result<process::Held> held = process::Held::Start(cc, CommandOf(*program, call));
  return held.ok() ? std::optional(*std::move(held)) : std::nullopt;
}

Result<std::string> PluginPrograms::Run(const CallContext& cc, const std::string& type,
                                        const PluginCall& call,
                                        std::optional<process::Held> started) const {
  const SteadyTime start = std::chrono::steady_clock::now();
  Result<std::string> out = RunProgram(cc, type, call, std::move(started));
  if (on_run_) on_run_(type, call.verb, out.code(), std::chrono::steady_clock::now() - start);
  return out;
}

Result<std::string> PluginPrograms::RunProgram(const CallContext& cc, const std::string& type,
                                               const PluginCall& call,
                                               std::optional<process::Held> started) const {
  const work::Stage stage(cc, fmt::format("plugin {}: {}", type, call.verb));
  if (started) return AnswerOf(type, call, started->Finish(call.input));
  const std::string program = CRISP_TRY(Find(type));
  return AnswerOf(type, call, RunWhole(cc, CommandOf(program, call)));
}

Result<std::vector<std::string>> PluginPrograms::Versions(const CallContext& cc,
                                                          const std::string& type) const {
  const std::string path = CRISP_TRY(Find(type));
  const std::string state = os::FileStamp(path);
  {
    const std::scoped_lock lock(mutex_);
    const auto known = versions_.find(path);
    if (known != versions_.end() && known->second.state == state) return known->second.versions;
  }
  const PluginCall call = {
      .verb = "VERSION", .input = R"({"cniVersion":"1.0.0"})", .for_container = false};
  const Result<std::string> out = Run(cc, type, call);
  CRISP_TRY(cc.Check().While("plugin {}: VERSION", type));
  if (!out.ok()) {  // not an answer to remember: it may have been a bad moment
    log::Debug("network plugin does not tell its versions",
               {{"plugin", type}, {"error", out.status()}});
    return std::vector<std::string>();
  }
  std::vector<std::string> versions;
  const Result<nlohmann::json> answer = json::Parse(*out);
  if (answer.ok()) versions = json::OptStrings(*answer, "supportedVersions").value_or(versions);
  const std::scoped_lock lock(mutex_);
  versions_[path] = {state, versions};
  return versions;
}

}  // namespace crisp::netd
