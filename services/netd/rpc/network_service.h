#pragma once

#include "crisp/netd/v1/netd.grpc.pb.h"
#include "libs/work/pool.h"
#include "services/netd/core/attach.h"

namespace crisp::netd {

/// crisp.netd.v1.Network over Networks: proto in, one call, proto out.
class NetworkService final : public v1::Network::CallbackService {
 public:
  NetworkService(Networks& networks, Readiness& readiness, work::Pool& pool)
      : networks_(networks), readiness_(readiness), pool_(pool) {}

  grpc::ServerUnaryReactor* Attach(grpc::CallbackServerContext* context,
                                   const v1::AttachRequest* request,
                                   v1::AttachResponse* response) override;
  grpc::ServerUnaryReactor* Detach(grpc::CallbackServerContext* context,
                                   const v1::DetachRequest* request,
                                   v1::DetachResponse* response) override;
  grpc::ServerUnaryReactor* Status(grpc::CallbackServerContext* context,
                                   const v1::StatusRequest* request,
                                   v1::StatusResponse* response) override;
  grpc::ServerUnaryReactor* Check(grpc::CallbackServerContext* context,
                                  const v1::CheckRequest* request,
                                  v1::CheckResponse* response) override;
  grpc::ServerUnaryReactor* Reconcile(grpc::CallbackServerContext* context,
                                      const v1::ReconcileRequest* request,
                                      v1::ReconcileResponse* response) override;

 private:
  Networks& networks_;
  Readiness& readiness_;
  work::Pool& pool_;
};

}  // namespace crisp::netd
