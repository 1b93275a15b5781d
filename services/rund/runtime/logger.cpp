#include "services/rund/runtime/logger.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "libs/base/try.h"
#include "libs/os/files.h"
#include "libs/os/pipe.h"
#include "libs/process/command.h"
#include "services/rund/logger/control.h"
#include "services/rund/runtime/runc.h"

namespace crisp::rund {
namespace {

using os::UniqueFd;

/// A bundle's path may be longer than a socket's address: the directory goes by its number.
struct Address {
  sockaddr_un un{};
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&un); }
};
Address SocketIn(const UniqueFd& directory) {
  Address address;
  address.un.sun_family = AF_UNIX;
  fmt::format("/proc/self/fd/{}/{}", directory.get(), logger::kSocketName)
      .copy(address.un.sun_path, sizeof address.un.sun_path - 1);
  return address;
}

Result<UniqueFd> Listen(const std::string& bundle) {
  CRISP_TRY(os::RemoveFile(bundle + "/" + logger::kSocketName));
  const UniqueFd directory = CRISP_TRY(os::Open(bundle, O_PATH | O_DIRECTORY));
  UniqueFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return Status::Errno(errno, "socket");
  const Address address = SocketIn(directory);
  if (bind(fd.get(), address.get(), sizeof address.un) != 0 || listen(fd.get(), 16) != 0) {
    return Status::Errno(errno, "listen at {}/{}", bundle, logger::kSocketName);
  }
  return fd;
}

Result<UniqueFd> Connect(const std::string& bundle) {
  const UniqueFd directory = CRISP_TRY(os::Open(bundle, O_PATH | O_DIRECTORY));
  UniqueFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return Status::Errno(errno, "socket");
  const Address address = SocketIn(directory);
  if (connect(fd.get(), address.get(), sizeof address.un) == 0) return fd;
  if (errno == ECONNREFUSED || errno == ENOENT) return NotFound("the container has no crisp-log");
  if (errno == EAGAIN) return DeadlineExceeded("crisp-log does not take requests");
  return Status::Errno(errno, "connect to crisp-log");
}

Result<LoggerAnswer> ParseAnswer(const std::string& text) {
  int error = 0;
  if (std::sscanf(text.c_str(), "error %d", &error) == 1) {
    return Status::Errno(error, "crisp-log");
  }
  LoggerAnswer answer;
  LogCounts& counts = answer.counts;
  // NOLINTNEXTLINE(cert-err34-c): numbers of our own program; an older one does not say the last
  if (std::sscanf(text.c_str(), "ok %lu %lu %lu %lu %d", &counts.dropped_lines,
                  &counts.dropped_bytes, &counts.lost_lines, &counts.lost_bytes,
                  &answer.pid) >= 4) {
    return answer;
  }
  if (text.empty()) return NotFound("crisp-log ended");
  return Internal("crisp-log answered something unknown: {}", text);
}

Status MakeFifo(const std::string& path) {
  if (mkfifo(path.c_str(), S_IRUSR | S_IWUSR) == 0 || errno == EEXIST) return Status::Ok();
  return Status::Errno(errno, "mkfifo {}", path);
}

}  // namespace

std::string LoggerFifo(const std::string& bundle) { return bundle + "/" + logger::kFifoName; }

Result<UniqueFd> StartLogger(const CallContext& cc, const LoggerArgs& args) {
  if (args.program.empty()) {
    return Unavailable("the log is limited, and crisp-log is not installed beside crisp-rund");
  }
  const std::string fifo = LoggerFifo(args.bundle);
  CRISP_TRY(MakeFifo(fifo));
  // Of this kind it neither waits for anybody nor ends before conmon comes.
  UniqueFd held = CRISP_TRY(os::Open(fifo, O_RDWR | O_NONBLOCK));
  const UniqueFd in = CRISP_TRY(os::Open(fifo, O_RDONLY | O_NONBLOCK));
  const UniqueFd listener = CRISP_TRY(Listen(args.bundle));
  process::Command command;
  command.program = args.program;
  command.args = {args.name,
                  args.bundle + "/pid",
                  std::to_string(args.limits.rate.count()),
                  std::to_string(args.limits.burst.count()),
                  args.limits.block ? "block" : "drop",
                  std::to_string(args.limits.max_size.count())};
  if (args.again) command.args.emplace_back(logger::kAgain);
  command.env = process::PlainEnvironment();
  command.cwd = "/";
  command.in_fd = in.get();
  command.fds = {{logger::kDirectoryFd, args.directory}, {logger::kSocketFd, listener.get()}};
  // It returns at once, and goes on by itself.
  const auto out = CRISP_TRY(
      process::Run(cc.Within(std::chrono::seconds(10)), command).While("start crisp-log"));
  if (out.exit_code != 0) return Internal("crisp-log: {}", RuntimeWords(out.err));
  return held;
}

Result<LoggerAnswer> AskLogger(const CallContext& cc, const std::string& bundle,
                               std::string_view request) {
  const UniqueFd peer = CRISP_TRY(Connect(bundle));
  if (send(peer.get(), request.data(), request.size(), MSG_NOSIGNAL) < 0) {
    return errno == EPIPE ? NotFound("crisp-log ended") : Status::Errno(errno, "ask crisp-log");
  }
  while (true) {
    pollfd answer{.fd = peer.get(), .events = POLLIN, .revents = 0};
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(cc.Remaining()).count();
    const int ready = poll(&answer, 1, static_cast<int>(std::clamp<std::int64_t>(left, 0, 60'000)));
    if (ready > 0) break;
    if (ready < 0 && errno != EINTR) return Status::Errno(errno, "poll");
    CRISP_TRY(cc.Check().While("wait for crisp-log"));
  }
  char text[256];
  const ssize_t size = recv(peer.get(), text, sizeof text, 0);
  if (size < 0 && errno != ECONNRESET) return Status::Errno(errno, "crisp-log's answer");
  return ParseAnswer(std::string(text, static_cast<std::size_t>(std::max<ssize_t>(size, 0))));
}

}  // namespace crisp::rund
