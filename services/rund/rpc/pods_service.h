#pragma once

#include "crisp/rund/v1/rund.grpc.pb.h"
#include "libs/work/pool.h"
#include "services/rund/core/pods.h"
#include "services/rund/core/resources.h"

namespace crisp::rund {

/// crisp.rund.v1.Pods: translates, nothing else.
class PodsService final : public v1::Pods::CallbackService {
 public:
  PodsService(work::Pool& pool, Pods& pods, Resources& resources)
      : pool_(pool), pods_(pods), resources_(resources) {}

  grpc::ServerUnaryReactor* ReservePod(grpc::CallbackServerContext* context,
                                       const v1::ReservePodRequest* request,
                                       v1::ReservePodResponse* response) override;
  grpc::ServerUnaryReactor* PreparePod(grpc::CallbackServerContext* context,
                                       const v1::PreparePodRequest* request,
                                       v1::PreparePodResponse* response) override;
  grpc::ServerUnaryReactor* StartPod(grpc::CallbackServerContext* context,
                                     const v1::StartPodRequest* request,
                                     v1::StartPodResponse* response) override;
  grpc::ServerUnaryReactor* StopPod(grpc::CallbackServerContext* context,
                                    const v1::StopPodRequest* request,
                                    v1::StopPodResponse* response) override;
  grpc::ServerUnaryReactor* RemovePod(grpc::CallbackServerContext* context,
                                      const v1::RemovePodRequest* request,
                                      v1::RemovePodResponse* response) override;
  grpc::ServerUnaryReactor* PodStatus(grpc::CallbackServerContext* context,
                                      const runtime::v1::PodSandboxStatusRequest* request,
                                      runtime::v1::PodSandboxStatusResponse* response) override;
  grpc::ServerUnaryReactor* UpdatePodResources(
      grpc::CallbackServerContext* context,
      const runtime::v1::UpdatePodSandboxResourcesRequest* request,
      runtime::v1::UpdatePodSandboxResourcesResponse* response) override;

 private:
  work::Pool& pool_;
  Pods& pods_;
  Resources& resources_;
};

}  // namespace crisp::rund
