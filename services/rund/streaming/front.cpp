#include "services/rund/streaming/front.h"

#include <poll.h>

#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>
#include <boost/beast/websocket.hpp>
#include <boost/beast/websocket/ssl.hpp>
#include <charconv>
#include <deque>
#include <optional>
#include <set>
#include <utility>

#include "libs/base/try.h"
#include "libs/log/log.h"
#include "services/rund/streaming/tcp.h"

namespace crisp::rund::streaming {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace websocket = beast::websocket;
using boost::system::error_code;
using Tcp = asio::ip::tcp;
using TlsStream = asio::ssl::stream<Tcp::socket>;

namespace internal {
struct Tls {
  asio::ssl::context context{asio::ssl::context::tls_server};
};
}  // namespace internal

namespace {

// Handshake and request, from a client that has all it needs.
constexpr std::chrono::seconds kRequestTime{30};
// No descriptors left, for instance.
constexpr std::chrono::milliseconds kAcceptAgain{100};
constexpr std::size_t kMaxConnections = 2000;
constexpr std::uint32_t kMaxHeader = 16 << 10;
constexpr std::size_t kReadSize = std::size_t{64} << 10U;
constexpr std::size_t kBuffersAtOnce = 16;

Tcp::socket& Lowest(Tcp::socket& socket) { return socket; }
Tcp::socket& Lowest(TlsStream& stream) { return stream.next_layer(); }
template <typename Stream>
Tcp::socket& Lowest(websocket::stream<Stream>& stream) {
  return Lowest(stream.next_layer());
}

Status FromError(const error_code& error) {
  if (error == asio::error::eof || error == websocket::error::closed ||
      error == asio::ssl::error::stream_truncated) {
    return Status::Ok();
  }
  return Unavailable("the connection broke: {}", error.message());
}

/// What bytes and messages have in common: the queue, the pauses and the ends.
template <typename Stream>
class WireBase : public Wire, public std::enable_shared_from_this<WireBase<Stream>> {
 public:
  WireBase(Stream stream, std::string early, const EndTimes& times)
      : stream_(std::move(stream)),
        times_(times),
        linger_(stream_.get_executor()),
        early_(std::move(early)) {}

  void Begin(Handlers handlers) override {
    handlers_ = std::move(handlers);
    error_code ignored;
    Lowest(stream_).set_option(Tcp::no_delay(true), ignored);
    // Not at once: the caller is not ready yet.
    asio::post(stream_.get_executor(), [self = this->shared_from_this()] {
      const std::string early = std::move(self->early_);
      if (!early.empty()) self->Deliver(early, false);
      self->Read();
    });
  }

  void Pause(bool paused) override {
    if (std::exchange(paused_, paused) && !paused) Read();
  }

  void Send(std::string bytes) override {
    if (finishing_ || closed_) return;
    queued_ += bytes.size();
    if (queued_ >= kQueueHigh) full_ = true;
    queue_.push_back(std::move(bytes));
    Write();
  }

  std::size_t queued() const override { return queued_; }

  void Finish() override {
    if (std::exchange(finishing_, true) || closed_) return;
    Linger();
    if (!writing_) End();
    Read();
  }

  void Abort(const Status& why) override {
    if (closed_) return;
    // What is under way ends with an error of its own, which is not the reason.
    if (!aborted_) aborted_ = why;
    CloseSocket();
    asio::post(stream_.get_executor(),
               [self = this->shared_from_this(), why] { self->Closed(why); });
  }

  void CheckPeer() override {
    if (closed_ || reading_) return;
    pollfd watched{Lowest(stream_).native_handle(), POLLRDHUP, 0};
    if (poll(&watched, 1, 0) > 0) Abort(Unavailable("the client has gone"));
  }

 protected:
  virtual void StartRead() = 0;
  /// One or more from the front of the queue into `sending_`.
  virtual void StartWrite() = 0;
  virtual void StartEnd() = 0;

  void OnRead(const error_code& error, std::size_t size, bool message_end) {
    reading_ = false;
    if (error) return Closed(FromError(error));
    Deliver({buffer_.data(), size}, message_end);
    Read();
  }

  void OnWritten(const error_code& error) {
    writing_ = false;
    if (error) return Closed(FromError(error));
    for (const std::string& sent : sending_) queued_ -= sent.size();
    sending_.clear();
    if (queue_.empty() && finishing_) return End();
    Write();
    if (full_ && queued_ < kQueueLow) {
      full_ = false;
      if (const auto call = handlers_.on_room; call && !closed_) call();
    }
  }

  Stream stream_;
  std::deque<std::string> queue_;
  std::vector<std::string> sending_;
  std::array<char, kReadSize> buffer_;

 private:
  void Deliver(std::string_view piece, bool message_end) {
    // What comes during the end is passed over.
    if (finishing_ || closed_ || !handlers_.on_piece) return;
    const auto call = handlers_.on_piece;
    call(piece, message_end);
  }
  void Read() {
    if (reading_ || closed_ || (paused_ && !finishing_)) return;
    reading_ = true;
    StartRead();
  }
  void Write() {
    if (writing_ || closed_ || queue_.empty()) return;
    writing_ = true;
    StartWrite();
  }
  void End() {
    ending_ = true;
    StartEnd();
  }
  /// A close would take what the peer has not: as long as it takes something, it has time.
  void Linger() {
    if (closed_) return;
    const TcpProgress now = ProgressOf(Lowest(stream_).native_handle());
    quiet_ = now == progress_ ? quiet_ + times_.step : times_.step.zero();
    progress_ = now;
    const bool taken = ending_ && now.outstanding == 0;
    if (quiet_ >= (taken ? times_.linger : times_.drain)) {
      return Abort(taken ? DeadlineExceeded("the client did not close")
                         : DeadlineExceeded("the client did not take the rest"));
    }
    linger_.expires_after(times_.step);
    linger_.async_wait([weak = this->weak_from_this()](const error_code& error) {
      if (error) return;
      if (const auto self = weak.lock()) self->Linger();
    });
  }
  void CloseSocket() {
    error_code ignored;
    Lowest(stream_).close(ignored);
  }
  void Closed(const Status& why) {
    if (std::exchange(closed_, true)) return;
    CloseSocket();
    linger_.cancel();
    if (const auto call = std::exchange(handlers_, {}).on_closed) call(aborted_.value_or(why));
  }

  const EndTimes times_;
  Handlers handlers_;
  asio::steady_timer linger_;
  TcpProgress progress_;
  std::chrono::milliseconds quiet_{0};  // since when progress_ is what it is
  std::optional<Status> aborted_;
  std::string early_;
  std::size_t queued_ = 0;
  bool paused_ = false;
  bool reading_ = false;
  bool writing_ = false;
  bool full_ = false;
  bool finishing_ = false;
  bool ending_ = false;
  bool closed_ = false;
};

/// Bytes.
template <typename Stream>
class ByteWire final : public WireBase<Stream> {
 public:
  using WireBase<Stream>::WireBase;

 private:
  std::shared_ptr<ByteWire> Self() {
    return std::static_pointer_cast<ByteWire>(this->shared_from_this());
  }
  void StartRead() override {
    this->stream_.async_read_some(asio::buffer(this->buffer_),
                                  [self = Self()](const error_code& error, std::size_t size) {
                                    self->OnRead(error, size, false);
                                  });
  }
  void StartWrite() override {
    std::vector<asio::const_buffer> buffers;
    while (!this->queue_.empty() && this->sending_.size() < kBuffersAtOnce) {
      this->sending_.push_back(std::move(this->queue_.front()));
      this->queue_.pop_front();
    }
    for (const std::string& bytes : this->sending_) buffers.push_back(asio::buffer(bytes));
    asio::async_write(
        this->stream_, buffers,
        [self = Self()](const error_code& error, std::size_t) { self->OnWritten(error); });
  }
  void StartEnd() override {
    if constexpr (std::is_same_v<Stream, TlsStream>) {
      this->stream_.async_shutdown([self = Self()](const error_code&) {
        error_code ignored;
        Lowest(self->stream_).shutdown(Tcp::socket::shutdown_send, ignored);
      });
    } else {
      error_code ignored;
      this->stream_.shutdown(Tcp::socket::shutdown_send, ignored);
    }
  }
};

/// WebSocket messages.
template <typename Stream>
class MessageWire final : public WireBase<websocket::stream<Stream>> {
 public:
  MessageWire(websocket::stream<Stream> stream, bool text, const EndTimes& times)
      : WireBase<websocket::stream<Stream>>(std::move(stream), "", times) {
    this->stream_.text(text);
    this->stream_.auto_fragment(false);
    this->stream_.read_message_max(0);  // never kept whole
  }

 private:
  std::shared_ptr<MessageWire> Self() {
    return std::static_pointer_cast<MessageWire>(this->shared_from_this());
  }
  void StartRead() override {
    this->stream_.async_read_some(asio::buffer(this->buffer_),
                                  [self = Self()](const error_code& error, std::size_t size) {
                                    self->OnRead(error, size, self->stream_.is_message_done());
                                  });
  }
  void StartWrite() override {
    this->sending_.push_back(std::move(this->queue_.front()));
    this->queue_.pop_front();
    this->stream_.async_write(
        asio::buffer(this->sending_.front()),
        [self = Self()](const error_code& error, std::size_t) { self->OnWritten(error); });
  }
  void StartEnd() override {
    // The read that is under way sees the client's answer.
    this->stream_.async_close(websocket::close_code::normal, [self = Self()](const error_code&) {});
  }
};

std::vector<std::string> SplitList(std::string_view text) {
  std::vector<std::string> items;
  while (!text.empty()) {
    const std::size_t comma = std::min(text.find(','), text.size());
    std::string_view item = text.substr(0, comma);
    while (item.starts_with(' ')) item.remove_prefix(1);
    while (item.ends_with(' ')) item.remove_suffix(1);
    if (!item.empty()) items.emplace_back(item);
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return items;
}

using HttpRequest = beast::http::request<beast::http::empty_body>;

UpgradeRequest Understand(const HttpRequest& message) {
  UpgradeRequest request;
  const std::string_view target(message.target().data(), message.target().size());
  request.path = std::string(target.substr(0, target.find('?')));
  request.websocket = websocket::is_upgrade(message);
  const bool upgrades =
      beast::http::token_list(message[beast::http::field::connection]).exists("upgrade");
  request.spdy = upgrades && beast::iequals(message[beast::http::field::upgrade], "SPDY/3.1");
  const auto* name = request.websocket ? "Sec-WebSocket-Protocol" : "X-Stream-Protocol-Version";
  const auto range = message.equal_range(name);
  for (auto it = range.first; it != range.second; ++it) {
    for (std::string& item : SplitList({it->value().data(), it->value().size()})) {
      request.protocols.push_back(std::move(item));
    }
  }
  return request;
}

}  // namespace

struct Front::State : std::enable_shared_from_this<Front::State> {
  State(loop::Loop& on, Handler calls, const EndTimes& ends)
      : times(ends),
        acceptor(on.io()),
        again(on.io()),
        handler(std::make_shared<const Handler>(std::move(calls))) {}
  void Accept();
  void AcceptAgain();
  void Serve(Tcp::socket socket);

  const EndTimes times;
  Tcp::acceptor acceptor;
  asio::steady_timer again;
  const std::shared_ptr<const Handler> handler;
  std::shared_ptr<internal::Tls> tls;
  std::set<std::shared_ptr<void>> waiting;  // connections that are still HTTP
  bool closed = false;
};

namespace {

/// A connection until it is a wire, or refused. `State` holds it by its Leave function.
template <typename Stream>
class HttpConnection final : public std::enable_shared_from_this<HttpConnection<Stream>> {
 public:
  HttpConnection(Stream stream, std::shared_ptr<internal::Tls> tls,
                 std::shared_ptr<const Front::Handler> handler, const EndTimes& times,
                 std::function<void()> leave)
      : stream_(std::move(stream)),
        tls_(std::move(tls)),
        timer_(stream_.get_executor()),
        handler_(std::move(handler)),
        times_(times),
        leave_(std::move(leave)) {}

  void Begin() {
    timer_.expires_after(kRequestTime);
    timer_.async_wait([weak = this->weak_from_this()](const error_code& error) {
      if (error) return;
      if (const auto self = weak.lock()) self->Leave(true);
    });
    if constexpr (std::is_same_v<Stream, TlsStream>) {
      stream_.async_handshake(asio::ssl::stream_base::server,
                              [self = this->shared_from_this()](const error_code& error) {
                                if (error) return self->Leave(true);
                                self->ReadRequest();
                              });
    } else {
      ReadRequest();
    }
  }

 private:
  void ReadRequest() {
    parser_.header_limit(kMaxHeader);
    beast::http::async_read_header(
        stream_, buffer_, parser_,
        [self = this->shared_from_this()](const error_code& error, std::size_t) {
          if (error) return self->Leave(true);
          self->OnRequest();
        });
  }

  void OnRequest() {
    const HttpRequest& message = parser_.get();
    using beast::http::verb;
    if (message.method() != verb::get && message.method() != verb::post) {
      return Refuse(405, "GET and POST only");
    }
    if (parser_.content_length().value_or(0) > 0 || parser_.chunked()) {
      return Refuse(400, "a request for an upgrade has no body");
    }
    UpgradeRequest request = Understand(message);
    answer_ = (*handler_)(request);
    if (answer_.status != 101) return Refuse(answer_.status, answer_.text);
    if (request.websocket) return AcceptWebSocket();
    text_ = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n";
    if (!answer_.protocol.empty()) {
      text_ += "X-Stream-Protocol-Version: " + answer_.protocol + "\r\n";
    }
    text_ += "\r\n";
    asio::async_write(stream_, asio::buffer(text_),
                      [self = this->shared_from_this()](const error_code& error, std::size_t) {
                        if (error) return self->Leave(true);
                        self->BecomeBytes();
                      });
  }

  void BecomeBytes() {
    std::string early(static_cast<const char*>(buffer_.data().data()), buffer_.size());
    Leave(false);
    answer_.on_wire(
        std::make_shared<ByteWire<Stream>>(std::move(stream_), std::move(early), times_));
  }

  void AcceptWebSocket() {
    if (buffer_.size() > 0) return Refuse(400, "bytes before the answer");
    web_.emplace(std::move(stream_));
    if (!answer_.protocol.empty()) {
      web_->set_option(websocket::stream_base::decorator(
          [protocol = answer_.protocol](websocket::response_type& response) {
            response.set(beast::http::field::sec_websocket_protocol, protocol);
          }));
    }
    web_->async_accept(parser_.get(), [self = this->shared_from_this()](const error_code& error) {
      if (error) return self->Leave(true);
      self->Leave(false);
      const bool text = self->answer_.protocol.find("base64") != std::string::npos;
      self->answer_.on_wire(
          std::make_shared<MessageWire<Stream>>(*std::move(self->web_), text, self->times_));
    });
  }

  void Refuse(int status, const std::string& text) {
    beast::http::response<beast::http::string_body> response(
        static_cast<beast::http::status>(status), 11);
    response.set(beast::http::field::content_type, "text/plain; charset=utf-8");
    response.keep_alive(false);
    response.body() = text + "\n";
    response.prepare_payload();
    refusal_ = std::move(response);
    beast::http::async_write(stream_, refusal_,
                             [self = this->shared_from_this()](const error_code&, std::size_t) {
                               error_code ignored;
                               Lowest(self->stream_).shutdown(Tcp::socket::shutdown_send, ignored);
                               self->Leave(true);
                             });
  }

  void Leave(bool close) {
    timer_.cancel();
    if (close) {
      error_code ignored;
      Lowest(web_ ? web_->next_layer() : stream_).close(ignored);
    }
    if (const auto leave = std::exchange(leave_, nullptr)) leave();
  }

  Stream stream_;
  std::shared_ptr<internal::Tls> tls_;  // for as long as the handshake needs it
  asio::steady_timer timer_;
  const std::shared_ptr<const Front::Handler> handler_;
  const EndTimes times_;
  std::function<void()> leave_;
  beast::flat_buffer buffer_;
  beast::http::request_parser<beast::http::empty_body> parser_;
  beast::http::response<beast::http::string_body> refusal_;
  UpgradeAnswer answer_;
  std::string text_;
  std::optional<websocket::stream<Stream>> web_;
};

}  // namespace

void Front::State::Accept() {
  acceptor.async_accept([self = shared_from_this()](const error_code& error, Tcp::socket socket) {
    if (self->closed || error == asio::error::operation_aborted) return;
    if (error) return self->AcceptAgain();
    if (self->waiting.size() < kMaxConnections) self->Serve(std::move(socket));
    self->Accept();
  });
}

void Front::State::AcceptAgain() {
  again.expires_after(kAcceptAgain);
  again.async_wait([weak = weak_from_this()](const error_code& error) {
    const auto self = weak.lock();
    if (!error && self && !self->closed) self->Accept();
  });
}

void Front::State::Serve(Tcp::socket socket) {
  KeepAlive(socket.native_handle());
  // The connection leaves by the name of a token, not by itself: a cycle would keep it.
  const auto token = std::make_shared<int>();
  waiting.insert(token);
  auto leave = [weak = weak_from_this(), token] {
    if (const auto self = weak.lock()) self->waiting.erase(token);
  };
  if (tls) {
    std::make_shared<HttpConnection<TlsStream>>(TlsStream(std::move(socket), tls->context), tls,
                                                handler, times, std::move(leave))
        ->Begin();
  } else {
    std::make_shared<HttpConnection<Tcp::socket>>(std::move(socket), nullptr, handler, times,
                                                  std::move(leave))
        ->Begin();
  }
}

Result<std::shared_ptr<internal::Tls>> LoadTls(const TlsFiles& files) {
  auto tls = std::make_shared<internal::Tls>();
  error_code error;
  using asio::ssl::context;
  auto options = context::default_workarounds | context::no_sslv2 | context::no_sslv3 |
                 context::no_tlsv1 | context::no_tlsv1_1;
  if (files.min_version == "1.3") options |= context::no_tlsv1_2;
  tls->context.set_options(options, error);
  if (!error) tls->context.use_certificate_chain_file(files.certificate, error);
  if (error) {
    return InvalidArgument("rund.streaming_tls_cert: {}: {}", files.certificate, error.message());
  }
  tls->context.use_private_key_file(files.key, context::pem, error);
  if (error) return InvalidArgument("rund.streaming_tls_key: {}: {}", files.key, error.message());
  return tls;
}

namespace {

Result<Tcp::endpoint> ParseAddress(const std::string& address) {
  const std::size_t colon = address.rfind(':');
  std::string host = address.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  const std::string number = colon == std::string::npos ? "" : address.substr(colon + 1);
  std::uint16_t port = 0;
  const char* end = number.data() + number.size();
  const auto parsed = std::from_chars(number.data(), end, port);
  error_code error;
  const auto ip = asio::ip::make_address(host, error);
  if (error || parsed.ec != std::errc() || parsed.ptr != end) {
    return InvalidArgument("rund.streaming_address: '{}' is not IP:port", address);
  }
  return Tcp::endpoint(ip, port);
}

}  // namespace

Status CheckAddress(const std::string& address) { return ParseAddress(address).status(); }

Result<std::unique_ptr<Front>> Front::Listen(loop::Loop& loop, const std::string& address,
                                             std::shared_ptr<internal::Tls> tls, Handler handler,
                                             const EndTimes& times) {
  const Tcp::endpoint endpoint = CRISP_TRY(ParseAddress(address));
  error_code error;
  auto state = std::make_shared<State>(loop, std::move(handler), times);
  state->tls = std::move(tls);
  state->acceptor.open(endpoint.protocol(), error);
  if (!error) state->acceptor.set_option(Tcp::acceptor::reuse_address(true), error);
  if (!error) state->acceptor.bind(endpoint, error);
  if (!error) state->acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) return Status::Errno(error.value(), "rund.streaming_address: listen on {}", address);
  const Tcp::endpoint bound = state->acceptor.local_endpoint();
  // All addresses include the loopback's, which the kubelet of this machine reaches.
  asio::ip::address shown = bound.address();
  if (shown.is_unspecified()) {
    shown = shown.is_v4() ? asio::ip::address(asio::ip::address_v4::loopback())
                          : asio::ip::address(asio::ip::address_v6::loopback());
  }
  const std::string text = shown.is_v6() ? "[" + shown.to_string() + "]" : shown.to_string();
  const std::string url =
      fmt::format("{}://{}:{}", state->tls ? "https" : "http", text, bound.port());
  loop.Post([state] { state->Accept(); });
  return std::unique_ptr<Front>(new Front(std::move(state), url));
}

Front::~Front() { Close(); }

void Front::SetTls(std::shared_ptr<internal::Tls> tls) { state_->tls = std::move(tls); }

void Front::Close() {
  state_->closed = true;
  error_code ignored;
  state_->acceptor.close(ignored);
  state_->again.cancel();
}

}  // namespace crisp::rund::streaming
