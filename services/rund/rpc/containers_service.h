#pragma once

#include "crisp/rund/v1/rund.grpc.pb.h"
#include "libs/work/pool.h"
#include "services/rund/core/checkpoints.h"
#include "services/rund/core/containers.h"
#include "services/rund/core/resources.h"

namespace crisp::rund {

/// crisp.rund.v1.Containers: translates, nothing else.
class ContainersService final : public v1::Containers::CallbackService {
 public:
  ContainersService(work::Pool& pool, Containers& containers, Resources& resources,
                    Checkpoints& checkpoints)
      : pool_(pool), containers_(containers), resources_(resources), checkpoints_(checkpoints) {}

  grpc::ServerUnaryReactor* ReserveContainer(grpc::CallbackServerContext* context,
                                             const v1::ReserveContainerRequest* request,
                                             v1::ReserveContainerResponse* response) override;
  grpc::ServerUnaryReactor* CreateContainer(grpc::CallbackServerContext* context,
                                            const v1::CreateContainerRequest* request,
                                            v1::CreateContainerResponse* response) override;
  grpc::ServerUnaryReactor* StartContainer(grpc::CallbackServerContext* context,
                                           const v1::StartContainerRequest* request,
                                           v1::StartContainerResponse* response) override;
  grpc::ServerUnaryReactor* StopContainer(grpc::CallbackServerContext* context,
                                          const v1::StopContainerRequest* request,
                                          v1::StopContainerResponse* response) override;
  grpc::ServerUnaryReactor* RemoveContainer(grpc::CallbackServerContext* context,
                                            const v1::RemoveContainerRequest* request,
                                            v1::RemoveContainerResponse* response) override;
  grpc::ServerUnaryReactor* ContainerStatus(
      grpc::CallbackServerContext* context, const runtime::v1::ContainerStatusRequest* request,
      runtime::v1::ContainerStatusResponse* response) override;
  grpc::ServerUnaryReactor* UpdateContainerResources(
      grpc::CallbackServerContext* context,
      const runtime::v1::UpdateContainerResourcesRequest* request,
      runtime::v1::UpdateContainerResourcesResponse* response) override;
  grpc::ServerUnaryReactor* CheckpointContainer(
      grpc::CallbackServerContext* context, const runtime::v1::CheckpointContainerRequest* request,
      runtime::v1::CheckpointContainerResponse* response) override;
  grpc::ServerUnaryReactor* StageCheckpoint(grpc::CallbackServerContext* context,
                                            const v1::StageCheckpointRequest* request,
                                            v1::StageCheckpointResponse* response) override;
  grpc::ServerUnaryReactor* ReopenContainerLog(
      grpc::CallbackServerContext* context, const runtime::v1::ReopenContainerLogRequest* request,
      runtime::v1::ReopenContainerLogResponse* response) override;
  grpc::ServerUnaryReactor* ExecSync(grpc::CallbackServerContext* context,
                                     const runtime::v1::ExecSyncRequest* request,
                                     runtime::v1::ExecSyncResponse* response) override;

 private:
  work::Pool& pool_;
  Containers& containers_;
  Resources& resources_;
  Checkpoints& checkpoints_;
};

}  // namespace crisp::rund
