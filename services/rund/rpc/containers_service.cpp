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
  return rpc::Unary(pool_, Lane::kCreate, context, request, response,
                    [this](const CallContext& cc, const auto& req, auto& resp) {
                      resp.set_seq(CRISP_TRY(containers_.Create(cc, req)));
                      return Status::Ok();
                    });
}

ServerUnaryReactor* ContainersService::StartContainer(CallbackServerContext* context,
                                                      const v1::StartContainerRequest* request,
                                                      v1::StartContainerResponse* response) {
  return rpc::Unary(pool_, Lane::kCreate, context, request, response,
                    [this](const CallContext& cc, const auto& req, auto& resp) {
                      resp.set_seq(CRISP_TRY(containers_.Start(
                          cc, ContainerId(req.container_id()),
                          {.at = req.asked_at(), .caller_began = req.caller_began()})));
                      return Status::Ok();
                    });
}

ServerUnaryReactor* ContainersService::StopContainer(CallbackServerContext* context,
                                                     const v1::StopContainerRequest* request,
                                                     v1::StopContainerResponse* response) {
  using Reply = std::function<void(Result<v1::StopContainerResponse>)>;
  // It begins at once, however many creates, commands and removes hang.
  return rpc::UnaryLater(
      pool_, Lane::kStop, context, request, response,
      [this](const CallContext& cc, const v1::StopContainerRequest& req, const Reply& reply) {
        const auto stage = std::make_shared<work::Stage>(
            work::Stage::Elsewhere(cc, "wait for the end of the container's processes"));
        containers_.Stop(ContainerId(req.container_id()), std::chrono::seconds(req.grace_seconds()),
                         [reply, stage](Result<std::uint64_t> seq) {
                           if (!seq.ok()) return reply(seq.status());
                           v1::StopContainerResponse answer;
                           answer.set_seq(*seq);
                           reply(std::move(answer));
                         });
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

// Waits for a create or a start of that container which is under way.
ServerUnaryReactor* ContainersService::UpdateContainerResources(
    CallbackServerContext* context, const runtime::v1::UpdateContainerResourcesRequest* request,
    runtime::v1::UpdateContainerResourcesResponse* response) {
  return rpc::Unary(pool_, Lane::kWait, context, request, response,
                    [this](const CallContext& cc, const auto& req, auto&) {
                      return resources_.UpdateContainer(cc, req);
                    });
}

// For minutes, at the pace of a disk: in a lane that nothing else of ours waits in.
ServerUnaryReactor* ContainersService::CheckpointContainer(
    CallbackServerContext* context, const runtime::v1::CheckpointContainerRequest* request,
    runtime::v1::CheckpointContainerResponse* response) {
  return rpc::Unary(pool_, Lane::kSlowWait, context, request, response,
                    [this](const CallContext& cc, const auto& req, auto&) {
                      return checkpoints_.Write(cc, req);
                    });
}

ServerUnaryReactor* ContainersService::StageCheckpoint(CallbackServerContext* context,
                                                       const v1::StageCheckpointRequest* request,
                                                       v1::StageCheckpointResponse* response) {
  return rpc::Unary(pool_, Lane::kSlowWait, context, request, response,
                    [this](const CallContext& cc, const auto& req, auto& resp) {
                      resp = CRISP_TRY(checkpoints_.Stage(cc, req));
                      return Status::Ok();
                    });
}

ServerUnaryReactor* ContainersService::ReopenContainerLog(
    CallbackServerContext* context, const runtime::v1::ReopenContainerLogRequest* request,
    runtime::v1::ReopenContainerLogResponse* response) {
  return rpc::Unary(pool_, Lane::kStream, context, request, response,
                    [this](const CallContext& cc, const auto& req, auto&) {
                      return containers_.ReopenLog(cc, ContainerId(req.container_id()));
                    });
}

ServerUnaryReactor* ContainersService::ExecSync(CallbackServerContext* context,
                                                const runtime::v1::ExecSyncRequest* request,
                                                runtime::v1::ExecSyncResponse* response) {
  const SteadyTime asked_at = std::chrono::steady_clock::now();
  return rpc::Unary(pool_, Lane::kExec, context, request, response,
                    [this, asked_at](const CallContext& cc, const auto& req, auto& resp) {
                      resp = CRISP_TRY(containers_.ExecSync(cc, req, asked_at));
                      return Status::Ok();
                    });
}

}  // namespace crisp::rund
