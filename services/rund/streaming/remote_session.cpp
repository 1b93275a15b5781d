#include <array>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "libs/log/log.h"
#include "services/rund/streaming/attach_target.h"
#include "services/rund/streaming/session.h"
#include "services/rund/streaming/spdy.h"

namespace crisp::rund::streaming {
namespace {

// WebSocket channels.
enum Channel : std::size_t { kStdin, kStdout, kStderr, kError, kResize, kChannels };
constexpr std::size_t kMaxSizeText = 1024;
// For the calls that start it.
constexpr std::chrono::seconds kStartTimeout{60};

struct Wanted {
  bool in = false;
  bool out = false;
  bool err = false;
  bool tty = false;
};

Wanted WantedBy(const Request& request) {
  return std::visit(
      [](const auto& r) -> Wanted {
        if constexpr (std::is_same_v<std::decay_t<decltype(r)>, runtime::v1::PortForwardRequest>) {
          return {};
        } else {
          return {r.stdin(), r.stdout(), r.stderr(), r.tty()};
        }
      },
      request);
}

/// One exec or attach.
class RemoteSession final : public Session, public std::enable_shared_from_this<RemoteSession> {
 public:
  RemoteSession(Env& env, Request request, const Agreed& agreed, std::shared_ptr<Wire> wire)
      : env_(env),
        request_(std::move(request)),
        wanted_(WantedBy(request_)),
        protocol_(ParseChannelProtocol(agreed.name).value_or(ChannelProtocol{})) {
    if (agreed.websocket) {
      channels_ = std::make_shared<ChannelConnection>(std::move(wire), protocol_);
    } else {
      spdy_ = std::make_shared<spdy::SpdyConnection>(std::move(wire));
    }
  }

  void Begin(std::function<void()> on_over) override {
    on_over_ = std::move(on_over);
    const std::weak_ptr<RemoteSession> weak = weak_from_this();
    auto on_closed = [weak](const Status& why) {
      if (const auto self = weak.lock()) self->OnClosed(why);
    };
    if (channels_) return BeginChannels(channels_->Begin(kChannels, std::move(on_closed)));
    timer_ = env_.loop.After(env_.creation_timeout, [weak] {
      if (const auto self = weak.lock()) self->OnTimeout();
    });
    spdy_->Begin({.on_stream =
                      [weak](const StreamPtr& stream, const spdy::Headers& headers) {
                        if (const auto self = weak.lock()) self->OnStream(stream, headers);
                      },
                  .on_closed = std::move(on_closed)});
  }

  void Stop(const Status& why) override { OnEnd({why, 0}); }
  Connection& connection() override {
    return channels_ ? static_cast<Connection&>(*channels_) : *spdy_;
  }

 private:
  void BeginChannels(const std::vector<StreamPtr>& streams) {
    error_ = streams[kError];
    streams_.in = wanted_.in ? streams[kStdin] : nullptr;
    streams_.out = wanted_.out ? streams[kStdout] : nullptr;
    streams_.err = wanted_.err ? streams[kStderr] : nullptr;
    ListenForSizes(streams[kResize]);
    for (const StreamPtr& stream : streams) {
      if (stream != streams_.in && stream != streams[kResize]) stream->Discard();
    }
    // Tells the client that it is connected.
    (wanted_.out ? streams[kStdout] : wanted_.err ? streams[kStderr] : error_)->Send("");
    Start();
  }

  void OnStream(const StreamPtr& stream, const spdy::Headers& headers) {
    const std::string type = spdy::Find(headers, "streamtype");
    const std::map<std::string_view, std::pair<bool, StreamPtr*>> known = {
        {"error", {true, &error_}},
        {"stdin", {wanted_.in, &streams_.in}},
        {"stdout", {wanted_.out, &streams_.out}},
        {"stderr", {wanted_.err && !wanted_.tty, &streams_.err}},
        {"resize", {wanted_.tty && protocol_.version >= 3, &resize_}}};
    const auto found = known.find(type);
    if (found == known.end() || !found->second.first || *found->second.second != nullptr) {
      return stream->Reset();
    }
    *found->second.second = stream;
    if (type == "resize") ListenForSizes(stream);
    if (type == "error") stream->Discard();
    for (const auto& [name, slot] : known) {
      if (slot.first && *slot.second == nullptr) return;
    }
    timer_ = {};
    Start();
  }

  void ListenForSizes(const StreamPtr& stream) {
    stream->Listen({.on_data =
                        [weak = weak_from_this(), to = stream.get()](std::string_view bytes) {
                          to->Took(bytes.size());
                          if (const auto self = weak.lock()) self->OnSizes(bytes);
                        },
                    .on_end = nullptr,
                    .on_room = nullptr,
                    .on_gone = nullptr});
  }

  // JSON objects one after the other; only the last one counts.
  void OnSizes(std::string_view bytes) {
    sizes_ += bytes;
    std::string_view rest = sizes_;
    for (std::size_t end = rest.find('}'); end != rest.npos; end = rest.find('}')) {
      const std::string_view one = rest.substr(0, end + 1);
      const std::size_t begin = one.find('{');
      if (begin != one.npos) {
        if (const auto size = ParseSize(one.substr(begin))) size_ = size;
      }
      rest.remove_prefix(end + 1);
    }
    sizes_.erase(0, sizes_.size() - rest.size());
    if (sizes_.size() > kMaxSizeText) sizes_.clear();
    if (target_ && size_) target_->Resize(*size_);
  }

  void OnTimeout() {
    timer_ = {};
    OnEnd({DeadlineExceeded("the client did not open its streams in time"), 0});
  }

  void Start() {
    if (const auto* attach = std::get_if<runtime::v1::AttachRequest>(&request_)) {
      target_ = std::make_shared<AttachTarget>(env_.attaches, attach->container_id());
      // Not in the middle of what the client has sent.
      return env_.loop.Post([self = shared_from_this()] { self->BeginTarget(); });
    }
    const auto cc = CallContext::Background(kStartTimeout, "streaming");
    Status submitted = env_.pool.Submit(
        work::Lane::kStream, cc,
        // The last one to hold the session is the loop.
        [self = shared_from_this(), cc]() mutable {
          const auto& request = std::get<runtime::v1::ExecRequest>(self->request_);
          auto made = std::make_shared<Result<ExecProcess>>(self->env_.backend.exec(cc, request));
          loop::Loop& loop = self->env_.loop;
          loop.Post([self = std::move(self), made] { self->OnMade(std::move(*made)); });
        },
        [self = shared_from_this()](const Status& why) mutable {
          loop::Loop& loop = self->env_.loop;
          loop.Post([self = std::move(self), why] { self->OnEnd({why, 0}); });
        });
    if (!submitted.ok()) OnEnd({submitted, 0});
  }

  void OnMade(Result<ExecProcess> made) {
    if (!made.ok()) return OnEnd({made.status(), 0});
    target_ = ExecTarget::Make(env_.execs, *std::move(made));
    BeginTarget();
  }

  void BeginTarget() {
    // The client has gone meanwhile.
    if (over_) return target_->Close();
    if (size_) target_->Resize(*size_);
    target_->Begin(streams_, [weak = weak_from_this()](const Outcome& outcome) {
      if (const auto self = weak.lock()) self->OnEnd(outcome);
    });
  }

  void OnEnd(const Outcome& outcome) {
    if (std::exchange(over_, true)) return;
    if (target_) target_->Close();
    if (error_) error_->Send(ErrorStreamText(outcome, protocol_.version));
    for (const StreamPtr& stream : {streams_.out, streams_.err, streams_.in, resize_, error_}) {
      if (!stream) continue;
      // What still comes must not keep the client's windows from us.
      stream->Discard();
      stream->End();
    }
    connection().Finish();
  }

  void OnClosed(const Status& why) {
    if (!std::exchange(over_, true) && target_) target_->Close();
    if (!why.ok()) log::Debug("a streaming client has gone", {{"why", why}});
    timer_ = {};
    if (const auto done = std::exchange(on_over_, nullptr)) done();
  }

  Env& env_;
  const Request request_;
  const Wanted wanted_;
  const ChannelProtocol protocol_;
  std::function<void()> on_over_;
  std::shared_ptr<ChannelConnection> channels_;
  std::shared_ptr<spdy::SpdyConnection> spdy_;
  StreamPtr error_, resize_;
  RemoteStreams streams_;
  std::shared_ptr<Target> target_;
  loop::Timer timer_;
  std::string sizes_;
  std::optional<TerminalSize> size_;
  bool over_ = false;
};

}  // namespace

SessionPtr MakeRemoteSession(Env& env, const Request& request, const Agreed& agreed,
                             std::shared_ptr<Wire> wire) {
  return std::make_shared<RemoteSession>(env, request, agreed, std::move(wire));
}

}  // namespace crisp::rund::streaming
