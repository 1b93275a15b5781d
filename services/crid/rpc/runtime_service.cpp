#include "services/crid/rpc/runtime_service.h"

#include <algorithm>
#include <atomic>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "libs/base/try.h"
#include "libs/json/json.h"
#include "libs/rpc/about.h"
#include "libs/rpc/forward.h"
#include "services/crid/core/status_merge.h"

namespace crisp::crid {
namespace {

using work::Lane;

// The health of the node must be told however many pods are stuck: nothing else runs in this lane.
constexpr Lane kStatusLane = Lane::kMutate;

/// The bytes themselves, held until gRPC has sent them.
grpc::ByteBuffer Shared(std::shared_ptr<const std::string> text) {
  auto* held = new std::shared_ptr<const std::string>(std::move(text));
  // gRPC only reads it.
  const grpc::Slice slice(
      const_cast<char*>((*held)->data()), (*held)->size(),
      [](void* data) { delete static_cast<std::shared_ptr<const std::string>*>(data); }, held);
  return {&slice, 1};
}

/// StopContainer under way: the caller may leave, the stop goes on.
class StopCall final : public grpc::ServerUnaryReactor,
                       public std::enable_shared_from_this<StopCall> {
 public:
  void Begin() { self_ = shared_from_this(); }
  void Reply(const Status& status) {
    if (!finished_.exchange(true)) Finish(rpc::ToGrpc(status));
  }
  bool finished() const { return finished_; }
  void OnCancel() override { Reply(Cancelled("the caller went away; the stop goes on")); }
  void OnDone() override {
    // The last reference may be this one.
    const auto keep = std::move(self_);
  }

 private:
  std::atomic<bool> finished_{false};
  std::shared_ptr<StopCall> self_;
};

}  // namespace

RuntimeService::RuntimeService(std::shared_ptr<View> view, Peers& peers, PodFlow& pods,
                               ContainerFlow& containers, work::Pool& pool,
                               const settings::Settings& settings, std::string version,
                               std::chrono::nanoseconds status_grace)
    : ObservedMethods(view, peers, pool),
      view_(std::move(view)),
      peers_(peers),
      pods_(pods),
      containers_(containers),
      pool_(pool),
      settings_(settings),
      version_(std::move(version)),
      grace_(Clock::System(), status_grace) {
  runtime::v1::VersionResponse answer;
  answer.set_version("0.1.0");  // of the kubelet's API family: the same in every runtime
  answer.set_runtime_name("crisp");
  answer.set_runtime_version(version_);
  answer.set_runtime_api_version("v1");
  version_answer_ = rpc::ToBytes(answer);
}

RuntimeService::Unary* RuntimeService::Version(Context* context, const Raw* /*request*/,
                                               Raw* response) {
  *response = version_answer_;
  Unary* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

RuntimeService::Unary* RuntimeService::Status(Context* context,
                                              const runtime::v1::StatusRequest* request,
                                              runtime::v1::StatusResponse* response) {
  return rpc::Unary(
      pool_, kStatusLane, context, request, response,
      [this](const CallContext& cc, const runtime::v1::StatusRequest& r,
             runtime::v1::StatusResponse& out) {
        std::vector<RundStatus> runds;
        for (const auto& rund : peers_.Runds()) {
          runds.push_back(grace_.Rund(rund->instance(), rund->NodeStatus(cc)));
        }
        out = MergeStatus(runds, grace_.Netd(peers_.netd().Status(cc)), peers_.imaged().Check(cc));
        if (r.verbose()) {
          for (auto& [key, value] : VerboseStatus(cc)) {
            (*out.mutable_info())[key] = std::move(value);
          }
          for (const RundStatus& rund : runds) {
            if (rund.answer.ok() && !rund.answer->info_json().empty()) {
              (*out.mutable_info())["rund/" + rund.instance] = rund.answer->info_json();
            }
          }
        }
        return crisp::Status::Ok();
      });
}

std::map<std::string, std::string> RuntimeService::VerboseStatus(const CallContext& cc) {
  nlohmann::json daemons = nlohmann::json::array();
  for (const Peers::DaemonInfo& daemon : peers_.Infos(cc)) {
    nlohmann::json one = {{"name", daemon.name}};
    if (daemon.info.ok()) {
      one["version"] = daemon.info->version();
      one["pid"] = daemon.info->pid();
      one["startedAt"] = daemon.info->started_at();
      one["draining"] = daemon.info->draining();
      one["problems"] = nlohmann::json::array();
      for (const auto& problem : daemon.info->problems()) {
        one["problems"].push_back({{"what", problem.what()}, {"hint", problem.hint()}});
      }
    } else {
      one["error"] = daemon.info.status().message();
    }
    daemons.push_back(std::move(one));
  }
  nlohmann::json runtimes = nlohmann::json::object();
  for (const auto& [name, runtime] : settings_.rund.runtimes) {
    runtimes[name] = {{"path", runtime.path}};
  }
  const nlohmann::json config = {
      {"stateRoot", settings_.state_root},
      {"runRoot", settings_.run_root},
      {"socket", settings_.crid.socket},
      {"metricsAddress", settings_.crid.metrics_address},
      {"cgroupDriver", settings_.rund.cgroup_driver},
      {"defaultRuntime", settings_.rund.default_runtime},
      {"runtimes", std::move(runtimes)},
      {"cniConfDirs", settings_.netd.conf_dirs},
      {"cniBinDirs", settings_.netd.bin_dirs},
  };
  return {{"config", json::Dump(config)},
          {"info", json::Dump({{"version", version_}, {"daemons", std::move(daemons)}})}};
}

RuntimeService::Unary* RuntimeService::RuntimeConfig(
    Context* context, const runtime::v1::RuntimeConfigRequest* request,
    runtime::v1::RuntimeConfigResponse* response) {
  return rpc::Unary(pool_, kStatusLane, context, request, response,
                    [this](const CallContext& cc, const runtime::v1::RuntimeConfigRequest& /*r*/,
                           runtime::v1::RuntimeConfigResponse& out) {
                      // rund knows best; without it the file that it reads too has the answer.
                      auto driver = settings_.rund.cgroup_driver == "systemd"
                                        ? runtime::v1::SYSTEMD
                                        : runtime::v1::CGROUPFS;
                      for (const auto& rund : peers_.Runds()) {
                        auto node = rund->NodeStatus(cc);
                        if (!node.ok()) continue;
                        driver = node->cgroup_driver();
                        break;
                      }
                      out.mutable_linux()->set_cgroup_driver(driver);
                      return crisp::Status::Ok();
                    });
}

RuntimeService::Unary* RuntimeService::UpdateRuntimeConfig(
    Context* context, const runtime::v1::UpdateRuntimeConfigRequest* /*request*/,
    runtime::v1::UpdateRuntimeConfigResponse* /*response*/) {
  // The pod CIDR that it carries is for runtimes which make their own CNI configuration.
  return rpc::Finish(context, crisp::Status::Ok());
}

RuntimeService::Unary* RuntimeService::RunPodSandbox(
    Context* context, const runtime::v1::RunPodSandboxRequest* request,
    runtime::v1::RunPodSandboxResponse* response) {
  return rpc::Unary(pool_, Lane::kSlowWait, context, request, response,
                    [this](const CallContext& cc, const auto& r, auto& out) {
                      out.set_pod_sandbox_id(CRISP_TRY(pods_.Run(cc, r)));
                      return crisp::Status::Ok();
                    });
}

RuntimeService::Unary* RuntimeService::StopPodSandbox(
    Context* context, const runtime::v1::StopPodSandboxRequest* request,
    runtime::v1::StopPodSandboxResponse* response) {
  return rpc::Unary(pool_, Lane::kWait, context, request, response,
                    [this](const CallContext& cc, const auto& r, auto& /*out*/) {
                      return pods_.Stop(cc, r.pod_sandbox_id());
                    });
}

RuntimeService::Unary* RuntimeService::RemovePodSandbox(
    Context* context, const runtime::v1::RemovePodSandboxRequest* request,
    runtime::v1::RemovePodSandboxResponse* response) {
  return rpc::Unary(pool_, Lane::kWait, context, request, response,
                    [this](const CallContext& cc, const auto& r, auto& /*out*/) {
                      return pods_.Remove(cc, r.pod_sandbox_id());
                    });
}

RuntimeService::Unary* RuntimeService::CreateContainer(
    Context* context, const runtime::v1::CreateContainerRequest* request,
    runtime::v1::CreateContainerResponse* response) {
  return rpc::Unary(pool_, Lane::kCreate, context, request, response,
                    [this](const CallContext& cc, const auto& r, auto& out) {
                      out.set_container_id(CRISP_TRY(containers_.Create(cc, r)));
                      return crisp::Status::Ok();
                    });
}

RuntimeService::Unary* RuntimeService::StartContainer(
    Context* context, const runtime::v1::StartContainerRequest* request,
    runtime::v1::StartContainerResponse* response) {
  return rpc::Unary(pool_, Lane::kCreate, context, request, response,
                    [this](const CallContext& cc, const auto& r, auto& /*out*/) {
                      return containers_.Start(cc, r.container_id());
                    });
}

RuntimeService::Unary* RuntimeService::RemoveContainer(
    Context* context, const runtime::v1::RemoveContainerRequest* request,
    runtime::v1::RemoveContainerResponse* response) {
  return rpc::Unary(pool_, Lane::kWait, context, request, response,
                    [this](const CallContext& cc, const auto& r, auto& /*out*/) {
                      return containers_.Remove(cc, r.container_id());
                    });
}

RuntimeService::Unary* RuntimeService::StopContainer(
    Context* context, const runtime::v1::StopContainerRequest* request,
    runtime::v1::StopContainerResponse* /*response*/) {
  auto call = std::make_shared<StopCall>();
  call->Begin();
  const CallContext cc =
      pool_.operations().Track(rpc::ContextOf(*context), rpc::AboutCall(*request));
  auto stop = [view = view_, &peers = peers_, &pool = pool_, call, cc,
               grace = request->timeout()](Result<RecordPtr> found) {
    if (found.code() == Code::kNotFound) return call->Reply(crisp::Status::Ok());
    if (!found.ok()) return call->Reply(found.status());
    const std::string instance = (*found)->instance;
    peers.StopContainer(pool, cc, instance, (*found)->id, std::max<std::int64_t>(grace, 0),
                        [view, call, cc, instance](auto answer) {
                          const crisp::Status told = cc.operation()->Answer(answer.status());
                          if (call->finished()) return;
                          if (!told.ok()) return call->Reply(told);
                          view->WhenSeq(instance, answer->seq(),
                                        [call] { call->Reply(crisp::Status::Ok()); });
                        });
  };
  if (auto found = view_->TryResolve(Kind::kContainer, request->container_id())) {
    stop(*std::move(found));
    return call.get();
  }
  crisp::Status submitted = pool_.Submit(
      Lane::kWait, cc,
      [view = view_, stop, cc, id = request->container_id()] {
        stop(view->Resolve(cc, Kind::kContainer, id));
      },
      [call](const crisp::Status& why) { call->Reply(why); });
  if (!submitted.ok()) call->Reply(submitted);
  return call.get();
}

template <typename Request>
RuntimeService::Unary* RuntimeService::PassOn(Context* context, const Raw* request, Raw* response,
                                              Kind kind, std::string* (Request::*mutable_id)(),
                                              const std::string& method, bool idempotent) {
  auto message = std::make_shared<Request>();
  if (auto parsed = rpc::ParseBytes(*request, *message); !parsed.ok()) {
    return rpc::Finish(context, parsed);
  }
  const std::string id = *(message.get()->*mutable_id)();
  if (auto found = view_->TryResolve(kind, id)) {
    if (!found->ok()) return rpc::Finish(context, found->status());
    const RecordPtr record = **found;
    const auto peer = peers_.RundPeer(record->instance);
    if (!peer) {
      return rpc::Finish(context, Unavailable("rund/{} is away", record->instance));
    }
    rpc::ForwardOptions options;
    options.idempotent = idempotent;
    options.operations = &pool_.operations();
    options.subjects = {record->id};
    if (record->id == id) {
      return rpc::Forward(context, request, response, *peer, method, std::move(options));
    }
    *(message.get()->*mutable_id)() = record->id;
    return rpc::Forward(context, rpc::ToBytes(*message), response, *peer, method,
                        std::move(options));
  }
  // Not known while a rund is away: waits for it on a thread.
  return rpc::Unary(
      pool_, Lane::kWait, context, request, response,
      [this, kind, id, message, mutable_id, method, idempotent](
          const CallContext& cc, const Raw& /*r*/, Raw& out) -> crisp::Status {
        const RecordPtr record = CRISP_TRY(view_->Resolve(cc, kind, id));
        *(message.get()->*mutable_id)() = record->id;
        out = CRISP_TRY(peers_.CallRaw(cc, record->instance, method, rpc::ToBytes(*message),
                                       {.idempotent = idempotent}));
        return crisp::Status::Ok();
      });
}

RuntimeService::Unary* RuntimeService::PodSandboxStatus(Context* context, const Raw* request,
                                                        Raw* response) {
  return PassOn<runtime::v1::PodSandboxStatusRequest>(
      context, request, response, Kind::kPod,
      &runtime::v1::PodSandboxStatusRequest::mutable_pod_sandbox_id,
      "/crisp.rund.v1.Pods/PodStatus");
}

RuntimeService::Unary* RuntimeService::ContainerStatus(Context* context, const Raw* request,
                                                       Raw* response) {
  return PassOn<runtime::v1::ContainerStatusRequest>(
      context, request, response, Kind::kContainer,
      &runtime::v1::ContainerStatusRequest::mutable_container_id,
      "/crisp.rund.v1.Containers/ContainerStatus");
}

RuntimeService::Unary* RuntimeService::UpdateContainerResources(Context* context,
                                                                const Raw* request, Raw* response) {
  return PassOn<runtime::v1::UpdateContainerResourcesRequest>(
      context, request, response, Kind::kContainer,
      &runtime::v1::UpdateContainerResourcesRequest::mutable_container_id,
      "/crisp.rund.v1.Containers/UpdateContainerResources");
}

RuntimeService::Unary* RuntimeService::UpdatePodSandboxResources(Context* context,
                                                                 const Raw* request,
                                                                 Raw* response) {
  return PassOn<runtime::v1::UpdatePodSandboxResourcesRequest>(
      context, request, response, Kind::kPod,
      &runtime::v1::UpdatePodSandboxResourcesRequest::mutable_pod_sandbox_id,
      "/crisp.rund.v1.Pods/UpdatePodResources");
}

RuntimeService::Unary* RuntimeService::CheckpointContainer(Context* context, const Raw* request,
                                                           Raw* response) {
  return PassOn<runtime::v1::CheckpointContainerRequest>(
      context, request, response, Kind::kContainer,
      &runtime::v1::CheckpointContainerRequest::mutable_container_id,
      "/crisp.rund.v1.Containers/CheckpointContainer", /*idempotent=*/false);
}

RuntimeService::Unary* RuntimeService::ReopenContainerLog(Context* context, const Raw* request,
                                                          Raw* response) {
  return PassOn<runtime::v1::ReopenContainerLogRequest>(
      context, request, response, Kind::kContainer,
      &runtime::v1::ReopenContainerLogRequest::mutable_container_id,
      "/crisp.rund.v1.Containers/ReopenContainerLog");
}

RuntimeService::Unary* RuntimeService::ExecSync(Context* context, const Raw* request,
                                                Raw* response) {
  return PassOn<runtime::v1::ExecSyncRequest>(context, request, response, Kind::kContainer,
                                              &runtime::v1::ExecSyncRequest::mutable_container_id,
                                              "/crisp.rund.v1.Containers/ExecSync",
                                              /*idempotent=*/false);
}

// An answer that got lost has given out a URL that nobody will use: asking again does no harm.
RuntimeService::Unary* RuntimeService::Exec(Context* context, const Raw* request, Raw* response) {
  return PassOn<runtime::v1::ExecRequest>(context, request, response, Kind::kContainer,
                                          &runtime::v1::ExecRequest::mutable_container_id,
                                          "/crisp.rund.v1.Streaming/Exec");
}

RuntimeService::Unary* RuntimeService::Attach(Context* context, const Raw* request, Raw* response) {
  return PassOn<runtime::v1::AttachRequest>(context, request, response, Kind::kContainer,
                                            &runtime::v1::AttachRequest::mutable_container_id,
                                            "/crisp.rund.v1.Streaming/Attach");
}

RuntimeService::Unary* RuntimeService::PortForward(Context* context, const Raw* request,
                                                   Raw* response) {
  return PassOn<runtime::v1::PortForwardRequest>(
      context, request, response, Kind::kPod,
      &runtime::v1::PortForwardRequest::mutable_pod_sandbox_id,
      "/crisp.rund.v1.Streaming/PortForward");
}

template <typename Request, typename Filter>
RuntimeService::Unary* RuntimeService::List(Context* context, const Raw* request, Raw* response,
                                            Kind kind, Filter filter) {
  auto answer = [this, kind, filter](const Raw& bytes, std::shared_ptr<const std::string>& out) {
    if (bytes.Length() == 0) {
      out = view_->All(kind);
      return crisp::Status::Ok();
    }
    Request message;
    CRISP_TRY(rpc::ParseBytes(bytes, message));
    out =
        message.filter().ByteSizeLong() == 0 ? view_->All(kind) : filter(*view_, message.filter());
    return crisp::Status::Ok();
  };
  std::shared_ptr<const std::string> list;
  crisp::Status status = answer(*request, list);
  if (!status.ok()) return rpc::Finish(context, status);
  if (list != nullptr) {
    *response = Shared(std::move(list));
    Unary* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
  return rpc::Unary(pool_, Lane::kWait, context, request, response,
                    [this, answer](const CallContext& cc, const Raw& r, Raw& out) -> crisp::Status {
                      const CallContext within = cc.Within(view_->peer_wait());
                      std::shared_ptr<const std::string> late;
                      while (late == nullptr) {
                        CRISP_TRY(view_->WaitFresh(within));
                        CRISP_TRY(answer(r, late));
                      }
                      out = Shared(std::move(late));
                      return crisp::Status::Ok();
                    });
}

RuntimeService::Unary* RuntimeService::ListPodSandbox(Context* context, const Raw* request,
                                                      Raw* response) {
  return List<runtime::v1::ListPodSandboxRequest>(
      context, request, response, Kind::kPod,
      [](const View& view, const runtime::v1::PodSandboxFilter& f) { return view.Pods(f); });
}

RuntimeService::Unary* RuntimeService::ListContainers(Context* context, const Raw* request,
                                                      Raw* response) {
  return List<runtime::v1::ListContainersRequest>(
      context, request, response, Kind::kContainer,
      [](const View& view, const runtime::v1::ContainerFilter& f) { return view.Containers(f); });
}

}  // namespace crisp::crid
