#include "services/rund/rpc/stats_service.h"

#include "libs/base/try.h"
#include "libs/rpc/unary.h"
#include "services/rund/stats/metric_families.h"

namespace crisp::rund {

using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

namespace cri = runtime::v1;

namespace {
// Reads files, so not inline; not behind creates either.
constexpr work::Lane kLane = work::Lane::kBulk;
}  // namespace

ServerUnaryReactor* StatsService::ContainerStats(CallbackServerContext* context,
                                                 const cri::ContainerStatsRequest* request,
                                                 cri::ContainerStatsResponse* response) {
  return rpc::Unary(pool_, kLane, context, request, response,
                    [this](const CallContext& cc, const auto& req, auto& resp) {
                      resp = CRISP_TRY(stats_.Container(cc, ContainerId(req.container_id())));
                      return Status::Ok();
                    });
}

ServerUnaryReactor* StatsService::ListContainerStats(CallbackServerContext* context,
                                                     const cri::ListContainerStatsRequest* request,
                                                     cri::ListContainerStatsResponse* response) {
  return rpc::Unary(pool_, kLane, context, request, response,
                    [this](const CallContext& cc, const auto& req, auto& resp) {
                      resp = CRISP_TRY(stats_.Containers(cc, req.filter()));
                      return Status::Ok();
                    });
}

ServerUnaryReactor* StatsService::PodSandboxStats(CallbackServerContext* context,
                                                  const cri::PodSandboxStatsRequest* request,
                                                  cri::PodSandboxStatsResponse* response) {
  return rpc::Unary(pool_, kLane, context, request, response,
                    [this](const CallContext& cc, const auto& req, auto& resp) {
                      resp = CRISP_TRY(stats_.Pod(cc, PodId(req.pod_sandbox_id())));
                      return Status::Ok();
                    });
}

ServerUnaryReactor* StatsService::ListPodSandboxStats(
    CallbackServerContext* context, const cri::ListPodSandboxStatsRequest* request,
    cri::ListPodSandboxStatsResponse* response) {
  return rpc::Unary(pool_, kLane, context, request, response,
                    [this](const CallContext& cc, const auto& req, auto& resp) {
                      resp = CRISP_TRY(stats_.Pods(cc, req.filter()));
                      return Status::Ok();
                    });
}

ServerUnaryReactor* StatsService::ListMetricDescriptors(
    CallbackServerContext* context, const cri::ListMetricDescriptorsRequest* request,
    cri::ListMetricDescriptorsResponse* response) {
  return rpc::Unary(pool_, work::Lane::kFast, context, request, response,
                    [](const CallContext& /*cc*/, const auto& /*req*/, auto& resp) {
                      resp = MetricDescriptors();
                      return Status::Ok();
                    });
}

ServerUnaryReactor* StatsService::ListPodSandboxMetrics(
    CallbackServerContext* context, const cri::ListPodSandboxMetricsRequest* request,
    cri::ListPodSandboxMetricsResponse* response) {
  return rpc::Unary(pool_, kLane, context, request, response,
                    [this](const CallContext& cc, const auto& /*req*/, auto& resp) {
                      resp = CRISP_TRY(stats_.Metrics(cc));
                      return Status::Ok();
                    });
}

}  // namespace crisp::rund
