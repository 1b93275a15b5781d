#include "libs/http/websocket.h"

#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/ssl.hpp>
#include <boost/beast/websocket.hpp>
#include <boost/beast/websocket/ssl.hpp>
#include <deque>
#include <future>
#include <utility>

#include "libs/base/try.h"
#include "libs/http/client.h"
#include "libs/loop/loop.h"

namespace crisp::http {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace websocket = beast::websocket;
using boost::system::error_code;
using Tcp = asio::ip::tcp;
using TlsStream = asio::ssl::stream<Tcp::socket>;

constexpr std::chrono::seconds kCloseTime{5};

Tcp::socket& Lowest(Tcp::socket& socket) { return socket; }
Tcp::socket& Lowest(TlsStream& stream) { return stream.next_layer(); }

Status FromError(const error_code& error) {
  if (error == asio::error::eof || error == websocket::error::closed ||
      error == asio::ssl::error::stream_truncated) {
    return Status::Ok();
  }
  return Unavailable("the connection broke: {}", error.message());
}

template <typename Stream>
class Socket final : public WebSocket, public std::enable_shared_from_this<Socket<Stream>> {
 public:
  Socket(Stream stream, std::shared_ptr<asio::ssl::context> tls)
      : tls_(std::move(tls)), stream_(std::move(stream)), timer_(stream_.get_executor()) {}

  /// On the loop; `done` once.
  void Shake(const Url& url, const std::vector<std::string>& protocols,
             std::function<void(Status)> done) {
    done_ = std::move(done);
    std::string list;
    for (const std::string& name : protocols) list += (list.empty() ? "" : ", ") + name;
    if (!list.empty()) {
      stream_.set_option(
          websocket::stream_base::decorator([list](websocket::request_type& request) {
            request.set(beast::http::field::sec_websocket_protocol, list);
          }));
    }
    stream_.auto_fragment(false);
    stream_.read_message_max(0);
    if constexpr (std::is_same_v<Stream, TlsStream>) {
      stream_.next_layer().async_handshake(
          asio::ssl::stream_base::client,
          [self = this->shared_from_this(), url](const error_code& error) {
            if (error) return self->Done(Unavailable("TLS: {}", error.message()));
            self->Ask(url);
          });
    } else {
      Ask(url);
    }
  }

  const std::string& protocol() const override { return protocol_; }

  void Begin(Handlers handlers) override {
    Post([handlers = std::move(handlers)](Socket& self) mutable {
      self.handlers_ = std::move(handlers);
      self.Read();
    });
  }
  void Send(std::string message, bool text) override {
    Post([message = std::move(message), text](Socket& self) mutable {
      if (self.closed_ || self.closing_) return;
      self.queue_.push_back({std::move(message), text});
      self.Write();
    });
  }
  void Close() override {
    Post([](Socket& self) {
      if (std::exchange(self.closing_, true) || self.closed_) return;
      self.timer_.expires_after(kCloseTime);
      self.timer_.async_wait([weak = self.weak_from_this()](const error_code& error) {
        if (error) return;
        if (const auto late = weak.lock()) late->Closed(Status::Ok());
      });
      if (!self.writing_) self.StartClose();
    });
  }
  void Cut() {
    Post([](Socket& self) { self.Closed(Cancelled("given up")); });
  }

 private:
  struct Message {
    std::string bytes;
    bool text = false;
  };

  template <typename Fn>
  void Post(Fn fn) {
    asio::post(stream_.get_executor(),
               [self = this->shared_from_this(), fn = std::move(fn)]() mutable { fn(*self); });
  }

  void Ask(const Url& url) {
    stream_.async_handshake(
        answer_, url.HostPort(), url.target,
        [self = this->shared_from_this()](const error_code& error) {
          if (!error) {
            const auto name = self->answer_[beast::http::field::sec_websocket_protocol];
            self->protocol_ = std::string(name.data(), name.size());
            return self->Done(Status::Ok());
          }
          if (error != websocket::error::upgrade_declined) {
            return self->Done(Unavailable("no WebSocket: {}", error.message()));
          }
          std::string words = self->answer_.body();
          while (!words.empty() && words.back() == '\n') words.pop_back();
          self->Done(FailedPrecondition("the server answers {}: {}", self->answer_.result_int(),
                                        words.substr(0, 500)));
        });
  }

  void Done(const Status& status) {
    if (const auto done = std::exchange(done_, nullptr)) done(status);
  }

  void Read() {
    if (closed_) return;
    stream_.async_read_some(asio::buffer(buffer_), [self = this->shared_from_this()](
                                                       const error_code& error, std::size_t size) {
      if (error) return self->Closed(FromError(error));
      if (self->handlers_.on_piece) {
        self->handlers_.on_piece({self->buffer_.data(), size}, self->stream_.is_message_done());
      }
      self->Read();
    });
  }

  void Write() {
    if (writing_ || closed_ || queue_.empty()) return;
    writing_ = true;
    stream_.text(queue_.front().text);
    stream_.async_write(asio::buffer(queue_.front().bytes),
                        [self = this->shared_from_this()](const error_code& error, std::size_t) {
                          self->writing_ = false;
                          if (error) return self->Closed(FromError(error));
                          self->queue_.pop_front();
                          if (!self->queue_.empty()) return self->Write();
                          if (self->closing_) return self->StartClose();
                          if (self->handlers_.on_sent) self->handlers_.on_sent();
                        });
  }

  void StartClose() {
    // The read that is under way sees the server's answer.
    stream_.async_close(websocket::close_code::normal,
                        [self = this->shared_from_this()](const error_code&) {});
  }

  void Closed(const Status& why) {
    if (std::exchange(closed_, true)) return;
    timer_.cancel();
    error_code ignored;
    Lowest(stream_.next_layer()).close(ignored);
    Done(why.ok() ? Unavailable("the server closed the connection") : why);
    if (const auto call = std::exchange(handlers_, {}).on_closed) call(why);
  }

  std::shared_ptr<asio::ssl::context> tls_;
  websocket::stream<Stream> stream_;
  asio::steady_timer timer_;
  websocket::response_type answer_;
  std::string protocol_;
  std::function<void(Status)> done_;
  Handlers handlers_;
  std::deque<Message> queue_;
  std::array<char, std::size_t{64} << 10U> buffer_{};
  bool writing_ = false;
  bool closing_ = false;
  bool closed_ = false;
};

template <typename Stream>
Result<std::shared_ptr<WebSocket>> ShakeOn(const CallContext& cc, loop::Loop& loop,
                                           std::shared_ptr<Socket<Stream>> socket, const Url& url,
                                           const WebSocketOptions& options) {
  auto promise = std::make_shared<std::promise<Status>>();
  auto outcome = promise->get_future();
  loop.Post([socket, url, protocols = options.protocols, promise] {
    socket->Shake(url, protocols,
                  [promise](Status status) { promise->set_value(std::move(status)); });
  });
  const auto limit = std::min<std::chrono::nanoseconds>(cc.Remaining(), std::chrono::minutes(1));
  if (outcome.wait_for(limit) != std::future_status::ready) {
    socket->Cut();
    return DeadlineExceeded("{} does not answer", url.HostPort());
  }
  CRISP_TRY(outcome.get().While("{}", url.HostPort()));
  return std::shared_ptr<WebSocket>(std::move(socket));
}

/// The first address that answers, each for its share of the time.
Result<Tcp::socket> ConnectTcp(const CallContext& cc, loop::Loop& loop, const Url& url) {
  Status last = NotFound("{} has no address", url.host);
  for (const ResolvedAddress& address : CRISP_TRY(ResolveHost(cc, url.host, url.port))) {
    error_code error;
    const auto ip = asio::ip::make_address(address.ip, error);
    if (error) continue;
    auto socket = std::make_shared<Tcp::socket>(loop.io());
    auto promise = std::make_shared<std::promise<error_code>>();
    auto outcome = promise->get_future();
    loop.Post([socket, promise, ip, port = address.port] {
      socket->async_connect(Tcp::endpoint(ip, port), [socket, promise](const error_code& failed) {
        promise->set_value(failed);
      });
    });
    const auto limit = std::min<std::chrono::nanoseconds>(cc.Remaining(), std::chrono::seconds(15));
    if (outcome.wait_for(limit) != std::future_status::ready) {
      loop.Post([socket] {
        error_code ignored;
        socket->close(ignored);
      });
      last = DeadlineExceeded("{} does not answer", url.HostPort());
      continue;
    }
    const error_code failed = outcome.get();
    if (!failed) return std::move(*socket);
    last = Unavailable("{}: {}", url.HostPort(), failed.message());
  }
  return last;
}

}  // namespace

Result<std::shared_ptr<WebSocket>> WebSocket::Connect(const CallContext& cc, loop::Loop& loop,
                                                      const Url& url,
                                                      const WebSocketOptions& options,
                                                      os::UniqueFd connected) {
  Tcp::socket tcp(loop.io());
  if (connected) {
    error_code error;
    tcp.assign(Tcp::v4(), connected.release(), error);
    if (error) return Unavailable("{}", error.message());
  } else {
    tcp = CRISP_TRY(ConnectTcp(cc, loop, url));
  }
  error_code ignored;
  tcp.set_option(Tcp::no_delay(true), ignored);
  if (!url.tls()) {
    return ShakeOn(cc, loop, std::make_shared<Socket<Tcp::socket>>(std::move(tcp), nullptr), url,
                   options);
  }
  auto tls = std::make_shared<asio::ssl::context>(asio::ssl::context::tls_client);
  tls->set_default_verify_paths(ignored);
  TlsStream stream(std::move(tcp), *tls);
  stream.set_verify_mode(options.verify_tls ? asio::ssl::verify_peer : asio::ssl::verify_none,
                         ignored);
  if (options.verify_tls) {
    stream.set_verify_callback(asio::ssl::host_name_verification(url.host), ignored);
  }
  return ShakeOn(cc, loop, std::make_shared<Socket<TlsStream>>(std::move(stream), tls), url,
                 options);
}

}  // namespace crisp::http
