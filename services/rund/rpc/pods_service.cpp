#include "services/rund/rpc/pods_service.h"

#include "libs/base/try.h"
#include "libs/rpc/unary.h"

namespace crisp::rund {

using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;
using work::Lane;

ServerUnaryReactor* PodsService::ReservePod(CallbackServerContext* context,
                                            const v1::ReservePodRequest* request,
                                            v1::ReservePodResponse* response) {
  return rpc::Unary(pool_, Lane::kMutate, context, request, response,
                    [this](const CallContext&, const auto& req, auto& resp) {
                      resp = CRISP_TRY(pods_.Reserve(req));
                      return Status::Ok();
                    });
}

ServerUnaryReactor* PodsService::PreparePod(CallbackServerContext* context,
                                            const v1::PreparePodRequest* request,
                                            v1::PreparePodResponse* response) {
  return rpc::Unary(pool_, Lane::kMutate, context, request, response,
                    [this](const CallContext& cc, const auto& req, auto& resp) {
                      resp = CRISP_TRY(pods_.Prepare(cc, req));
                      return Status::Ok();
                    });
}

ServerUnaryReactor* PodsService::StartPod(CallbackServerContext* context,
                                          const v1::StartPodRequest* request,
                                          v1::StartPodResponse* response) {
  return rpc::Unary(pool_, Lane::kMutate, context, request, response,
                    [this](const CallContext& cc, const auto& req, auto& resp) {
                      resp.set_seq(CRISP_TRY(pods_.Start(cc, req)));
                      return Status::Ok();
                    });
}

// Stops and removes wait for processes to end: they must not keep creates from their threads.
ServerUnaryReactor* PodsService::StopPod(CallbackServerContext* context,
                                         const v1::StopPodRequest* request,
                                         v1::StopPodResponse* response) {
  return rpc::Unary(pool_, Lane::kWait, context, request, response,
                    [this](const CallContext& cc, const auto& req, auto& resp) {
                      resp.set_seq(CRISP_TRY(pods_.Stop(cc, PodId(req.pod_id()))));
                      return Status::Ok();
                    });
}

ServerUnaryReactor* PodsService::RemovePod(CallbackServerContext* context,
                                           const v1::RemovePodRequest* request,
                                           v1::RemovePodResponse* response) {
  return rpc::Unary(pool_, Lane::kWait, context, request, response,
                    [this](const CallContext& cc, const auto& req, auto& resp) {
                      resp = CRISP_TRY(pods_.RemoveIf(cc, PodId(req.pod_id()),
                                                      req.if_half_made() ? &IsHalfMade : nullptr));
                      return Status::Ok();
                    });
}

// Not inline: the verbose answer looks at the pod's files.
ServerUnaryReactor* PodsService::PodStatus(CallbackServerContext* context,
                                           const runtime::v1::PodSandboxStatusRequest* request,
                                           runtime::v1::PodSandboxStatusResponse* response) {
  const Lane lane = request->verbose() ? Lane::kMutate : Lane::kFast;
  return rpc::Unary(pool_, lane, context, request, response,
                    [this](const CallContext&, const auto& req, auto& resp) {
                      resp = CRISP_TRY(pods_.GetStatus(PodId(req.pod_sandbox_id()), req.verbose()));
                      return Status::Ok();
                    });
}

ServerUnaryReactor* PodsService::UpdatePodResources(
    CallbackServerContext* context, const runtime::v1::UpdatePodSandboxResourcesRequest* request,
    runtime::v1::UpdatePodSandboxResourcesResponse* response) {
  return rpc::Unary(pool_, Lane::kMutate, context, request, response,
                    [this](const CallContext& cc, const auto& req, auto&) {
                      return resources_.UpdatePod(cc, req);
                    });
}

}  // namespace crisp::rund
