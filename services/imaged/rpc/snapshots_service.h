#pragma once

#include <chrono>
#include <functional>

#include "crisp/imaged/v1/imaged.grpc.pb.h"
#include "libs/work/pool.h"
#include "services/imaged/core/snapshots.h"

namespace crisp::imaged {

/// crisp.imaged.v1.Snapshots.
class SnapshotsService final : public v1::Snapshots::CallbackService {
 public:
  /// `on_released` is told when there may be something to delete.
  SnapshotsService(work::Pool& pool, Snapshots& snapshots, std::chrono::nanoseconds orphan_grace,
                   std::function<void()> on_released)
      : pool_(pool),
        snapshots_(snapshots),
        orphan_grace_(orphan_grace),
        on_released_(std::move(on_released)) {}

  grpc::ServerUnaryReactor* Prepare(grpc::CallbackServerContext* context,
                                    const v1::PrepareRequest* request,
                                    v1::PrepareResponse* response) override;
  grpc::ServerUnaryReactor* PrepareVolume(grpc::CallbackServerContext* context,
                                          const v1::PrepareVolumeRequest* request,
                                          v1::PrepareVolumeResponse* response) override;
  grpc::ServerUnaryReactor* Release(grpc::CallbackServerContext* context,
                                    const v1::ReleaseRequest* request,
                                    v1::ReleaseResponse* response) override;
  grpc::ServerUnaryReactor* Reconcile(grpc::CallbackServerContext* context,
                                      const v1::ReconcileRequest* request,
                                      v1::ReconcileResponse* response) override;

 private:
  work::Pool& pool_;
  imaged::Snapshots& snapshots_;
  const std::chrono::nanoseconds orphan_grace_;
  std::function<void()> on_released_;
};

}  // namespace crisp::imaged
