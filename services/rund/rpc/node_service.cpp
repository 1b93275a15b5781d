#include "services/rund/rpc/node_service.h"

#include "libs/rpc/unary.h"

namespace crisp::rund {

grpc::ServerUnaryReactor* NodeService::NodeStatus(grpc::CallbackServerContext* context,
                                                  const v1::NodeStatusRequest* request,
                                                  v1::NodeStatusResponse* response) {
  return rpc::Unary(pool_, work::Lane::kFast, context, request, response,
                    [this](const CallContext&, const auto&, auto& resp) {
                      resp = NodeStatusOf(parts_);
                      return Status::Ok();
                    });
}

}  // namespace crisp::rund
