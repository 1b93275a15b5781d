#include "services/rund/streaming/exec_target.h"

#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <string_view>
#include <utility>

#include "libs/log/log.h"
#include "libs/os/files.h"
#include "services/rund/runtime/kill_tree.h"

namespace crisp::rund::streaming {
namespace {

// How long output that others still hold open is read after the command has ended.
constexpr std::chrono::milliseconds kDrain{100};
constexpr std::size_t kMaxReport = 64;
// Of what a runtime says when it fails.
constexpr std::size_t kMaxWords = 4096;
// For work of the pool's.
constexpr std::chrono::seconds kPoolTime{60};
constexpr std::chrono::seconds kWatchAgain{1};

/// The one descriptor that a runtime sends over its console socket; invalid without one. Nothing:
/// it has not come so far.
std::optional<os::UniqueFd> ReceiveFd(int socket) {
  std::array<char, 4096> name{};
  iovec data{name.data(), name.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t size = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return std::nullopt;
  const cmsghdr* header = size > 0 ? CMSG_FIRSTHDR(&message) : nullptr;
  if (header == nullptr || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) {
    return os::UniqueFd();
  }
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return os::UniqueFd(fd);
}

/// What tells whoever reads lines from a terminal that no more come. A terminal has no half to
/// close, so it is what a person would press: once, or twice behind a line that is not finished,
/// which the first one only hands over. Empty when nobody reads lines.
std::string EndOfInput(int terminal, char last_byte) {
  termios settings{};
  if (tcgetattr(terminal, &settings) != 0 || (settings.c_lflag & ICANON) == 0) return "";
  const char end = static_cast<char>(settings.c_cc[VEOF]);
  if (end == _POSIX_VDISABLE) return "";
  const bool finished = last_byte == 0 || last_byte == '\n' || last_byte == end ||
                        last_byte == static_cast<char>(settings.c_cc[VEOL]) ||
                        (last_byte == '\r' && (settings.c_iflag & ICRNL) != 0);
  return std::string(finished ? 1 : 2, end);
}

/// All that the runtime's call has started: crisp-exec is the reaper of every one of them.
void KillStart(const ExecProcess& process) {
  // Held still, its number is nobody else's.
  if (!process.helper.pidfd().Signal(SIGSTOP).ok()) return;
  KillTree({.leader = process.helper.pid(), .helper = {process.helper.pid(), 0}, .mark = {}});
}

}  // namespace

std::shared_ptr<ExecTarget> ExecTarget::Make(Share& share, ExecProcess process) {
  std::shared_ptr<ExecTarget> made(new ExecTarget(share, std::move(process)));
  // Whether the client stays or not: a runtime that hangs must not be there for ever.
  made->start_ = share.loop.After(share.start_timeout, [weak = std::weak_ptr(made)] {
    if (const auto self = weak.lock()) self->OnStartTimeout();
  });
  return made;
}

ExecTarget::ExecTarget(Share& share, ExecProcess process)
    : share_(share), process_(std::make_shared<ExecProcess>(std::move(process))) {}

ExecTarget::~ExecTarget() {
  // Its files are removed where that may block. When nobody can, the next start does it.
  const std::string files = process_->scratch.dir.Release();
  static_cast<void>(
      share_.pool
          .Submit(work::Lane::kStream, CallContext::Background(kPoolTime, "exec"),
                  [files] { log::IfError("remove an exec's files", os::RemoveTree(files)); })
          .ok());
}

DescriptorPtr ExecTarget::Take(os::UniqueFd fd) {
  return fd.valid() ? std::make_shared<Descriptor>(share_.loop, std::move(fd)) : nullptr;
}

void ExecTarget::Begin(RemoteStreams streams, std::function<void(const Outcome&)> on_end) {
  streams_ = std::move(streams);
  on_end_ = std::move(on_end);
  report_ = Take(std::move(process_->report));
  AwaitReport();
  if (process_->console) {
    console_ = Take(std::move(process_->console));
    return AwaitConsole();
  }
  if (streams_.in && process_->in) {
    in_ = Take(std::move(process_->in));
    in_pump_ = std::make_shared<InPump>(streams_.in, in_, [weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->OnStdinEnd();
    });
    // Reset by the client: the command sees the end as well.
    in_pump_->Begin([weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->in_->Close();
    });
  }
  out_ = Take(std::move(process_->out));
  out_pump_ = Pump(out_, streams_.out);
  // What is there before OnStarted() is the runtime's, and part of the outcome.
  err_ = Take(std::move(process_->err));
  if (streams_.err) streams_.err->Discard();
}

std::shared_ptr<OutPump> ExecTarget::Pump(const DescriptorPtr& from, const StreamPtr& to) {
  if (!from) return nullptr;
  auto pump = std::make_shared<OutPump>(share_.pumps, from, to, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->CheckEnd();
  });
  if (to) {
    const auto on_room = [weak = std::weak_ptr(pump)] {
      if (const auto self = weak.lock()) self->OnRoom();
    };
    to->Discard(on_room);
  }
  pump->Begin();
  return pump;
}

void ExecTarget::AwaitConsole() {
  console_->WhenReadable([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->OnConsole();
  });
}

void ExecTarget::OnConsole() {
  if (over_ || !console_) return;
  os::UniqueFd connection(accept4(console_->fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  // A runtime that is gone has connected before, or never.
  if (!connection && (errno == EAGAIN || errno == EINTR) && !outcome_) return AwaitConsole();
  console_.reset();
  if (!connection) return CheckEnd();
  sender_ = Take(std::move(connection));
  OnTerminal();
}

void ExecTarget::AwaitTerminal() {
  sender_->WhenReadable([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->OnTerminal();
  });
}

void ExecTarget::OnTerminal() {
  if (over_ || !sender_) return;
  // The runtime connects early and sends when it has a terminal.
  std::optional<os::UniqueFd> terminal = ReceiveFd(sender_->fd());
  if (!terminal) return AwaitTerminal();
  sender_.reset();
  if (!*terminal) return CheckEnd();  // the runtime's failure is reported
  BeginTerminal(*std::move(terminal));
}

void ExecTarget::BeginTerminal(os::UniqueFd terminal) {
  terminal_ = Take(std::move(terminal));
  ApplySize();
  if (streams_.in) {
    in_pump_ = std::make_shared<InPump>(streams_.in, terminal_, [weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->OnStdinEnd();
    });
    in_pump_->Begin(nullptr);
  }
  out_pump_ = Pump(terminal_, streams_.out);
  if (outcome_ && out_pump_) out_pump_->ExpectEnd(kDrain);
}

void ExecTarget::OnStdinEnd() {
  if (over_) return;
  if (!terminal_) return in_->Close();
  if (in_pump_->broken()) return;
  in_pump_->Append(EndOfInput(terminal_->fd(), in_pump_->last_byte()));
}

void ExecTarget::AwaitReport() {
  report_->WhenReadable([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->OnReport();
  });
}

void ExecTarget::OnReport() {
  std::array<char, kMaxReport> lines{};
  const ssize_t size = read(report_->fd(), lines.data(), lines.size());
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return AwaitReport();
  std::string_view text(lines.data(), size > 0 ? static_cast<std::size_t>(size) : 0);
  // Each line is written at once.
  if (TakeStarted(text)) {
    OnStarted();
    if (text.empty()) return AwaitReport();
  }
  report_.reset();
  if (const auto code = ReportedExit(text)) {
    OnStarted();
    return OnOutcome({Status::Ok(), *code});
  }
  if (text.empty()) return OnOutcome({Internal("the exec's helper was killed"), 0});
  OnFailedStart();
}

void ExecTarget::OnStarted() {
  if (over_ || std::exchange(started_, true)) return;
  err_pump_ = Pump(err_, streams_.err);
}

void ExecTarget::OnFailedStart() {
  std::array<char, kMaxWords> said{};
  const ssize_t size = err_ ? read(err_->fd(), said.data(), said.size()) : 0;
  const std::string words(said.data(), size > 0 ? static_cast<std::size_t>(size) : 0);
  const auto cc = CallContext::Background(kPoolTime, "exec");
  Status submitted = share_.pool.Submit(
      work::Lane::kStream, cc,
      [self = shared_from_this(), words]() mutable {
        const Status why = Unknown("{}", ExecFailure(self->process_->scratch, words));
        loop::Loop& loop = self->share_.loop;
        loop.Post([self = std::move(self), why] { self->OnOutcome({why, 0}); });
      },
      [self = shared_from_this()](const Status& why) mutable {
        loop::Loop& loop = self->share_.loop;
        loop.Post([self = std::move(self), why] { self->OnOutcome({why, 0}); });
      });
  if (!submitted.ok()) OnOutcome({submitted, 0});
}

void ExecTarget::OnStartTimeout() {
  start_ = {};
  if (outcome_) return;
  // Nobody is told when the pool is closing: rund is ending.
  static_cast<void>(
      share_.pool
          .Submit(work::Lane::kStream, CallContext::Background(kPoolTime, "exec"),
                  [self = shared_from_this()]() mutable {
                    loop::Loop& loop = self->share_.loop;
                    if (!CommandPid(self->process_->scratch)) {
                      // Its report would only say that it was killed.
                      loop.Post([self] { self->report_.reset(); });
                      KillStart(*self->process_);
                      const Status why = DeadlineExceeded("the runtime did not start the command");
                      loop.Post([self, why] { self->OnOutcome({why, 0}); });
                    }
                    loop.Post([self = std::move(self)] {});  // the last one goes on the loop
                  })
          .ok());
}

void ExecTarget::OnOutcome(Outcome outcome) {
  if (over_ || outcome_) return;
  start_ = {};
  outcome_ = std::move(outcome);
  for (const auto& pump : {out_pump_, err_pump_}) {
    if (pump) pump->ExpectEnd(kDrain);
  }
  if (console_ && outcome_->status.ok()) return OnConsole();
  CheckEnd();
}

void ExecTarget::CheckEnd() {
  if (over_ || !outcome_) return;
  // A terminal that was sent but has not come so far has the last words.
  if ((console_ || sender_) && outcome_->status.ok()) return;
  for (const auto& pump : {out_pump_, err_pump_}) {
    if (pump && !pump->ended()) return;
  }
  const auto done = std::exchange(on_end_, nullptr);
  const Outcome outcome = *outcome_;
  Close();
  if (done) done(outcome);
}

void ExecTarget::Resize(TerminalSize size) {
  size_ = size;
  ApplySize();
}

void ExecTarget::ApplySize() {
  if (!size_ || !terminal_) return;
  const winsize size{size_->height, size_->width, 0, 0};
  // Ended meanwhile: nobody looks any more.
  static_cast<void>(ioctl(terminal_->fd(), TIOCSWINSZ, &size));
}

void ExecTarget::Close() {
  if (std::exchange(over_, true)) return;
  on_end_ = nullptr;
  in_pump_.reset();
  out_pump_.reset();
  err_pump_.reset();
  // Who calls us may be one of the pumps, which hold them too.
  for (DescriptorPtr* held : {&in_, &out_, &err_, &console_, &sender_, &terminal_, &report_}) {
    if (*held) (*held)->Close();
    held->reset();
  }
  for (const StreamPtr& stream : {streams_.in, streams_.out, streams_.err}) {
    if (stream) stream->Discard();
  }
  streams_ = {};
  process_->in.reset();
  process_->out.reset();
  process_->err.reset();
  process_->console.reset();
  process_->report.reset();
  // The helper stays as long as the command does, and so do we, to reap it.
  share_.leaving.insert(shared_from_this());
  share_.leaving_count = share_.leaving.size();
  WatchHelper();
}

void ExecTarget::WatchHelper() {
  auto watch = share_.loop.WatchReadable(process_->helper.pidfd().fd(), [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->OnHelperGone();
  });
  if (watch.ok()) {
    helper_watch_ = *std::move(watch);
    return;
  }
  // No descriptors left, for the moment.
  log::Warn("an exec's helper cannot be watched", {{"error", watch.status()}});
  again_ = share_.loop.After(kWatchAgain, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->WatchHelper();
  });
}

void ExecTarget::OnHelperGone() {
  static_cast<void>(process_->helper.Reap().ok());
  helper_watch_.Cancel();
  start_ = {};
  share_.leaving.erase(shared_from_this());
  share_.leaving_count = share_.leaving.size();
}

}  // namespace crisp::rund::streaming
