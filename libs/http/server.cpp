#include "libs/http/server.h"

#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <cerrno>
#include <charconv>
#include <future>
#include <optional>
#include <set>

#include "libs/base/try.h"
#include "libs/loop/loop.h"

namespace crisp::http {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
using boost::system::error_code;
using StreamSocket = asio::generic::stream_protocol::socket;

constexpr std::chrono::seconds kIdle{30};
constexpr std::size_t kMaxConnections = 64;
constexpr std::uint32_t kMaxHeader = 8 << 10;
constexpr std::uint64_t kMaxAnswer = std::uint64_t{16} << 20U;

Status FromError(const error_code& error, std::string_view what) {
  return Status::FromErrno(error.value(), what);
}

class Session;

/// The sessions of a server; touched on the loop only.
struct Sessions {
  explicit Sessions(asio::io_context& on) : io(on) {}
  asio::io_context& io;
  Handler handler;
  std::set<std::shared_ptr<Session>> open;
  bool closed = false;
};

/// One connection. All of it runs on the loop; Sessions holds it while it is open.
class Session final : public std::enable_shared_from_this<Session> {
 public:
  Session(StreamSocket socket, std::shared_ptr<Sessions> sessions)
      : socket_(std::move(socket)),
        timer_(socket_.get_executor()),
        sessions_(std::move(sessions)) {}

  void Read() {
    if (sessions_->closed) return;
    parser_.emplace();
    parser_->header_limit(kMaxHeader);
    parser_->body_limit(0);
    Arm();
    beast::http::async_read(
        socket_, buffer_, *parser_,
        [self = shared_from_this()](const error_code& error, std::size_t) { self->OnRead(error); });
  }

  void Close() {
    error_code ignored;
    timer_.cancel();
    socket_.close(ignored);
    sessions_->open.erase(shared_from_this());
  }

 private:
  using Answer = beast::http::response<beast::http::string_body>;

  void Arm() {
    timer_.expires_after(kIdle);
    timer_.async_wait([weak = weak_from_this()](const error_code& error) {
      if (error) return;
      if (const auto self = weak.lock()) self->Close();
    });
  }

  void OnRead(const error_code& error) {
    if (error || sessions_->closed) return Close();
    const auto& message = parser_->get();
    keep_alive_ = message.keep_alive();
    head_ = message.method() == beast::http::verb::head;
    version_ = message.version();
    if (!head_ && message.method() != beast::http::verb::get) {
      return Write({.status = 405, .body = "GET and HEAD only\n"});
    }
    timer_.cancel();  // the handler takes the time that it takes
    const ServerRequest request{std::string(message.method_string()),
                                std::string(message.target())};
    sessions_->handler(request,
                       [weak = weak_from_this(), &io = sessions_->io](ServerResponse response) {
                         asio::post(io, [weak, response = std::move(response)]() mutable {
                           if (const auto self = weak.lock()) self->Write(std::move(response));
                         });
                       });
  }

  void Write(ServerResponse response) {
    if (sessions_->closed || !socket_.is_open()) return;
    answer_.emplace();
    answer_->version(version_);
    answer_->result(static_cast<unsigned>(response.status));
    answer_->set(beast::http::field::content_type, response.content_type);
    answer_->keep_alive(keep_alive_);
    answer_->body() = std::move(response.body);
    answer_->prepare_payload();
    if (head_) answer_->body().clear();  // the length stays
    Arm();
    beast::http::async_write(socket_, *answer_,
                             [self = shared_from_this()](const error_code& error, std::size_t) {
                               self->OnWritten(error);
                             });
  }

  void OnWritten(const error_code& error) {
    if (error || !keep_alive_) return Close();
    answer_.reset();
    Read();
  }

  StreamSocket socket_;
  asio::steady_timer timer_;
  std::shared_ptr<Sessions> sessions_;
  beast::flat_buffer buffer_;
  std::optional<beast::http::request_parser<beast::http::empty_body>> parser_;
  std::optional<Answer> answer_;
  bool keep_alive_ = false;
  bool head_ = false;
  unsigned version_ = 11;
};

/// Accepts on either kind of socket.
template <typename Acceptor>
class Listener final : public std::enable_shared_from_this<Listener<Acceptor>> {
 public:
  Listener(Acceptor acceptor, std::shared_ptr<Sessions> sessions)
      : acceptor_(std::move(acceptor)), sessions_(std::move(sessions)) {}

  void Accept() {
    acceptor_.async_accept([self = this->shared_from_this()](const error_code& error, auto socket) {
      self->OnAccept(error, StreamSocket(std::move(socket)));
    });
  }
  void Close() {
    error_code ignored;
    acceptor_.close(ignored);
  }

 private:
  void OnAccept(const error_code& error, StreamSocket socket) {
    if (sessions_->closed || error == asio::error::operation_aborted) return;
    if (!error && sessions_->open.size() < kMaxConnections) {
      auto session = std::make_shared<Session>(std::move(socket), sessions_);
      sessions_->open.insert(session);
      session->Read();
    }
    Accept();
  }

  Acceptor acceptor_;
  std::shared_ptr<Sessions> sessions_;
};

}  // namespace

struct Server::Impl {
  explicit Impl(loop::Loop& on) : loop(on), sessions(std::make_shared<Sessions>(on.io())) {}
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  /// Where the loop ended before it could close them, sessions and Sessions hold each other.
  ~Impl() { sessions->open.clear(); }
  loop::Loop& loop;
  std::shared_ptr<Sessions> sessions;
  std::function<void()> close_listener;
  std::string socket_path;
  std::uint16_t port = 0;

  template <typename Acceptor>
  void Listen(Acceptor acceptor) {
    auto listener = std::make_shared<Listener<Acceptor>>(std::move(acceptor), sessions);
    close_listener = [listener] { listener->Close(); };
    loop.Post([listener] { listener->Accept(); });
  }
};

Server::Server(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

Server::~Server() {
  if (!impl_->socket_path.empty()) unlink(impl_->socket_path.c_str());
  impl_->loop.Post([impl = impl_] {
    impl->sessions->closed = true;
    impl->close_listener();
    for (const auto& session : std::set(impl->sessions->open)) session->Close();
  });
}

std::uint16_t Server::port() const { return impl_->port; }

Result<std::unique_ptr<Server>> Server::ListenUnix(loop::Loop& loop, const std::string& path,
                                                   mode_t mode, Handler handler) {
  using Protocol = asio::local::stream_protocol;
  if (path.size() > 107) return InvalidArgument("'{}' is too long for a unix socket", path);
  const Protocol::endpoint endpoint(path);
  error_code error;

  Protocol::socket probe(loop.io());
  probe.connect(endpoint, error);
  if (!error) return FailedPrecondition("another server listens on {}", path);
  unlink(path.c_str());

  Protocol::acceptor acceptor(loop.io());
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.bind(endpoint, error);
  // Nobody can connect before listen, so that no umask is needed: that is the whole process's.
  if (!error && chmod(path.c_str(), mode) != 0) return Status::Errno(errno, "chmod {}", path);
  if (!error) acceptor.listen(16, error);
  if (error) return FromError(error, fmt::format("listen on {}", path));

  auto impl = std::make_shared<Impl>(loop);
  impl->sessions->handler = std::move(handler);
  impl->socket_path = path;
  impl->Listen(std::move(acceptor));
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

Result<std::unique_ptr<Server>> Server::ListenTcp(loop::Loop& loop, const std::string& address,
                                                  Handler handler) {
  using Protocol = asio::ip::tcp;
  const std::size_t colon = address.rfind(':');
  std::uint16_t port = 0;
  const std::string digits = colon == address.npos ? "" : address.substr(colon + 1);
  const auto [end, bad] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (digits.empty() || bad != std::errc() || end != digits.data() + digits.size()) {
    return InvalidArgument("'{}' is not host:port", address);
  }
  std::string host = address.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  if (host == "localhost") host = "127.0.0.1";
  error_code error;
  const asio::ip::address ip = asio::ip::make_address(host, error);
  if (error) return InvalidArgument("'{}' is no IP address", host);

  const Protocol::endpoint endpoint(ip, port);
  Protocol::acceptor acceptor(loop.io());
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(Protocol::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(64, error);
  if (error) return FromError(error, fmt::format("listen on {}", address));

  auto impl = std::make_shared<Impl>(loop);
  impl->sessions->handler = std::move(handler);
  impl->port = acceptor.local_endpoint(error).port();
  impl->Listen(std::move(acceptor));
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

namespace {

/// One GET over a unix socket; on the loop, held by its own handlers.
class Getter final : public std::enable_shared_from_this<Getter> {
 public:
  Getter(asio::io_context& io, std::string path, const std::string& target,
         std::function<void(Result<ServerResponse>)> done)
      : path_(std::move(path)), socket_(io), timer_(io), done_(std::move(done)) {
    request_.version(11);
    request_.method(beast::http::verb::get);
    request_.target(target);
    request_.set(beast::http::field::host, "localhost");
    request_.keep_alive(false);
    parser_.body_limit(kMaxAnswer);
  }

  void Start(std::chrono::nanoseconds timeout) {
    timer_.expires_after(timeout);
    timer_.async_wait([self = shared_from_this()](const error_code& error) {
      if (!error) self->Done(DeadlineExceeded("{} does not answer", self->path_));
    });
    if (path_.size() > 107) return Done(InvalidArgument("'{}' is no socket path", path_));
    socket_.async_connect(
        asio::local::stream_protocol::endpoint(path_),
        [self = shared_from_this()](const error_code& error) { self->OnConnected(error); });
  }

 private:
  void OnConnected(const error_code& error) {
    if (error) return Away(error);
    beast::http::async_write(socket_, request_,
                             [self = shared_from_this()](const error_code& failed, std::size_t) {
                               self->OnWritten(failed);
                             });
  }
  void OnWritten(const error_code& error) {
    if (error) return Away(error);
    beast::http::async_read(socket_, buffer_, parser_,
                            [self = shared_from_this()](const error_code& failed, std::size_t) {
                              self->OnRead(failed);
                            });
  }
  void OnRead(const error_code& error) {
    if (error) return Away(error);
    auto message = parser_.release();
    Done(ServerResponse{static_cast<int>(message.result_int()),
                        std::string(message[beast::http::field::content_type]),
                        std::move(message.body())});
  }
  void Away(const error_code& error) { Done(Unavailable("{}: {}", path_, error.message())); }
  void Done(Result<ServerResponse> outcome) {
    error_code ignored;
    timer_.cancel();
    socket_.close(ignored);
    if (const auto done = std::exchange(done_, nullptr)) done(std::move(outcome));
  }

  const std::string path_;
  asio::local::stream_protocol::socket socket_;
  asio::steady_timer timer_;
  beast::http::request<beast::http::empty_body> request_;
  beast::flat_buffer buffer_;
  beast::http::response_parser<beast::http::string_body> parser_;
  std::function<void(Result<ServerResponse>)> done_;
};

}  // namespace

void GetUnix(loop::Loop& loop, const std::string& socket_path, const std::string& target,
             std::chrono::nanoseconds timeout, std::function<void(Result<ServerResponse>)> done) {
  auto getter = std::make_shared<Getter>(loop.io(), socket_path, target, std::move(done));
  loop.Post([getter, timeout] { getter->Start(timeout); });
}

}  // namespace crisp::http
