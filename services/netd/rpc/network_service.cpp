#include "services/netd/rpc/network_service.h"

#include <functional>
#include <set>
#include <utility>

#include "libs/base/try.h"
#include "libs/rpc/unary.h"

namespace crisp::netd {

using work::Lane;

namespace {

v1::AttachResponse ResponseOf(const PodNetwork& network) {
  v1::AttachResponse response;
  response.set_netns_path(network.netns_path);
  for (const std::string& ip : network.ips) response.add_ips(ip);
  response.set_cni_result(network.cni_result);
  return response;
}

}  // namespace

// A thread for each pod whose plugins run, as many as crid asks for at once: some that hang keep
// nobody else from a network.
grpc::ServerUnaryReactor* NetworkService::Attach(grpc::CallbackServerContext* context,
                                                 const v1::AttachRequest* request,
                                                 v1::AttachResponse* response) {
  return rpc::UnaryLater(
      pool_, Lane::kSlowFlight, context, request, response,
      [this](const CallContext& cc, const v1::AttachRequest& in,
             const std::function<void(Result<v1::AttachResponse>)>& reply) {
        const auto answer = [&reply](const PodNetwork& network) { reply(ResponseOf(network)); };
        const Result<PodNetwork> network =
            networks_.Attach(cc, PodId(in.pod_id()), in.config(), in.userns_path(), answer);
        if (!network.ok()) reply(network.status());
      });
}

// In a lane of its own: plugins that hang in ADD must not keep pods from ending, nor those that
// hang in DEL the rest of netd from going on.
grpc::ServerUnaryReactor* NetworkService::Detach(grpc::CallbackServerContext* context,
                                                 const v1::DetachRequest* request,
                                                 v1::DetachResponse* response) {
  return rpc::Unary(
      pool_, Lane::kSlowWait, context, request, response,
      [this](const CallContext& cc, const v1::DetachRequest& in, v1::DetachResponse&) {
        return networks_.Detach(cc, PodId(in.pod_id()));
      });
}

// From memory but for the first time, so not inline.
grpc::ServerUnaryReactor* NetworkService::Status(grpc::CallbackServerContext* context,
                                                 const v1::StatusRequest* request,
                                                 v1::StatusResponse* response) {
  return rpc::Unary(
      pool_, Lane::kWait, context, request, response,
      [this](const CallContext& cc, const v1::StatusRequest&, v1::StatusResponse& out) {
        NetworkState state = readiness_.State(cc);
        out.set_ready(state.ready);
        out.set_network_name(std::move(state.network));
        out.set_message(std::move(state.message));
        if (!state.ready) out.set_reason("NetworkPluginNotReady");
        if (state.in_grace) out.set_reason("NetworkPluginGrace");
        return crisp::Status::Ok();
      });
}

grpc::ServerUnaryReactor* NetworkService::Check(grpc::CallbackServerContext* context,
                                                const v1::CheckRequest* request,
                                                v1::CheckResponse* response) {
  return rpc::Unary(pool_, Lane::kMutate, context, request, response,
                    [this](const CallContext& cc, const v1::CheckRequest& in,
                           v1::CheckResponse& out) -> crisp::Status {
                      out.set_unasked(!CRISP_TRY(networks_.Check(cc, PodId(in.pod_id()))));
                      return crisp::Status::Ok();
                    });
}

grpc::ServerUnaryReactor* NetworkService::Reconcile(grpc::CallbackServerContext* context,
                                                    const v1::ReconcileRequest* request,
                                                    v1::ReconcileResponse* response) {
  return rpc::Unary(pool_, Lane::kBulk, context, request, response,
                    [this](const CallContext& cc, const v1::ReconcileRequest& in,
                           v1::ReconcileResponse& out) -> crisp::Status {
                      std::set<PodId> live;
                      for (const std::string& id : in.live_pod_ids()) live.insert(PodId(id));
                      for (const PodId& pod : CRISP_TRY(networks_.Reconcile(cc, live))) {
                        out.add_freed_pod_ids(pod.str());
                      }
                      return crisp::Status::Ok();
                    });
}

}  // namespace crisp::netd
