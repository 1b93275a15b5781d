#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "cri/v1/api.grpc.pb.h"
#include "libs/settings/settings.h"
#include "libs/work/pool.h"
#include "services/crid/core/container_flow.h"
#include "services/crid/core/pod_flow.h"
#include "services/crid/core/status_merge.h"
#include "services/crid/core/view.h"
#include "services/crid/rpc/observer.h"
#include "services/crid/rpc/peers.h"
#include "services/crid/rpc/unoffered.h"

namespace crisp::crid {

namespace internal {
using Runtime = runtime::v1::RuntimeService;
/// Raw: answered from bytes that are ready, or passed on as they came.
using RuntimeBase = Runtime::WithRawCallbackMethod_Version<
    Runtime::WithRawCallbackMethod_ListContainers<Runtime::WithRawCallbackMethod_ListPodSandbox<
        Runtime::WithRawCallbackMethod_PodSandboxStatus<
            Runtime::WithRawCallbackMethod_ContainerStatus<
                Runtime::WithRawCallbackMethod_CheckpointContainer<
                    Runtime::WithRawCallbackMethod_ReopenContainerLog<
                        Runtime::WithRawCallbackMethod_UpdateContainerResources<
                            Runtime::WithRawCallbackMethod_UpdatePodSandboxResources<
                                Runtime::WithRawCallbackMethod_ExecSync<
                                    Runtime::WithRawCallbackMethod_Exec<
                                        Runtime::WithRawCallbackMethod_Attach<
                                            Runtime::WithRawCallbackMethod_PortForward<
                                                Runtime::CallbackService>>>>>>>>>>>>>;
}  // namespace internal

/// CRI v1 RuntimeService.
class RuntimeService final : public ObservedMethods<internal::RawObserved<internal::RuntimeBase>> {
 public:
  /// `status_grace`: for so long Status does not mind that netd or a rund is away.
  RuntimeService(std::shared_ptr<View> view, Peers& peers, PodFlow& pods, ContainerFlow& containers,
                 work::Pool& pool, const settings::Settings& settings, std::string version,
                 std::chrono::nanoseconds status_grace = std::chrono::seconds(15));

  using Context = grpc::CallbackServerContext;
  using Unary = grpc::ServerUnaryReactor;
  using Raw = grpc::ByteBuffer;

  Unary* Version(Context* context, const Raw* request, Raw* response) override;
  Unary* Status(Context* context, const runtime::v1::StatusRequest* request,
                runtime::v1::StatusResponse* response) override;
  Unary* RuntimeConfig(Context* context, const runtime::v1::RuntimeConfigRequest* request,
                       runtime::v1::RuntimeConfigResponse* response) override;
  Unary* UpdateRuntimeConfig(Context* context,
                             const runtime::v1::UpdateRuntimeConfigRequest* request,
                             runtime::v1::UpdateRuntimeConfigResponse* response) override;

  Unary* RunPodSandbox(Context* context, const runtime::v1::RunPodSandboxRequest* request,
                       runtime::v1::RunPodSandboxResponse* response) override;
  Unary* StopPodSandbox(Context* context, const runtime::v1::StopPodSandboxRequest* request,
                        runtime::v1::StopPodSandboxResponse* response) override;
  Unary* RemovePodSandbox(Context* context, const runtime::v1::RemovePodSandboxRequest* request,
                          runtime::v1::RemovePodSandboxResponse* response) override;
  Unary* PodSandboxStatus(Context* context, const Raw* request, Raw* response) override;
  Unary* ListPodSandbox(Context* context, const Raw* request, Raw* response) override;

  Unary* CreateContainer(Context* context, const runtime::v1::CreateContainerRequest* request,
                         runtime::v1::CreateContainerResponse* response) override;
  Unary* StartContainer(Context* context, const runtime::v1::StartContainerRequest* request,
                        runtime::v1::StartContainerResponse* response) override;
  Unary* StopContainer(Context* context, const runtime::v1::StopContainerRequest* request,
                       runtime::v1::StopContainerResponse* response) override;
  Unary* RemoveContainer(Context* context, const runtime::v1::RemoveContainerRequest* request,
                         runtime::v1::RemoveContainerResponse* response) override;
  Unary* ListContainers(Context* context, const Raw* request, Raw* response) override;
  Unary* ContainerStatus(Context* context, const Raw* request, Raw* response) override;
  Unary* UpdateContainerResources(Context* context, const Raw* request, Raw* response) override;
  Unary* UpdatePodSandboxResources(Context* context, const Raw* request, Raw* response) override;
  Unary* CheckpointContainer(Context* context, const Raw* request, Raw* response) override;
  Unary* ReopenContainerLog(Context* context, const Raw* request, Raw* response) override;
  Unary* ExecSync(Context* context, const Raw* request, Raw* response) override;
  Unary* Exec(Context* context, const Raw* request, Raw* response) override;
  Unary* Attach(Context* context, const Raw* request, Raw* response) override;
  Unary* PortForward(Context* context, const Raw* request, Raw* response) override;

  CRISP_NOT_YET(CheckpointPod, CheckpointPodRequest, CheckpointPodResponse,
                "pods cannot be checkpointed")
  CRISP_NOT_YET(RestorePod, RestorePodRequest, RestorePodResponse, "pods cannot be restored")

 private:
  /// To the rund that has the object, its full id in place of a prefix.
  template <typename Request>
  Unary* PassOn(Context* context, const Raw* request, Raw* response, Kind kind,
                std::string* (Request::*mutable_id)(), const std::string& method,
                bool idempotent = true);
  template <typename Request, typename Filter>
  Unary* List(Context* context, const Raw* request, Raw* response, Kind kind, Filter filter);
  std::map<std::string, std::string> VerboseStatus(const CallContext& cc);

  const std::shared_ptr<View> view_;
  Peers& peers_;
  PodFlow& pods_;
  ContainerFlow& containers_;
  work::Pool& pool_;
  const settings::Settings& settings_;
  const std::string version_;
  StatusGrace grace_;
  grpc::ByteBuffer version_answer_;
};

}  // namespace crisp::crid
