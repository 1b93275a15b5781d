#pragma once

#include "crisp/rund/v1/rund.grpc.pb.h"
#include "libs/work/pool.h"
#include "services/rund/core/node.h"

namespace crisp::rund {

/// crisp.rund.v1.Node: translates, nothing else.
class NodeService final : public v1::Node::CallbackService {
 public:
  NodeService(work::Pool& pool, const Parts& parts) : pool_(pool), parts_(parts) {}

  grpc::ServerUnaryReactor* NodeStatus(grpc::CallbackServerContext* context,
                                       const v1::NodeStatusRequest* request,
                                       v1::NodeStatusResponse* response) override;

 private:
  work::Pool& pool_;
  const Parts& parts_;
};

}  // namespace crisp::rund
