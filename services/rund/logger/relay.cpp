#include "services/rund/logger/relay.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <ctime>

#include "services/rund/logger/control.h"

namespace crisp::rund::logger {
namespace {

constexpr int kFifo = STDIN_FILENO;
constexpr Nanoseconds kSecond = 1'000'000'000;

Nanoseconds Now() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * kSecond + now.tv_nsec;
}

/// 0 when it cannot be read.
pid_t ReadPid(const char* path) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  char text[32];
  const ssize_t size = read(fd, text, sizeof text);
  close(fd);
  pid_t pid = 0;
  if (size > 0) std::from_chars(text, text + size, pid);
  return pid;
}

/// `wait` < 0: for ever.
void Poll(pollfd* fds, nfds_t count, Nanoseconds wait) {
  const timespec time{.tv_sec = wait / kSecond, .tv_nsec = wait % kSecond};
  if (ppoll(fds, count, wait < 0 ? nullptr : &time, nullptr) > 0) return;
  for (nfds_t i = 0; i < count; ++i) fds[i].revents = 0;
}

}  // namespace

Relay::Relay(const RelayOptions& options)
    : options_(options),
      file_(kDirectoryFd, options.name, options.max_size),
      bucket_(std::max<std::uint64_t>(options.rate, 1), options.burst, Now()),
      dropper_(bucket_, options.rate),
      free_(options.rate == 0),
      torn_(options.again) {}

int Relay::Open() {
  const int error = file_.Reopen();
  if (error == 0 && options_.again) {
    file_.EndTornLine();
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    char line[kMaxNote];
    file_.Write(Note(now, "crisp-log was lost and started again: lines may be missing here", line));
  }
  return error;
}

void Relay::SkipTornLine() {
  std::string_view rest = WholeLines();
  if (!torn_ || rest.empty()) return;
  torn_ = false;
  const std::string_view first = TakeLine(rest);
  if (!IsLine(first)) begin_ += first.size();
}

std::string_view Relay::WholeLines() const {
  const std::string_view held = Held();
  // Nothing of conmon's is that long: it goes as it is rather than never.
  if (begin_ == 0 && end_ == kBuffer && held.find('\n') == held.npos) return held;
  return {held.data(), held.rfind('\n') + 1};
}

/// What there is, as far as it has room. False: the FIFO has ended.
bool Relay::Read() {
  if (begin_ > 0) {
    std::memmove(buffer_, buffer_ + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  const ssize_t n = read(kFifo, buffer_ + end_, kBuffer - end_);
  if (n < 0) return errno == EAGAIN || errno == EINTR;
  end_ += static_cast<std::size_t>(n);
  return n > 0;
}

/// Deals with the whole lines that are here. How long until there is more to do for them (then some
/// may be left) or for a gap; -1: nothing.
Nanoseconds Relay::Pass(Nanoseconds now) {
  SkipTornLine();
  const std::string_view lines = WholeLines();
  if (options_.block || options_.rate == 0) return PassSome(lines, now);
  if (!lines.empty()) dropper_.Pass(lines, now, file_);
  begin_ += lines.size();
  dropper_.Tick(now, file_);
  return dropper_.Wait(now);
}

Nanoseconds Relay::PassSome(std::string_view lines, Nanoseconds now) {
  std::size_t passed = 0;
  Nanoseconds wait = -1;
  for (std::string_view rest = lines; !rest.empty() && wait < 0;) {
    const std::string_view line = free_ ? rest : TakeLine(rest);
    if (free_) rest = {};
    if (free_ || bucket_.Take(line.size(), now)) {
      passed += line.size();
    } else {
      wait = bucket_.Until(line.size(), now);
    }
  }
  if (passed > 0) file_.Write({lines.data(), passed});
  begin_ += passed;
  return wait;
}

/// conmon waits for us and so cannot see the container's end; but a dead container's exit code must
/// not wait for its log. Its pid cannot belong to another one yet: conmon has not reaped it.
void Relay::WatchContainer() {
  if (container_ >= 0 || free_) return;
  const pid_t pid = ReadPid(options_.pid_file);
  if (pid <= 0) return;
  container_ = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  if (container_ < 0 && errno == ESRCH) free_ = true;
}

bool Relay::ContainerEnded() const {
  pollfd end{.fd = container_, .events = POLLIN, .revents = 0};
  return container_ >= 0 && poll(&end, 1, 0) > 0;
}

void Relay::Run() {
  while (true) {
    const Nanoseconds wait = Pass(Now());
    const bool held_up = !WholeLines().empty();
    if (held_up) WatchContainer();
    if (held_up && free_) continue;
    pollfd fds[] = {{.fd = kFifo, .events = static_cast<short>(held_up ? 0 : POLLIN), .revents = 0},
                    {.fd = kSocketFd, .events = POLLIN, .revents = 0},
                    {.fd = free_ ? -1 : container_, .events = POLLIN, .revents = 0}};
    Poll(fds, 3, wait);
    // Nobody writes any more, or the container has ended.
    if (fds[2].revents != 0 || (held_up && fds[0].revents != 0)) free_ = true;
    if (fds[1].revents != 0) Serve();
    if (!held_up && fds[0].revents != 0 && !Read()) return End();
  }
}

void Relay::End() {
  free_ = true;
  Pass(Now());
  // conmon was killed in the middle of a line; there is room for its end, or it went already.
  if (!Held().empty() && end_ < kBuffer) {
    buffer_[end_++] = '\n';
    Pass(Now());
  }
  dropper_.End(file_);
  file_.End();
}

void Relay::Drain() {
  // Whoever asks has seen the container's end: nothing is held back any more.
  free_ = true;
  // Bounded: others may hold the pipe open, and write on.
  for (int i = 0; i < 64; ++i) {
    Pass(Now());
    const std::size_t before = end_ - begin_;
    if (!WholeLines().empty() || !Read() || end_ - begin_ == before) break;
  }
  dropper_.End(file_);
  file_.End();
}

/// One request. The other side sends it at once, being rund; another one is not waited for.
void Relay::Serve() {
  const int peer = accept4(kSocketFd, nullptr, nullptr, SOCK_CLOEXEC);
  if (peer < 0) return;
  const timeval patience{.tv_sec = 0, .tv_usec = 100'000};
  setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  char request[16] = {};
  const ssize_t size = recv(peer, request, sizeof request - 1, 0);
  int error = size > 0 ? 0 : EPROTO;
  if (std::strcmp(request, kReopen) == 0) {
    error = file_.Reopen();
  } else if (std::strcmp(request, kDrain) == 0) {
    Drain();
  } else if (std::strcmp(request, kCounts) != 0) {
    error = EPROTO;
  }
  char answer[128];
  const Count dropped = dropper_.dropped();
  const Count lost = file_.lost();
  const int length = error != 0 ? std::snprintf(answer, sizeof answer, "error %d", error)
                                : std::snprintf(answer, sizeof answer, "ok %llu %llu %llu %llu %d",
                                                static_cast<unsigned long long>(dropped.lines),
                                                static_cast<unsigned long long>(dropped.bytes),
                                                static_cast<unsigned long long>(lost.lines),
                                                static_cast<unsigned long long>(lost.bytes),
                                                static_cast<int>(getpid()));
  send(peer, answer, static_cast<std::size_t>(length), MSG_NOSIGNAL);
  close(peer);
}

}  // namespace crisp::rund::logger
