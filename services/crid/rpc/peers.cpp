#include "services/crid/rpc/peers.h"

#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/client_unary_call.h>
#include <poll.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "crisp/daemon/v1/daemon.grpc.pb.h"
#include "crisp/imaged/v1/imaged.grpc.pb.h"
#include "crisp/netd/v1/netd.grpc.pb.h"
#include "crisp/rund/v1/rund.grpc.pb.h"
#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/os/files.h"
#include "libs/rpc/follow.h"
#include "libs/rpc/internal.h"
#include "libs/rpc/metadata.h"
#include "libs/rpc/tracing.h"
#include "libs/work/operations.h"

namespace crisp::crid {
namespace {

// What StopContainer may take beyond its grace: the kill, the exit, the records.
constexpr std::chrono::seconds kStopMargin{90};
constexpr int kAgainMillis = 20;

std::chrono::system_clock::time_point SystemDeadline(const CallContext& cc) {
  if (cc.deadline() == SteadyTime::max()) return std::chrono::system_clock::time_point::max();
  return std::chrono::system_clock::now() +
         std::chrono::duration_cast<std::chrono::microseconds>(cc.Remaining());
}

constexpr std::string_view kSocketEnd = ".sock";
/// What an instance leaves beside its socket for as long as it may have records.
constexpr std::string_view kRecordsEnd = ".records";

/// "1" of "1.sock"; nothing for other files ("1.metrics.sock", "1.lock").
std::optional<std::string> InstanceOf(const std::string& file, std::string_view end = kSocketEnd) {
  if (file.size() <= end.size() || !file.ends_with(end)) return std::nullopt;
  std::string name = file.substr(0, file.size() - end.size());
  if (name.find('.') != std::string::npos) return std::nullopt;
  return name;
}

/// For questions that must be answered soon: kUnavailable when the daemon is not there within
/// `wait`, or does not answer.
template <typename Call>
auto Quickly(const CallContext& cc, const rpc::Peer& peer, const PeersOptions& options, Call call)
    -> decltype(call(cc)) {
  const CallContext wait = cc.Within(options.status_wait);
  if (!peer.Ready() && !peer.WaitReady(wait).ok() && !peer.Ready()) {
    return Unavailable("{} is not running", peer.name());
  }
  auto answer = call(cc.Within(options.status_answer));
  if (!answer.ok() && answer.code() == Code::kDeadlineExceeded) {
    return Unavailable("{} does not answer", peer.name());
  }
  return answer;
}

/// A unary call without a thread; the returned function waits for the answer. A connection that
/// breaks is left to `again` (which waits for the peer and asks anew).
template <typename Req, typename Resp>
Pending<Resp> StartCall(const CallContext& cc, const rpc::Peer& peer, Req request,
                        const std::function<void(grpc::ClientContext*, const Req*, Resp*,
                                                 std::function<void(grpc::Status)>)>& start,
                        std::function<Result<Resp>(const CallContext&, const Req&)> again) {
  struct State {
    grpc::ClientContext context;
    Req request;
    Resp response;
    std::mutex mutex;
    std::condition_variable_any changed;
    std::optional<grpc::Status> answer;
    std::optional<work::Stage> stage;
  };
  auto state = std::make_shared<State>();
  state->request = std::move(request);
  state->context.set_deadline(SystemDeadline(cc));
  state->context.AddMetadata(rpc::kRequestIdKey, cc.request_id());
  rpc::SendTrace(state->context);
  state->stage.emplace(work::Stage::Elsewhere(
      cc, fmt::format("{} of {}", rpc::CallName<Req>(), peer.name()), peer.name()));
  start(&state->context, &state->request, &state->response, [state](const grpc::Status& status) {
    std::lock_guard lock(state->mutex);
    state->stage.reset();
    state->answer = status;
    state->changed.notify_all();
  });
  return [state, cc, again = std::move(again)]() -> Result<Resp> {
    {
      const std::stop_callback cancel(cc.stop(), [&state] { state->context.TryCancel(); });
      std::unique_lock lock(state->mutex);
      // Ends at the call's deadline at the latest: gRPC answers then.
      state->changed.wait(lock, [&state] { return state->answer.has_value(); });
    }
    if (state->answer->ok()) return std::move(state->response);
    if (rpc::internal::ConnectionBroke(*state->answer, state->context)) {
      return again(cc, state->request);
    }
    return rpc::FromGrpc(*state->answer);
  };
}

}  // namespace

/// The instances of a service of which any one will do.
class Peers::Group {
 public:
  Group(std::string service, const PeersOptions& options, std::stop_token closed)
      : service_(std::move(service)), options_(options), closed_(std::move(closed)) {
    // The first instance is called even before its socket is seen: the call waits for it.
    Add("1");
  }

  void Add(const std::string& instance) {
    std::lock_guard lock(mutex_);
    if (peers_.contains(instance)) {
      peers_.at(instance).Poke();
      return;
    }
    peers_.emplace(instance,
                   rpc::Peer(service_ + "/" + instance,
                             fmt::format("{}/{}/{}.sock", options_.run_root, service_, instance),
                             options_.peer_wait, closed_));
  }

  rpc::Peer Pick() const {
    std::lock_guard lock(mutex_);
    for (const auto& [name, peer] : peers_) {
      if (peer.Ready()) return peer;
    }
    return peers_.begin()->second;
  }

  std::vector<rpc::Peer> All() const {
    std::lock_guard lock(mutex_);
    std::vector<rpc::Peer> out;
    for (const auto& [name, peer] : peers_) out.push_back(peer);
    return out;
  }

 private:
  const std::string service_;
  const PeersOptions& options_;
  const std::stop_token closed_;
  mutable std::mutex mutex_;
  std::map<std::string, rpc::Peer> peers_;
};

class Peers::RundClient final : public Rund {
 public:
  RundClient(const std::string& instance, const PeersOptions& options, std::stop_token closed,
             View& view, const std::function<void()>& on_change)
      : instance_(instance),
        options_(options),
        peer_("rund/" + instance, fmt::format("{}/rund/{}.sock", options.run_root, instance),
              options.peer_wait, std::move(closed)),
        pods_(rund::v1::Pods::NewStub(peer_.channel())),
        containers_(rund::v1::Containers::NewStub(peer_.channel())),
        node_(rund::v1::Node::NewStub(peer_.channel())),
        records_(rund::v1::Records::NewStub(peer_.channel())) {
    follow_ = std::make_unique<rpc::Follow<rund::v1::WatchEvent>>(
        [this](grpc::ClientContext* context,
               grpc::ClientReadReactor<rund::v1::WatchEvent>* reactor) {
          static const rund::v1::WatchRequest kRequest;
          records_->async()->Watch(context, &kRequest, reactor);
        },
        [this, &view, on_change](const rund::v1::WatchEvent& event) {
          view.Apply(instance_, event);
          if (event.snapshot()) {
            log::Info("rund is seen", {{"rund", instance_},
                                       {"pods", event.pods_size()},
                                       {"containers", event.containers_size()}});
            on_change();
          }
        },
        [this, &view](const Status& why) {
          log::Warn("rund is away", {{"rund", instance_}, {"error", why}});
          view.Lost(instance_);
        });
  }

  const rpc::Peer& peer() const { return peer_; }
  rund::v1::Containers::Stub& containers() { return *containers_; }
  const std::string& instance() const override { return instance_; }
  bool Ready() const override { return peer_.Ready(); }

  Result<rund::v1::ReservePodResponse> ReservePod(const CallContext& cc,
                                                  const rund::v1::ReservePodRequest& r) override {
    return rpc::Call(cc, peer_, *pods_, &rund::v1::Pods::Stub::ReservePod, r);
  }
  Result<rund::v1::PreparePodResponse> PreparePod(const CallContext& cc,
                                                  const rund::v1::PreparePodRequest& r) override {
    return rpc::Call(cc, peer_, *pods_, &rund::v1::Pods::Stub::PreparePod, r);
  }
  Result<rund::v1::StartPodResponse> StartPod(const CallContext& cc,
                                              const rund::v1::StartPodRequest& r) override {
    return rpc::Call(cc, peer_, *pods_, &rund::v1::Pods::Stub::StartPod, r);
  }
  Result<rund::v1::StopPodResponse> StopPod(const CallContext& cc,
                                            const rund::v1::StopPodRequest& r) override {
    return rpc::Call(cc, peer_, *pods_, &rund::v1::Pods::Stub::StopPod, r);
  }
  Result<rund::v1::RemovePodResponse> RemovePod(const CallContext& cc,
                                                const rund::v1::RemovePodRequest& r) override {
    return rpc::Call(cc, peer_, *pods_, &rund::v1::Pods::Stub::RemovePod, r);
  }
  Result<rund::v1::ReserveContainerResponse> ReserveContainer(
      const CallContext& cc, const rund::v1::ReserveContainerRequest& r) override {
    return rpc::Call(cc, peer_, *containers_, &rund::v1::Containers::Stub::ReserveContainer, r);
  }
  Result<rund::v1::StageCheckpointResponse> StageCheckpoint(
      const CallContext& cc, const rund::v1::StageCheckpointRequest& r) override {
    return rpc::Call(cc, peer_, *containers_, &rund::v1::Containers::Stub::StageCheckpoint, r);
  }
  Result<rund::v1::CreateContainerResponse> CreateContainer(
      const CallContext& cc, const rund::v1::CreateContainerRequest& r) override {
    return rpc::Call(cc, peer_, *containers_, &rund::v1::Containers::Stub::CreateContainer, r);
  }
  Result<rund::v1::StartContainerResponse> StartContainer(
      const CallContext& cc, const rund::v1::StartContainerRequest& r) override {
    return rpc::Call(cc, peer_, *containers_, &rund::v1::Containers::Stub::StartContainer, r,
                     {.idempotent = false});
  }
  Result<rund::v1::StopContainerResponse> StopContainer(const CallContext& cc,
                                                        const rund::v1::StopContainerRequest& r) {
    return rpc::Call(cc, peer_, *containers_, &rund::v1::Containers::Stub::StopContainer, r);
  }
  Result<rund::v1::RemoveContainerResponse> RemoveContainer(
      const CallContext& cc, const rund::v1::RemoveContainerRequest& r) override {
    return rpc::Call(cc, peer_, *containers_, &rund::v1::Containers::Stub::RemoveContainer, r);
  }
  Result<rund::v1::NodeStatusResponse> NodeStatus(const CallContext& cc) override {
    return Quickly(cc, peer_, options_, [this](const CallContext& soon) {
      return rpc::Call(soon, peer_, *node_, &rund::v1::Node::Stub::NodeStatus,
                       rund::v1::NodeStatusRequest());
    });
  }

 private:
  const std::string instance_;
  const PeersOptions& options_;
  const rpc::Peer peer_;
  const std::unique_ptr<rund::v1::Pods::Stub> pods_;
  const std::unique_ptr<rund::v1::Containers::Stub> containers_;
  const std::unique_ptr<rund::v1::Node::Stub> node_;
  const std::unique_ptr<rund::v1::Records::Stub> records_;
  std::unique_ptr<rpc::Follow<rund::v1::WatchEvent>> follow_;  // last: it uses the others
};

class Peers::NetdClient final : public Netd {
 public:
  NetdClient(std::shared_ptr<Group> group, const PeersOptions& options)
      : group_(std::move(group)), options_(options) {}

  bool Ready() const override { return group_->Pick().Ready(); }
  Pending<netd::v1::AttachResponse> StartAttach(const CallContext& cc,
                                                netd::v1::AttachRequest r) override {
    return StartOf<netd::v1::AttachRequest, netd::v1::AttachResponse>(
        cc, std::move(r), &Stub::Attach,
        [](Stub& stub, grpc::ClientContext* context, const netd::v1::AttachRequest* request,
           netd::v1::AttachResponse* response, std::function<void(grpc::Status)> done) {
          stub.async()->Attach(context, request, response, std::move(done));
        });
  }
  Pending<netd::v1::DetachResponse> StartDetach(const CallContext& cc,
                                                netd::v1::DetachRequest r) override {
    return StartOf<netd::v1::DetachRequest, netd::v1::DetachResponse>(
        cc, std::move(r), &Stub::Detach,
        [](Stub& stub, grpc::ClientContext* context, const netd::v1::DetachRequest* request,
           netd::v1::DetachResponse* response, std::function<void(grpc::Status)> done) {
          stub.async()->Detach(context, request, response, std::move(done));
        });
  }
  Result<netd::v1::StatusResponse> Status(const CallContext& cc) override {
    const rpc::Peer peer = group_->Pick();
    return Quickly(cc, peer, options_, [&peer](const CallContext& soon) {
      return rpc::Call(soon, peer, *netd::v1::Network::NewStub(peer.channel()), &Stub::Status,
                       netd::v1::StatusRequest());
    });
  }
  Result<netd::v1::ReconcileResponse> Reconcile(const CallContext& cc,
                                                const netd::v1::ReconcileRequest& r) override {
    const rpc::Peer peer = group_->Pick();
    return rpc::Call(cc, peer, *netd::v1::Network::NewStub(peer.channel()), &Stub::Reconcile, r);
  }

 private:
  using Stub = netd::v1::Network::Stub;

  template <typename Req, typename Resp>
  Pending<Resp> StartOf(const CallContext& cc, Req request,
                        grpc::Status (Stub::*method)(grpc::ClientContext*, const Req&, Resp*),
                        void (*start)(Stub&, grpc::ClientContext*, const Req*, Resp*,
                                      std::function<void(grpc::Status)>)) {
    auto again = [group = group_, method](const CallContext& own, const Req& r) -> Result<Resp> {
      const rpc::Peer peer = group->Pick();
      return rpc::Call(own, peer, *netd::v1::Network::NewStub(peer.channel()), method, r);
    };
    const rpc::Peer peer = group_->Pick();
    if (!peer.Ready()) {
      // Its return is waited for when the answer is: meanwhile the caller does its other part.
      return [again, cc, request = std::move(request)] { return again(cc, request); };
    }
    std::shared_ptr<Stub> stub = netd::v1::Network::NewStub(peer.channel());
    return StartCall<Req, Resp>(
        cc, peer, std::move(request),
        [stub, start](grpc::ClientContext* context, const Req* r, Resp* response,
                      std::function<void(grpc::Status)> done) {
          start(*stub, context, r, response,
                [stub, done = std::move(done)](const grpc::Status& status) { done(status); });
        },
        again);
  }

  const std::shared_ptr<Group> group_;
  const PeersOptions& options_;
};

class Peers::ImagedClient final : public Imaged {
 public:
  ImagedClient(std::shared_ptr<Group> group, const PeersOptions& options)
      : group_(std::move(group)), options_(options) {}

  bool Ready() const override { return group_->Pick().Ready(); }
  Result<imaged::v1::PrepareResponse> Prepare(const CallContext& cc,
                                              const imaged::v1::PrepareRequest& r) override {
    return CallOne(cc, &Stub::Prepare, r);
  }
  Result<imaged::v1::PrepareVolumeResponse> PrepareVolume(
      const CallContext& cc, const imaged::v1::PrepareVolumeRequest& r) override {
    return CallOne(cc, &Stub::PrepareVolume, r);
  }
  Result<imaged::v1::ReleaseResponse> Release(const CallContext& cc,
                                              const imaged::v1::ReleaseRequest& r) override {
    return CallOne(cc, &Stub::Release, r);
  }
  Result<imaged::v1::ReconcileResponse> Reconcile(const CallContext& cc,
                                                  const imaged::v1::ReconcileRequest& r) override {
    return CallOne(cc, &Stub::Reconcile, r);
  }
  Status Check(const CallContext& cc) override {
    const rpc::Peer peer = group_->Pick();
    auto answer = Quickly(cc, peer, options_, [&peer](const CallContext& soon) {
      return rpc::Call(soon, peer, *crisp::daemon::v1::Daemon::NewStub(peer.channel()),
                       &crisp::daemon::v1::Daemon::Stub::Info, crisp::daemon::v1::InfoRequest());
    });
    return answer.ok() ? Status::Ok() : std::move(answer).status();
  }

 private:
  using Stub = imaged::v1::Snapshots::Stub;

  template <typename Req, typename Resp>
  Result<Resp> CallOne(const CallContext& cc,
                       grpc::Status (Stub::*method)(grpc::ClientContext*, const Req&, Resp*),
                       const Req& request) {
    const rpc::Peer peer = group_->Pick();
    return rpc::Call(cc, peer, *imaged::v1::Snapshots::NewStub(peer.channel()), method, request);
  }

  const std::shared_ptr<Group> group_;
  const PeersOptions& options_;
};

/// A StopContainer under way. It holds no thread but while it waits for a rund that is away, which
/// ends with its return or after `peer_wait`: all stops of a node come through here.
class Peers::StopAttempts final : public std::enable_shared_from_this<StopAttempts> {
 public:
  using Done = std::function<void(Result<rund::v1::StopContainerResponse>)>;
  StopAttempts(work::Pool& pool, CallContext cc, std::shared_ptr<RundClient> rund,
               rund::v1::StopContainerRequest request, Done done)
      : pool_(pool),
        cc_(std::move(cc)),
        rund_(std::move(rund)),
        request_(std::move(request)),
        done_(std::move(done)) {}

  void Next(bool again = false) {
    if (!again && rund_->Ready()) return Ask();
    auto self = shared_from_this();
    Status submitted = pool_.Submit(
        work::Lane::kWait, cc_,
        [self, again] {
          // One that drains refuses for a moment before it goes.
          if (again) poll(nullptr, 0, kAgainMillis);
          const Status back = self->rund_->peer().WaitReady(self->cc_);
          if (!back.ok()) return self->done_(back);
          self->Ask();
        },
        [self](const Status& why) { self->done_(why); });
    if (!submitted.ok()) done_(submitted);
  }

 private:
  void Ask() {
    struct Attempt {
      grpc::ClientContext context;
      rund::v1::StopContainerResponse response;
    };
    auto attempt = std::make_shared<Attempt>();
    attempt->context.set_deadline(SystemDeadline(cc_));
    attempt->context.AddMetadata(rpc::kRequestIdKey, cc_.request_id());
    rpc::SendTrace(attempt->context, trace_);
    const std::string& peer = rund_->peer().name();
    stage_.emplace(work::Stage::Elsewhere(cc_, fmt::format("StopContainer of {}", peer), peer));
    rund_->containers().async()->StopContainer(
        &attempt->context, &request_, &attempt->response,
        [self = shared_from_this(), attempt](const grpc::Status& status) {
          self->stage_.reset();
          // Its connection broke, or it said that it goes: asked again, since a stop is idempotent.
          if (status.error_code() == grpc::StatusCode::UNAVAILABLE && self->cc_.Check().ok()) {
            return self->Next(/*again=*/true);
          }
          if (!status.ok()) return self->done_(rpc::FromGrpc(status));
          self->done_(std::move(attempt->response));
        });
  }

  work::Pool& pool_;
  const CallContext cc_;
  const trace::Context trace_ = trace::Current();
  const std::shared_ptr<RundClient> rund_;
  const rund::v1::StopContainerRequest request_;
  const Done done_;
  std::optional<work::Stage> stage_;
};

Peers::Peers(PeersOptions options, View& view, loop::Loop& loop, std::function<void()> on_change)
    : options_(std::move(options)),
      view_(view),
      loop_(loop),
      on_change_(std::move(on_change)),
      imaged_group_(std::make_shared<Group>("imaged", options_, closed_.get_token())),
      netd_group_(std::make_shared<Group>("netd", options_, closed_.get_token())),
      netd_(std::make_unique<NetdClient>(netd_group_, options_)),
      imaged_(std::make_unique<ImagedClient>(imaged_group_, options_)) {}

Peers::~Peers() {
  watches_.clear();
  std::map<std::string, std::shared_ptr<RundClient>> runds;
  {
    std::lock_guard lock(mutex_);
    runds.swap(runds_);
  }
}

Status Peers::Watch(const std::string& service,
                    const std::function<void(const std::string&, loop::DirEvent)>& handler) {
  const std::string dir = options_.run_root + "/" + service;
  CRISP_TRY(os::MakeDirs(dir));
  auto list = [dir, handler] {
    auto names = os::ListDir(dir);
    if (!names.ok()) return log::IfError("list " + dir, names.status());
    for (const std::string& name : *names) handler(name, loop::DirEvent::kAppeared);
  };
  watches_.push_back(CRISP_TRY(
      loop_.WatchDirectory(dir, [handler, list](const std::string& name, loop::DirEvent event) {
        if (name.empty()) return list();  // the kernel dropped events
        handler(name, event);
      })));
  list();
  return Status::Ok();
}

Status Peers::Start() {
  auto add_to = [this](const std::shared_ptr<Group>& group) {
    return [this, group](const std::string& file, loop::DirEvent event) {
      const auto instance = InstanceOf(file);
      if (!instance || event == loop::DirEvent::kGone) return;
      group->Add(*instance);
      on_change_();
    };
  };
  CRISP_TRY(Watch("imaged", add_to(imaged_group_)));
  CRISP_TRY(Watch("netd", add_to(netd_group_)));
  return Watch("rund",
               [this](const std::string& file, loop::DirEvent event) { OnRundFile(file, event); });
}

void Peers::OnRundFile(const std::string& file, loop::DirEvent event) {
  const bool there = event == loop::DirEvent::kAppeared;
  bool known = false;
  std::optional<std::string> instance = InstanceOf(file);
  const bool is_socket = instance.has_value();
  if (!instance) instance = InstanceOf(file, kRecordsEnd);
  if (!instance) return;
  {
    std::lock_guard lock(mutex_);
    RundFiles& files = rund_files_[*instance];
    (is_socket ? files.socket : files.records) = there;
    known = files.socket || files.records;
  }
  if (there) return AddRund(*instance);
  if (!known) ForgetRund(*instance);
}

void Peers::ForgetRund(const std::string& instance) {
  std::shared_ptr<RundClient> gone;  // ends its stream outside of the lock
  {
    std::lock_guard lock(mutex_);
    auto found = runds_.find(instance);
    if (found == runds_.end() || !view_.Forget(instance)) return;
    gone = std::move(found->second);
    runds_.erase(found);
  }
  gone.reset();
  view_.Forget(instance);  // what its stream has told meanwhile
  log::Info("rund has left", {{"rund", instance}});
}

void Peers::Close() { closed_.request_stop(); }

void Peers::AddRund(const std::string& instance) {
  std::lock_guard lock(mutex_);
  if (auto found = runds_.find(instance); found != runds_.end()) {
    found->second->peer().Poke();
    return;
  }
  view_.Add(instance);
  runds_.emplace(instance, std::make_shared<RundClient>(instance, options_, closed_.get_token(),
                                                        view_, on_change_));
}

std::vector<std::shared_ptr<Rund>> Peers::Runds() {
  std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<Rund>> out;
  for (const auto& [name, rund] : runds_) out.push_back(rund);
  return out;
}

std::shared_ptr<Rund> Peers::RundOf(const std::string& instance) {
  std::lock_guard lock(mutex_);
  auto found = runds_.find(instance);
  return found == runds_.end() ? nullptr : found->second;
}

Netd& Peers::netd() { return *netd_; }
Imaged& Peers::imaged() { return *imaged_; }

rpc::Peer Peers::ImagedPeer() const { return imaged_group_->Pick(); }

bool Peers::NetdReady() const { return netd_group_->Pick().Ready(); }

std::optional<rpc::Peer> Peers::RundPeer(const std::string& instance) const {
  std::lock_guard lock(mutex_);
  auto found = runds_.find(instance);
  if (found == runds_.end()) return std::nullopt;
  return found->second->peer();
}

void Peers::StopContainer(work::Pool& pool, const CallContext& cc, const std::string& instance,
                          const std::string& id, std::int64_t grace_seconds,
                          std::function<void(Result<rund::v1::StopContainerResponse>)> done) {
  std::shared_ptr<RundClient> rund;
  {
    std::lock_guard lock(mutex_);
    if (auto found = runds_.find(instance); found != runds_.end()) rund = found->second;
  }
  if (rund == nullptr) return done(Unavailable("rund/{} is away", instance));
  rund::v1::StopContainerRequest request;
  request.set_container_id(id);
  request.set_grace_seconds(grace_seconds);
  const auto grace = std::chrono::seconds(std::clamp<std::int64_t>(grace_seconds, 0, 86'400 * 365));
  std::make_shared<StopAttempts>(pool, cc.Detached(grace + kStopMargin), std::move(rund),
                                 std::move(request), std::move(done))
      ->Next();
}

Result<grpc::ByteBuffer> Peers::CallRaw(const CallContext& cc, const std::string& instance,
                                        const std::string& method, const grpc::ByteBuffer& request,
                                        rpc::CallOptions options) const {
  const auto peer = RundPeer(instance);
  if (!peer) return Unavailable("rund/{} is away", instance);
  return CallRaw(cc, *peer, method, request, options);
}

Result<grpc::ByteBuffer> Peers::CallRaw(const CallContext& cc, const rpc::Peer& peer,
                                        const std::string& method, const grpc::ByteBuffer& request,
                                        rpc::CallOptions options) {
  // See rpc::Forward: of a caller that went too early.
  if (!request.Valid()) return Cancelled("the caller went away");
  // Shaped as a stub, for rpc::Call.
  struct RawStub {
    const rpc::Peer& peer;
    const std::string& method;
    grpc::Status Send(grpc::ClientContext* context, const grpc::ByteBuffer& bytes,
                      grpc::ByteBuffer* answer) {
      return grpc::internal::BlockingUnaryCall(
          peer.channel().get(),
          grpc::internal::RpcMethod(method.c_str(), grpc::internal::RpcMethod::NORMAL_RPC), context,
          bytes, answer);
    }
  } stub{peer, method};
  return rpc::Call(cc, peer, stub, &RawStub::Send, request, options);
}

std::vector<rpc::Peer> Peers::All() const {
  std::vector<rpc::Peer> peers = imaged_group_->All();
  for (rpc::Peer& peer : netd_group_->All()) peers.push_back(std::move(peer));
  std::lock_guard lock(mutex_);
  for (const auto& [name, rund] : runds_) peers.push_back(rund->peer());
  return peers;
}

std::vector<Peers::DaemonInfo> Peers::Infos(const CallContext& cc) const {
  std::vector<DaemonInfo> out;
  for (const rpc::Peer& peer : All()) {
    if (!peer.Ready()) {
      out.push_back({peer.name(), Unavailable("{} is not running", peer.name())});
      continue;
    }
    out.push_back({peer.name(), rpc::Call(cc.Within(options_.status_answer), peer,
                                          *crisp::daemon::v1::Daemon::NewStub(peer.channel()),
                                          &crisp::daemon::v1::Daemon::Stub::Info,
                                          crisp::daemon::v1::InfoRequest())});
  }
  return out;
}

std::string Peers::WordsOf(const std::string& name, const std::string& request_id) const {
  // Its caller is about to be told that its time is over.
  constexpr std::chrono::milliseconds kPatience{300};
  const std::vector<rpc::Peer> peers = All();
  const auto peer = std::find_if(peers.begin(), peers.end(),
                                 [&name](const rpc::Peer& each) { return each.name() == name; });
  if (peer == peers.end() || !peer->Ready()) return {};
  crisp::daemon::v1::OperationsRequest request;
  request.set_request_id(request_id);
  const auto answer = rpc::Call(CallContext::Background(kPatience), *peer,
                                *crisp::daemon::v1::Daemon::NewStub(peer->channel()),
                                &crisp::daemon::v1::Daemon::Stub::Operations, request);
  if (answer.code() == Code::kDeadlineExceeded) return "it does not answer";
  if (!answer.ok() || answer->under_way().empty()) return {};
  return answer->under_way(0).times();
}

}  // namespace crisp::crid
