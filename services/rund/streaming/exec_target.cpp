#include "services/rund/streaming/exec_target.h"

#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <string_view>
#include <utility>

#include "libs/log/log.h"

namespace crisp::rund::streaming {
namespace {

// How long output that others still hold open is read after the command has ended.
constexpr std::chrono::milliseconds kDrain{100};
constexpr std::size_t kMaxReport = 64;

/// The one descriptor that a runtime sends over its console socket; invalid without one.
os::UniqueFd ReceiveFd(int socket) {
  std::array<char, 4096> name{};
  iovec data{name.data(), name.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) <= 0) return {};
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) {
    return {};
  }
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return os::UniqueFd(fd);
}

}  // namespace

std::shared_ptr<ExecTarget> ExecTarget::Make(loop::Loop& loop, work::Pool& pool, Leaving& leaving,
                                             ExecProcess process) {
  return std::shared_ptr<ExecTarget>(new ExecTarget(loop, pool, leaving, std::move(process)));
}

ExecTarget::ExecTarget(loop::Loop& loop, work::Pool& pool, Leaving& leaving, ExecProcess process)
    : loop_(loop),
      pool_(pool),
      leaving_(leaving),
      process_(std::make_shared<ExecProcess>(std::move(process))) {}

ExecTarget::~ExecTarget() {
  // Its files are removed where that may block; here when the pool is closed already.
  static_cast<void>(pool_
                        .Submit(work::Lane::kMutate,
                                CallContext::Background(std::chrono::seconds(60), "exec"),
                                [process = std::move(process_)] {})
                        .ok());
}

DescriptorPtr ExecTarget::Take(os::UniqueFd fd) {
  return fd.valid() ? std::make_shared<Descriptor>(loop_, std::move(fd)) : nullptr;
}

void ExecTarget::Begin(RemoteStreams streams, std::function<void(const Outcome&)> on_end) {
  streams_ = std::move(streams);
  on_end_ = std::move(on_end);
  report_ = Take(std::move(process_->report));
  AwaitReport();
  if (process_->console) {
    console_ = Take(std::move(process_->console));
    console_->WhenReadable([weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->OnConsole();
    });
    return;
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
  err_ = Take(std::move(process_->err));
  out_pump_ = Pump(out_, streams_.out);
  err_pump_ = Pump(err_, streams_.err);
}

std::shared_ptr<OutPump> ExecTarget::Pump(const DescriptorPtr& from, const StreamPtr& to) {
  if (!from) return nullptr;
  auto pump = std::make_shared<OutPump>(loop_, from, to, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->CheckEnd();
  });
  if (to) {
    const auto on_room = [weak = std::weak_ptr(pump)] {
      if (const auto self = weak.lock()) self->OnRoom();
    };
    to->Listen({.on_data = [to = to.get()](std::string_view bytes) { to->Took(bytes.size()); },
                .on_end = nullptr,
                .on_room = on_room,
                .on_gone = on_room});
  }
  pump->Begin();
  return pump;
}

void ExecTarget::OnConsole() {
  if (over_) return;
  const os::UniqueFd connection(accept4(console_->fd(), nullptr, nullptr, SOCK_CLOEXEC));
  // The runtime has connected and sends at once.
  os::UniqueFd terminal = connection ? ReceiveFd(connection.get()) : os::UniqueFd();
  console_.reset();
  if (!terminal) return;  // the runtime's failure is reported
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
  // A terminal has no half to close; what a person would press is understood by whoever reads
  // lines.
  termios settings{};
  if (tcgetattr(terminal_->fd(), &settings) != 0 || (settings.c_lflag & ICANON) == 0) return;
  const char end = static_cast<char>(settings.c_cc[VEOF]);
  static_cast<void>(write(terminal_->fd(), &end, 1) == 1);
}

void ExecTarget::AwaitReport() {
  report_->WhenReadable([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->OnReport();
  });
}

void ExecTarget::OnReport() {
  std::array<char, kMaxReport> line{};
  const ssize_t size = read(report_->fd(), line.data(), line.size());
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return AwaitReport();
  constexpr std::string_view kExit = "exit ";
  const std::string_view text(line.data(), size > 0 ? static_cast<std::size_t>(size) : 0);
  report_.reset();
  Outcome outcome;
  if (!text.starts_with(kExit) ||
      std::from_chars(text.data() + kExit.size(), text.data() + text.size(), outcome.exit_code)
              .ec != std::errc()) {
    outcome.status = text.empty() ? Internal("the exec's helper was killed")
                                  : Unknown("{}", ExecFailure(process_->scratch, ""));
  }
  outcome_ = std::move(outcome);
  for (const auto& pump : {out_pump_, err_pump_}) {
    if (pump) pump->ExpectEnd(kDrain);
  }
  CheckEnd();
}

void ExecTarget::CheckEnd() {
  if (over_ || !outcome_) return;
  // A terminal that was sent but not yet accepted has the last words.
  if (console_ && outcome_->status.ok()) return;
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
  for (DescriptorPtr* held : {&in_, &out_, &err_, &console_, &terminal_, &report_}) {
    if (*held) (*held)->Close();
    held->reset();
  }
  for (const StreamPtr& stream : {streams_.in, streams_.out, streams_.err}) {
    if (stream) stream->Listen({});
  }
  streams_ = {};
  process_->in.reset();
  process_->out.reset();
  process_->err.reset();
  process_->console.reset();
  process_->report.reset();
  // The helper stays as long as the command does, and so do we, to reap it.
  auto watch = loop_.WatchReadable(process_->helper.pidfd().fd(), [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->OnHelperGone();
  });
  if (!watch.ok()) {
    log::Error("an exec's helper cannot be watched", {{"error", watch.status()}});
    return;
  }
  helper_watch_ = *std::move(watch);
  leaving_.insert(shared_from_this());
}

void ExecTarget::OnHelperGone() {
  static_cast<void>(process_->helper.Reap().ok());
  helper_watch_.Cancel();
  leaving_.erase(shared_from_this());
}

}  // namespace crisp::rund::streaming
