#pragma once

#include "crisp/netd/v1/netd.grpc.pb.h"
#include "libs/work/pool.h"
#include "services/netd/core/attach.h"

namespace crisp::netd {

/// crisp.netd.v1.Network over Networks: proto in, one call, proto out.
class NetworkService final : public v1::Network::CallbackService {
 public:
  NetworkService(Networks& networks, work::Pool& pool) : networks_(networks), pool_(pool) {}

  grpc::ServerUnaryReactor* Attach(grpc::CallbackServerContext* context,
                                   const v1::AttachRequest* request,
                                   v1::AttachResponse* response) override;
  grpc::ServerUnaryReactor* Detach(grpc::CallbackServerContext* context,
                                   const v1::DetachRequest* request,
                                   v1::DetachResponse* response) override;
  grpc::ServerUnaryReactor* Status(grpc::CallbackServerContext* context,
                                   const v1::StatusRequest* request,
                                   v1::StatusResponse* response) override;
  grpc::ServerUnaryReactor* Reconcile(grpc::CallbackServerContext* context,
                                      const v1::ReconcileRequest* request,
                                      v1::ReconcileResponse* response) override;

 private:
  Networks& networks_;
  work::Pool& pool_;
};

}  // namespace crisp::netd
