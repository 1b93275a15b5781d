#include "services/rund/runtime/exec_process.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "libs/base/text.h"
#include "libs/base/try.h"
#include "libs/json/json.h"
#include "libs/os/files.h"
#include "libs/os/pipe.h"

namespace crisp::rund {
namespace {

constexpr std::size_t kMaxWords = 4096;
constexpr int kReportFd = 3;

Result<os::UniqueFd> ListenUnix(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return InvalidArgument("'{}' is too long for a socket: choose a shorter run_root", path);
  }
  path.copy(address.sun_path, path.size());
  os::UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return Status::Errno(errno, "socket");
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      listen(fd.get(), 1) != 0) {
    return Status::Errno(errno, "listen on {}", path);
  }
  return fd;
}

/// The last error in a runtime's log of one JSON object a line; "" without one.
std::string LastError(std::string_view log) {
  std::string found;
  while (!log.empty()) {
    const std::string_view line = log.substr(0, log.find('\n'));
    log.remove_prefix(std::min(line.size() + 1, log.size()));
    const auto entry = json::Parse(line, {.max_bytes = KiB(64).count(), .max_depth = 8});
    if (!entry.ok() || json::OptString(*entry, "level").value_or("") != "error") continue;
    found = json::OptString(*entry, "msg").value_or(found);
  }
  return found;
}

}  // namespace

Result<ExecScratch> ExecScratch::Create(const ExecArgs& args) {
  ExecScratch scratch{CRISP_TRY(os::TempDir::Create(args.scratch_dir + "/e-"))};
  CRISP_TRY(os::WriteFile(scratch.process_path(), args.process_json, 0600));
  return scratch;
}

std::vector<std::string> ExecWords(const ExecArgs& args, const ExecScratch& scratch, bool detach) {
  std::vector<std::string> words = {args.runtime};
  words.insert(words.end(), args.runtime_options.begin(), args.runtime_options.end());
  words.insert(words.end(),
               {"--log", scratch.log_path(), "--log-format", "json", "exec", "--process",
                scratch.process_path(), "--pid-file", scratch.pid_path()});
  if (detach) words.emplace_back("--detach");
  return words;
}

std::optional<pid_t> CommandPid(const ExecScratch& scratch) {
  const Result<std::string> text = os::ReadFile(scratch.pid_path(), KiB(1));
  if (!text.ok()) return std::nullopt;
  pid_t pid = 0;
  if (std::from_chars(text->data(), text->data() + text->size(), pid).ec != std::errc() ||
      pid <= 1) {
    return std::nullopt;
  }
  return pid;
}

bool TakeStarted(std::string_view& report) {
  if (!report.starts_with("started ")) return false;
  const auto end = report.find('\n');
  report.remove_prefix(end == report.npos ? report.size() : end + 1);
  return true;
}

std::optional<int> ReportedExit(std::string_view report) {
  constexpr std::string_view kExit = "exit ";
  int code = 0;
  if (!report.starts_with(kExit) ||
      std::from_chars(report.data() + kExit.size(), report.data() + report.size(), code).ec !=
          std::errc()) {
    return std::nullopt;
  }
  return code;
}

std::string ExecFailure(const ExecScratch& scratch, std::string_view err) {
  const Result<std::string> read = os::ReadFile(scratch.log_path(), MiB(1));
  std::string words = read.ok() ? LastError(*read) : "";
  if (words.empty()) words = err;
  while (!words.empty() && (words.back() == '\n' || words.back() == ' ')) words.pop_back();
  if (words.size() > kMaxWords) {
    std::size_t cut = words.size() - kMaxWords;
    while (cut < words.size() && IsUtf8Tail(words[cut])) ++cut;
    words.erase(0, cut);
  }
  return words.empty() ? "the runtime gave no reason" : words;
}

Result<ExecProcess> StartExec(const ExecArgs& args, const ExecStreams& streams) {
  if (args.helper.empty()) return Unavailable("crisp-exec is not installed beside crisp-rund");
  ExecScratch scratch = CRISP_TRY(ExecScratch::Create(args));
  process::Command command;
  command.program = args.helper;
  command.args = {scratch.pid_path(), std::to_string(kReportFd)};
  for (std::string& word : ExecWords(args, scratch, true)) command.args.push_back(std::move(word));

  os::Pipe report = CRISP_TRY(os::MakePipe());
  command.fds = {{kReportFd, report.write.get()}};
  os::Pipe in;
  os::Pipe out;
  os::Pipe err;
  os::UniqueFd console;
  if (streams.tty) {
    console = CRISP_TRY(ListenUnix(scratch.console_path()));
    command.args.emplace_back("--console-socket");
    command.args.push_back(scratch.console_path());
  } else {
    if (streams.in) {
      in = CRISP_TRY(os::MakePipe());
      command.in_fd = in.read.get();
    }
    if (streams.out) {
      out = CRISP_TRY(os::MakePipe());
      command.out_fd = out.write.get();
    }
    if (streams.err) {
      err = CRISP_TRY(os::MakePipe());
      command.err_fd = err.write.get();
    }
  }
  command.args.push_back(args.container_id);
  command.env = process::PlainEnvironment();
  command.new_session = true;
  process::Child helper = CRISP_TRY(process::Spawn(command).While("start {}", command.program));
  return ExecProcess{std::move(in.write), std::move(out.read),    std::move(err.read),
                     std::move(console),  std::move(report.read), std::move(helper),
                     std::move(scratch)};
}

}  // namespace crisp::rund
