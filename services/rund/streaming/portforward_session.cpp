#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "libs/log/log.h"
#include "services/rund/streaming/pump.h"
#include "services/rund/streaming/session.h"
#include "services/rund/streaming/spdy.h"

namespace crisp::rund::streaming {
namespace {

// Of one session: what a browser opens, many times over. Over channels there are never so many.
constexpr std::size_t kMaxForwards = 1000;
constexpr std::chrono::seconds kSocketTimeout{30};
// The clients in use know no windows: what one server does not read is in the way of all that comes
// behind it. So it is put aside, and a server that takes nothing of so much is given up in the end.
constexpr spdy::Spill kSpill{.stream = std::size_t{2} << 20U,
                             .all = std::size_t{16} << 20U,
                             .stall = std::chrono::seconds(30)};
// Of a request id, or a port: more is none that a client makes.
constexpr std::size_t kMaxName = 256;

/// One TCP connection into the pod, between a data stream and a socket. Whatever happens to it
/// stays its own affair: the others of the session do not notice.
class Forward final : public std::enable_shared_from_this<Forward> {
 public:
  /// `half_close`: the protocol can tell the client that the server sends no more. Where it cannot,
  /// that is the end of both directions.
  Forward(Env& env, std::uint16_t port, StreamPtr data, StreamPtr error, bool half_close)
      : env_(env),
        port_(port),
        data_(std::move(data)),
        error_(std::move(error)),
        half_close_(half_close) {}

  /// `on_over` once. `on_refused` before it, when that is all that the client is told: nobody
  /// listens on the port, for this reason.
  void Begin(const std::string& pod, std::function<void(const std::string& why)> on_refused,
             std::function<void()> on_over) {
    on_refused_ = std::move(on_refused);
    on_over_ = std::move(on_over);
    error_->Discard();
    data_->Listen({.on_data = nullptr,  // kept until there is a socket
                   .on_end = nullptr,
                   .on_room = nullptr,
                   .on_gone = [weak = weak_from_this()] {
                     if (const auto self = weak.lock()) self->Close();
                   }});
    const auto cc = CallContext::Background(kSocketTimeout, "port-forward");
    Status submitted = env_.pool.Submit(
        work::Lane::kStream, cc,
        // The last one to hold it is the loop.
        [self = shared_from_this(), cc, pod]() mutable {
          auto sockets = std::make_shared<Result<PodSockets>>(self->env_.backend.sockets(cc, pod));
          loop::Loop& loop = self->env_.loop;
          loop.Post([self = std::move(self), sockets] { self->OnSockets(std::move(*sockets)); });
        },
        [self = shared_from_this()](const Status& why) mutable {
          loop::Loop& loop = self->env_.loop;
          loop.Post([self = std::move(self), why] { self->Fail(why.message()); });
        });
    if (!submitted.ok()) Fail(submitted.message());
  }

  /// Tells the client why it is cut off.
  void Stop(const Status& why) {
    if (over_) return;
    error_->Send(why.message());
    error_->End();
    Close();
    data_->Reset();
  }

  void Close() {
    if (std::exchange(over_, true)) return;
    in_pump_.reset();
    out_pump_.reset();
    if (socket_) socket_->Close();
    // The client may go on sending: that must not be in the way of the other connections.
    data_->Discard();
    error_->Discard();
    if (const auto done = std::exchange(on_over_, nullptr)) done();
  }

 private:
  void OnSockets(Result<PodSockets> sockets) {
    if (over_) return;
    if (!sockets.ok()) return Fail(sockets.status().message());
    v6_ = std::move(sockets->v6);
    if (!sockets->v4) return TryV6("it has no IPv4");
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port_);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    Connect(std::move(sockets->v4), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  }

  void TryV6(const std::string& why) {
    why_ = why;
    if (!v6_) return Refused(why);
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_port = htons(port_);
    address.sin6_addr = in6addr_loopback;
    Connect(std::move(v6_), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  }

  void Connect(os::UniqueFd fd, const sockaddr* address, socklen_t size) {
    const int error = connect(fd.get(), address, size) == 0 ? 0 : errno;
    // Watched only now: a socket that is not connecting looks hung up.
    socket_ = std::make_shared<Descriptor>(env_.loop, std::move(fd));
    if (error != EINPROGRESS) return OnConnected(error);
    AwaitConnected();
  }

  void AwaitConnected() {
    socket_->WhenWritable([weak = weak_from_this()] {
      const auto self = weak.lock();
      if (!self || self->over_) return;
      const int fd = self->socket_->fd();
      int error = 0;
      socklen_t length = sizeof error;
      if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
      sockaddr_storage peer{};
      socklen_t size = sizeof peer;
      // Woken for nothing: a shutdown now would end the attempt.
      if (error == 0 && getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) != 0 &&
          errno == ENOTCONN) {
        return self->AwaitConnected();
      }
      self->OnConnected(error);
    });
  }

  void OnConnected(int error) {
    if (error != 0) {
      socket_->Close();
      const std::string words = std::strerror(error);  // one thread asks for it
      if (v6_) return TryV6(words);
      return Refused(why_.empty() ? words : why_);
    }
    v6_.reset();
    const int yes = 1;
    static_cast<void>(setsockopt(socket_->fd(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes));
    const std::weak_ptr<Forward> weak = weak_from_this();
    out_pump_ = std::make_shared<OutPump>(env_.pumps, socket_, data_, [weak] {
      if (const auto self = weak.lock()) self->OnServerEnd();
    });
    in_pump_ = std::make_shared<InPump>(data_, socket_, [weak] {
      if (const auto self = weak.lock()) self->OnClientEnd();
    });
    in_pump_->Begin(
        [weak] {
          if (const auto self = weak.lock()) self->Close();
        },
        [weak] {
          const auto self = weak.lock();
          if (self && self->out_pump_) self->out_pump_->OnRoom();
        });
    if (out_pump_) out_pump_->Begin();
  }

  void OnServerEnd() {
    if (over_) return;
    server_ended_ = true;
    // Who writes to a connection that was reset learns of it; who reads it then sees an end as any
    // other.
    if (out_pump_->broken() || in_pump_->broken()) return Break();
    data_->End();
    if (client_ended_ || !half_close_) EndBoth();
  }

  void OnClientEnd() {
    if (over_) return;
    if (in_pump_->broken()) {
      // What the server had sent before is still there to be read, up to its end.
      if (server_ended_) Break();
      return;
    }
    client_ended_ = true;
    if (server_ended_) return EndBoth();
    shutdown(socket_->fd(), SHUT_WR);
  }

  /// Nobody listens on the port. That is a connection's affair, as a refusal is anywhere: see
  /// Break(). Where no stream can be reset the words are all there is.
  void Refused(const std::string& why) {
    if (over_) return;
    if (!half_close_) {
      return Fail(fmt::format("nobody answers on port {} of the pod: {}", port_, why));
    }
    on_refused_(why);
    Break();
  }

  /// Told as what it is. The error stream stays empty: clients end all their connections for a word
  /// on it.
  void Break() {
    error_->End();
    Close();
    data_->Reset();
  }

  void EndBoth() {
    data_->End();
    error_->End();
    Close();
  }

  /// For what concerns the whole session, or is no connection at all.
  void Fail(const std::string& words) {
    if (over_) return;
    error_->Send(words);
    EndBoth();
  }

  Env& env_;
  const std::uint16_t port_;
  StreamPtr data_, error_;
  const bool half_close_;
  std::function<void(const std::string&)> on_refused_;
  std::function<void()> on_over_;
  DescriptorPtr socket_;
  os::UniqueFd v6_;
  std::string why_;  // of IPv4
  std::shared_ptr<InPump> in_pump_;
  std::shared_ptr<OutPump> out_pump_;
  bool client_ended_ = false;
  bool server_ended_ = false;
  bool over_ = false;
};

/// 1 to 65535; anything else is refused in words.
Result<std::uint16_t> ParsePort(std::string_view text) {
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc() || end != text.data() + text.size() || port == 0) {
    return InvalidArgument("port: '{}' is no TCP port (only TCP is forwarded)", text.substr(0, 50));
  }
  return port;
}

/// What both protocols share.
class ForwardSession : public Session, public std::enable_shared_from_this<ForwardSession> {
 public:
  ForwardSession(Env& env, runtime::v1::PortForwardRequest request)
      : env_(env), request_(std::move(request)) {}
  void Stop(const Status& why) override {
    for (const auto& forward : std::set(forwards_)) forward->Stop(why);
    connection().Finish();
  }

 protected:
  void Open(std::uint16_t port, const StreamPtr& data, const StreamPtr& error, bool half_close) {
    if (forwards_.size() >= kMaxForwards) {
      // Words would end those that are there as well.
      for (const StreamPtr& stream : {data, error}) stream->Discard();
      error->End();
      return data->Reset();
    }
    auto forward = std::make_shared<Forward>(env_, port, data, error, half_close);
    forwards_.insert(forward);
    forward->Begin(
        request_.pod_sandbox_id(),
        [weak = weak_from_this(), port](const std::string& why) {
          if (const auto self = weak.lock()) self->OnRefused(port, why);
        },
        [weak = weak_from_this(), raw = std::weak_ptr(forward)] {
          const auto self = weak.lock();
          if (!self) return;
          self->forwards_.erase(raw.lock());
          if (self->forwards_.empty()) self->OnNoneLeft();
        });
  }
  static void Refuse(const StreamPtr& data, const StreamPtr& error, const std::string& words) {
    error->Send(words);
    for (const StreamPtr& stream : {data, error}) {
      stream->Discard();
      stream->End();
    }
  }
  virtual void OnNoneLeft() {}
  void OnClosed() {
    for (const auto& forward : std::set(forwards_)) forward->Close();
    if (const auto done = std::exchange(on_over_, nullptr)) done();
  }

  Env& env_;
  const runtime::v1::PortForwardRequest request_;
  std::function<void()> on_over_;

 private:
  /// Said once for each port: some clients try again and again.
  void OnRefused(std::uint16_t port, const std::string& why) {
    if (!refused_.insert(port).second) return;
    log::Info("nobody answers a port-forward",
              {{"pod", request_.pod_sandbox_id()}, {"port", port}, {"why", why}});
  }

  std::set<std::shared_ptr<Forward>> forwards_;
  std::set<std::uint16_t> refused_;
};

/// Pairs of streams that the client opens when it likes: "error" and "data" of one requestID.
class SpdyForwardSession final : public ForwardSession {
 public:
  SpdyForwardSession(Env& env, const runtime::v1::PortForwardRequest& request,
                     std::shared_ptr<Wire> wire)
      : ForwardSession(env, request),
        spdy_(std::make_shared<spdy::SpdyConnection>(std::move(wire), kSpill)) {}

  void Begin(std::function<void()> on_over) override {
    on_over_ = std::move(on_over);
    const std::weak_ptr<ForwardSession> weak = weak_from_this();
    spdy_->Begin({.on_stream =
                      [weak](const StreamPtr& stream, const spdy::Headers& headers) {
                        const auto self = std::static_pointer_cast<SpdyForwardSession>(weak.lock());
                        if (self) self->OnStream(stream, headers);
                      },
                  .on_closed =
                      [weak](const Status&) {
                        const auto self = std::static_pointer_cast<SpdyForwardSession>(weak.lock());
                        if (!self) return;
                        self->halves_.clear();
                        self->OnClosed();
                      }});
  }
  Connection& connection() override { return *spdy_; }

 private:
  struct Half {
    StreamPtr data, error;
    std::string port;
    loop::Timer timer;
  };

  void OnStream(const StreamPtr& stream, const spdy::Headers& headers) {
    const std::string type = spdy::Find(headers, "streamtype");
    std::string request = spdy::Find(headers, "requestid");
    // Clients that know no ids open the error stream of a pair first.
    if (request.empty() && type == "error") request = fmt::format("#{}", ++unnamed_);
    if (request.empty()) request = fmt::format("#{}", unnamed_);
    if ((type != "data" && type != "error") || request.size() > kMaxName ||
        (halves_.size() >= kMaxForwards && !halves_.contains(request))) {
      return stream->Reset();
    }
    Half& half = halves_[request];
    StreamPtr& slot = type == "data" ? half.data : half.error;
    if (slot) return stream->Reset();
    slot = stream;
    if (half.port.empty()) half.port = spdy::Find(headers, "port").substr(0, kMaxName);
    if (!half.data || !half.error) {
      half.timer = env_.loop.After(env_.creation_timeout, [weak = weak_from_this(), request] {
        const auto self = std::static_pointer_cast<SpdyForwardSession>(weak.lock());
        if (self) self->OnTimeout(request);
      });
      return;
    }
    const Half whole = std::move(half);
    halves_.erase(request);
    const auto port = ParsePort(whole.port);
    if (port.ok()) return Open(*port, whole.data, whole.error, /*half_close=*/true);
    Refuse(whole.data, whole.error, port.status().message());
  }

  void OnTimeout(const std::string& request) {
    const auto found = halves_.find(request);
    if (found == halves_.end()) return;
    const Half half = std::move(found->second);
    halves_.erase(found);
    for (const StreamPtr& stream : {half.data, half.error}) {
      if (stream) stream->Reset();
    }
  }

  std::shared_ptr<spdy::SpdyConnection> spdy_;
  std::map<std::string, Half> halves_;
  std::uint64_t unnamed_ = 0;
};

/// One connection for each port that the request names, at once: channels 2n for data, 2n + 1 for
/// errors, each beginning with the port in two bytes, the lower one first.
class ChannelForwardSession final : public ForwardSession {
 public:
  ChannelForwardSession(Env& env, const runtime::v1::PortForwardRequest& request,
                        ChannelProtocol protocol, std::shared_ptr<Wire> wire)
      : ForwardSession(env, request),
        channels_(std::make_shared<ChannelConnection>(std::move(wire), protocol)) {}

  void Begin(std::function<void()> on_over) override {
    on_over_ = std::move(on_over);
    const std::weak_ptr<ForwardSession> weak = weak_from_this();
    const auto ports = static_cast<std::size_t>(request_.port_size());
    const auto streams = channels_->Begin(2 * ports, [weak](const Status&) {
      const auto self = std::static_pointer_cast<ChannelForwardSession>(weak.lock());
      if (self) self->OnClosed();
    });
    for (std::size_t i = 0; i < ports; ++i) {
      const auto port = static_cast<std::uint16_t>(request_.port(static_cast<int>(i)));
      const std::string bytes = {static_cast<char>(port & 0xffU), static_cast<char>(port >> 8U)};
      streams[2 * i]->Send(bytes);
      streams[2 * i + 1]->Send(bytes);
      Open(port, streams[2 * i], streams[2 * i + 1], /*half_close=*/false);
    }
    if (ports == 0) channels_->Finish();
  }
  Connection& connection() override { return *channels_; }

 private:
  // No others can come.
  void OnNoneLeft() override { channels_->Finish(); }

  std::shared_ptr<ChannelConnection> channels_;
};

}  // namespace

SessionPtr MakePortForwardSession(Env& env, const runtime::v1::PortForwardRequest& request,
                                  const Agreed& agreed, std::shared_ptr<Wire> wire) {
  // Over a WebSocket SPDY may come as well, as the bytes of its messages.
  if (const auto protocol = ParseChannelProtocol(agreed.name); agreed.websocket && protocol) {
    return std::make_shared<ChannelForwardSession>(env, request, *protocol, std::move(wire));
  }
  return std::make_shared<SpdyForwardSession>(env, request, std::move(wire));
}

}  // namespace crisp::rund::streaming
