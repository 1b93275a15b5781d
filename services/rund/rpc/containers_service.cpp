#include "services/rund/rpc/containers_service.h"

#include "libs/base/try.h"
#include "libs/rpc/unary.h"

namespace crisp::rund {

using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;
using work::Lane;

ServerUnaryReactor* ContainersService::ReserveContainer(CallbackServerContext* context,
                                                        const v1::ReserveContainerRequest* request,
                                                        v1::ReserveContainerResponse* response) {
  return rpc::Unary(pool_, Lane::kMutate, context, request, response,
                    [this](const CallContext&, const auto& req, auto& resp) {
                      resp = CRISP_TRY(containers_.Reserve(req));
                      return Status::Ok();
                    });
}

ServerUnaryReactor* ContainersService::CreateContainer(CallbackServerContext* context,
                                                       const v1::CreateContainerRequest* request,
                                                       v1::CreateContainerResponse* response) {
  return rpc::Unary(pool_, Lane::kMutate, context, request, response,
                    [this](const CallContext& cc, const auto& req, auto& resp) {
                      resp.set_seq(CRISP_TRY(containers_.Create(cc, req)));
                      return Status::Ok();
                    });
}

ServerUnaryReactor* ContainersService::StartContainer(CallbackServerContext* context,
                                                      const v1::StartContainerRequest* request,
                                                      v1::StartContainerResponse* response) {
  return rpc::Unary(
      pool_, Lane::kMutate, context, request, response,
      [this](const CallContext& cc, const auto& req, auto& resp) {
        resp.set_seq(CRISP_TRY(containers_.Start(cc, ContainerId(req.container_id()))));
        return Status::Ok();
      });
}

ServerUnaryReactor* ContainersService::StopContainer(CallbackServerContext* context,
                                                     const v1::StopContainerRequest* request,
                                                     v1::StopContainerResponse* response) {
  return rpc::Unary(
      pool_, Lane::kWait, context, request, response,
      [this](const CallContext& cc, const auto& req, auto& resp) {
        resp.set_seq(CRISP_TRY(containers_.Stop(cc, ContainerId(req.container_id()),
                                                std::chrono::seconds(req.grace_seconds()))));
        return Status::Ok();
      });
}

ServerUnaryReactor* ContainersService::RemoveContainer(CallbackServerContext* context,
                                                       const v1::RemoveContainerRequest* request,
                                                       v1::RemoveContainerResponse* response) {
  return rpc::Unary(
      pool_, Lane::kWait, context, request, response,
      [this](const CallContext& cc, const auto& req, auto& resp) {
        resp.set_seq(CRISP_TRY(containers_.Remove(cc, ContainerId(req.container_id()))));
        return Status::Ok();
      });
}

// Not inline: the verbose answer reads the bundle.
ServerUnaryReactor* ContainersService::ContainerStatus(
    CallbackServerContext* context, const runtime::v1::ContainerStatusRequest* request,
    runtime::v1::ContainerStatusResponse* response) {
  const Lane lane = request->verbose() ? Lane::kMutate : Lane::kFast;
  return rpc::Unary(
      pool_, lane, context, request, response,
      [this](const CallContext&, const auto& req, auto& resp) {
        resp = CRISP_TRY(containers_.GetStatus(ContainerId(req.container_id()), req.verbose()));
        return Status::Ok();
      });
}

ServerUnaryReactor* ContainersService::ReopenContainerLog(
    CallbackServerContext* context, const runtime::v1::ReopenContainerLogRequest* request,
    runtime::v1::ReopenContainerLogResponse* response) {
  return rpc::Unary(pool_, Lane::kMutate, context, request, response,
                    [this](const CallContext& cc, const auto& req, auto&) {
                      return containers_.ReopenLog(cc, ContainerId(req.container_id()));
                    });
}

ServerUnaryReactor* ContainersService::ExecSync(CallbackServerContext* context,
                                                const runtime::v1::ExecSyncRequest* request,
                                                runtime::v1::ExecSyncResponse* response) {
  return rpc::Unary(pool_, Lane::kWait, context, request, response,
                    [this](const CallContext& cc, const auto& req, auto& resp) {
                      resp = CRISP_TRY(containers_.ExecSync(cc, req));
                      return Status::Ok();
                    });
}

}  // namespace crisp::rund
