#include "services/crispctl/remote.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <condition_variable>
#include <csignal>
#include <mutex>
#include <thread>

#include "libs/base/try.h"
#include "libs/http/client.h"
#include "libs/http/websocket.h"
#include "libs/json/json.h"
#include "libs/loop/loop.h"

namespace crisp::ctl {
namespace {

enum Channel : unsigned char { kStdin, kStdout, kStderr, kError, kResize, kClose = 255 };
constexpr std::chrono::seconds kConnect{20};
constexpr std::size_t kChunk = std::size_t{32} << 10U;
constexpr std::size_t kMaxStatus = std::size_t{64} << 10U;

std::string Message(unsigned char channel, std::string_view bytes) {
  std::string message(1, static_cast<char>(channel));
  message += bytes;
  return message;
}

/// Over short writes. False when nobody reads it any more; what cannot be written for another
/// reason is dropped.
bool WriteAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) {
      pollfd watched{fd, POLLOUT, 0};
      poll(&watched, 1, -1);
      continue;
    }
    if (n <= 0) return errno != EPIPE;
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

/// The terminal passes on every key until this goes.
class RawTerminal {
 public:
  RawTerminal() {
    if (tcgetattr(STDIN_FILENO, &before_) != 0) return;
    termios raw = before_;
    cfmakeraw(&raw);
    changed_ = tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
  }
  ~RawTerminal() {
    if (changed_) tcsetattr(STDIN_FILENO, TCSADRAIN, &before_);
  }
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;

 private:
  termios before_{};
  bool changed_ = false;
};

/// What the session's threads share: the loop's, the one that reads stdin (which may be in read(2)
/// for ever), and the one that waits.
struct Session {
  std::shared_ptr<http::WebSocket> socket;
  std::mutex mutex;
  std::condition_variable changed;
  bool sent = true;  // nothing is under way to the server
  bool over = false;
  bool detached = false;
  Status broken;
  std::string status;  // of the error channel

  void SetOver(const Status& why) {
    const std::lock_guard lock(mutex);
    over = true;
    broken = why;
    changed.notify_all();
  }
  /// Before its loop goes.
  void Forget() {
    const std::lock_guard lock(mutex);
    socket.reset();
  }
  /// False when the session is over.
  bool SendWhenFree(std::string message) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [this] { return sent || over; });
    if (over) return false;
    sent = false;
    socket->Send(std::move(message));
    return true;
  }
};

/// Takes messages apart by their first byte.
class Demux {
 public:
  template <typename OnBytes>
  void Feed(std::string_view piece, bool end, const OnBytes& on_bytes) {
    if (!in_message_ && !piece.empty()) {
      in_message_ = true;
      channel_ = static_cast<unsigned char>(piece.front());
      piece.remove_prefix(1);
    }
    if (!piece.empty()) on_bytes(channel_, piece);
    if (end) in_message_ = false;
  }

 private:
  bool in_message_ = false;
  unsigned char channel_ = 0;
};

void SendSize(http::WebSocket& socket) {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return;
  socket.Send(
      Message(kResize, fmt::format(R"({{"Width":{},"Height":{}}})", size.ws_col, size.ws_row)));
}

/// On a thread of its own.
void ReadStdin(const std::shared_ptr<Session>& session, bool detach_keys) {
  std::array<char, kChunk> buffer{};
  DetachKeys keys;
  while (true) {
    const ssize_t n = read(STDIN_FILENO, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    std::string bytes(buffer.data(), static_cast<std::size_t>(n));
    const bool leave = detach_keys && keys.Filter(bytes);
    if (!bytes.empty() && !session->SendWhenFree(Message(kStdin, bytes))) return;
    if (leave) {
      {
        const std::lock_guard lock(session->mutex);
        session->detached = true;
      }
      return session->SetOver(Status::Ok());
    }
  }
  session->SendWhenFree(Message(kClose, std::string(1, static_cast<char>(kStdin))));
}

Result<std::shared_ptr<http::WebSocket>> Connect(loop::Loop& loop, const std::string& text) {
  const http::Url url = CRISP_TRY(http::Url::Parse(text));
  const http::WebSocketOptions options{
      .protocols = {"v5.channel.k8s.io", "v4.channel.k8s.io"},
      // Its address came from crisp's own socket; its certificate is for others' eyes.
      .verify_tls = !http::IsLoopbackHost(url.host)};
  return http::WebSocket::Connect(CallContext::Background(kConnect, "crispctl"), loop, url,
                                  options);
}

}  // namespace

bool DetachKeys::Filter(std::string& typed) {
  constexpr char kCtrlP = 0x10;
  constexpr char kCtrlQ = 0x11;
  std::string rest;
  for (const char key : typed) {
    if (half_ && key == kCtrlQ) {
      typed = std::move(rest);
      return true;
    }
    if (half_) rest += kCtrlP;
    half_ = key == kCtrlP;
    if (!half_) rest += key;
  }
  typed = std::move(rest);
  return false;
}

Result<int> ParseOutcome(std::string_view status_json) {
  if (status_json.empty()) return Unavailable("the session ended without an outcome");
  const auto status = json::Parse(status_json);
  if (!status.ok()) return Unknown("{}", status_json.substr(0, 1000));
  if (json::OptString(*status, "status").value_or("") == "Success") return 0;
  const auto message = json::OptString(*status, "message").value_or("it failed without a word");
  if (json::OptString(*status, "reason").value_or("") != "NonZeroExitCode") {
    return Unknown("{}", message);
  }
  const auto causes = json::OptArray(*status, "details.causes");
  for (std::size_t i = 0; causes.ok() && i < causes->size(); ++i) {
    if (json::OptString((*causes)[i], "reason").value_or("") != "ExitCode") continue;
    const std::string code = json::OptString((*causes)[i], "message").value_or("");
    int number = 0;
    if (std::from_chars(code.data(), code.data() + code.size(), number).ec == std::errc()) {
      return number;
    }
  }
  return Unknown("{}", message);
}

Result<int> RunRemote(const std::string& url, const RemoteOptions& options) {
  static_cast<void>(std::signal(SIGPIPE, SIG_IGN));
  auto session = std::make_shared<Session>();
  loop::Loop loop;
  loop.Start();
  session->socket = CRISP_TRY(Connect(loop, url));
  std::optional<RawTerminal> raw;
  loop::SignalWatch signals;
  if (options.tty) {
    if (options.stdin_open && isatty(STDIN_FILENO) != 0) raw.emplace();
    SendSize(*session->socket);
    signals = loop.OnSignals({SIGWINCH, SIGTERM, SIGHUP}, [session](int signal) {
      if (signal == SIGWINCH) return SendSize(*session->socket);
      session->SetOver(Cancelled("ended by signal {}", signal));
    });
  }
  session->socket->Begin(
      {.on_piece =
           [session, demux = std::make_shared<Demux>()](std::string_view piece, bool end) {
             demux->Feed(piece, end, [&session](unsigned char channel, std::string_view bytes) {
               const bool heard = (channel != kStdout || WriteAll(STDOUT_FILENO, bytes)) &&
                                  (channel != kStderr || WriteAll(STDERR_FILENO, bytes));
               // As SIGPIPE would have it.
               if (!heard) session->SetOver(Cancelled("nobody reads what it writes"));
               if (channel == kError && session->status.size() < kMaxStatus) {
                 session->status += bytes;
               }
             });
           },
       .on_sent =
           [session] {
             const std::lock_guard lock(session->mutex);
             session->sent = true;
             session->changed.notify_all();
           },
       .on_closed = [session](const Status& why) { session->SetOver(why); }});
  // It may be in read(2) when all is over: the program's end takes it along.
  if (options.stdin_open) {
    std::thread(ReadStdin, session, options.detach_keys && options.tty).detach();
  }
  {
    std::unique_lock lock(session->mutex);
    session->changed.wait(lock, [&session] { return session->over; });
  }
  loop.Stop();
  raw.reset();
  session->Forget();
  if (session->detached) return 0;
  if (session->status.empty() && !session->broken.ok()) return session->broken;
  return ParseOutcome(session->status);
}

Result<PortPair> ParsePorts(std::string_view text) {
  const auto number = [](std::string_view part, std::uint16_t& port) {
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), port);
    return error == std::errc() && end == part.data() + part.size();
  };
  PortPair pair;
  const std::size_t colon = text.find(':');
  const std::string_view remote = colon == text.npos ? text : text.substr(colon + 1);
  const std::string_view local = colon == text.npos ? text : text.substr(0, colon);
  if (!number(remote, pair.remote) || pair.remote == 0 ||
      (!local.empty() && !number(local, pair.local))) {
    return InvalidArgument("'{}' is no port: write 8080:80, 80 or :80", text);
  }
  return pair;
}

Status ForwardConnection(const std::string& url, int socket) {
  auto session = std::make_shared<Session>();
  loop::Loop loop;
  loop.Start();
  session->socket = CRISP_TRY(Connect(loop, url));
  // Each channel begins with two bytes of its port.
  auto skip = std::make_shared<std::array<std::size_t, 2>>(std::array<std::size_t, 2>{2, 2});
  session->socket->Begin(
      {.on_piece =
           [session, skip, socket, demux = std::make_shared<Demux>()](std::string_view piece,
                                                                      bool end) {
             demux->Feed(piece, end, [&](unsigned char channel, std::string_view bytes) {
               if (channel > 1) return;
               const std::size_t head = std::min((*skip)[channel], bytes.size());
               (*skip)[channel] -= head;
               bytes.remove_prefix(head);
               // Who has gone is seen by the reader below.
               if (channel == 0) static_cast<void>(WriteAll(socket, bytes));
               if (channel == 1 && session->status.size() < kMaxStatus) session->status += bytes;
             });
           },
       .on_sent =
           [session] {
             const std::lock_guard lock(session->mutex);
             session->sent = true;
             session->changed.notify_all();
           },
       .on_closed =
           [session, socket](const Status& why) {
             session->SetOver(why);
             shutdown(socket, SHUT_RDWR);  // wakes the reader below
           }});
  std::array<char, kChunk> buffer{};
  while (true) {
    const ssize_t n = read(socket, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    if (!session->SendWhenFree(Message(0, {buffer.data(), static_cast<std::size_t>(n)}))) break;
  }
  session->SendWhenFree(Message(kClose, std::string(1, '\0')));
  std::unique_lock lock(session->mutex);
  session->changed.wait(lock, [&session] { return session->over; });
  lock.unlock();
  loop.Stop();
  session->Forget();
  if (!session->status.empty()) return Unavailable("{}", session->status);
  return session->broken;
}

}  // namespace crisp::ctl
