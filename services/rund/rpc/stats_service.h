#pragma once

#include "crisp/rund/v1/stats.grpc.pb.h"
#include "libs/work/pool.h"
#include "services/rund/stats/stats.h"

namespace crisp::rund {

/// crisp.rund.v1.Stats: translates, nothing else.
class StatsService final : public v1::Stats::CallbackService {
 public:
  StatsService(work::Pool& pool, Stats& stats) : pool_(pool), stats_(stats) {}

  grpc::ServerUnaryReactor* ContainerStats(grpc::CallbackServerContext* context,
                                           const runtime::v1::ContainerStatsRequest* request,
                                           runtime::v1::ContainerStatsResponse* response) override;
  grpc::ServerUnaryReactor* ListContainerStats(
      grpc::CallbackServerContext* context, const runtime::v1::ListContainerStatsRequest* request,
      runtime::v1::ListContainerStatsResponse* response) override;
  grpc::ServerUnaryReactor* PodSandboxStats(
      grpc::CallbackServerContext* context, const runtime::v1::PodSandboxStatsRequest* request,
      runtime::v1::PodSandboxStatsResponse* response) override;
  grpc::ServerUnaryReactor* ListPodSandboxStats(
      grpc::CallbackServerContext* context, const runtime::v1::ListPodSandboxStatsRequest* request,
      runtime::v1::ListPodSandboxStatsResponse* response) override;
  grpc::ServerUnaryReactor* ListMetricDescriptors(
      grpc::CallbackServerContext* context,
      const runtime::v1::ListMetricDescriptorsRequest* request,
      runtime::v1::ListMetricDescriptorsResponse* response) override;
  grpc::ServerUnaryReactor* ListPodSandboxMetrics(
      grpc::CallbackServerContext* context,
      const runtime::v1::ListPodSandboxMetricsRequest* request,
      runtime::v1::ListPodSandboxMetricsResponse* response) override;

 private:
  work::Pool& pool_;
  Stats& stats_;
};

}  // namespace crisp::rund
