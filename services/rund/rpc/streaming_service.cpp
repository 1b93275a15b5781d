#include "services/rund/rpc/streaming_service.h"

#include "libs/base/try.h"
#include "libs/rpc/unary.h"

namespace crisp::rund {

using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;
using work::Lane;

ServerUnaryReactor* StreamingService::Exec(CallbackServerContext* context,
                                           const runtime::v1::ExecRequest* request,
                                           runtime::v1::ExecResponse* response) {
  return rpc::Unary(pool_, Lane::kFast, context, request, response,
                    [this](const CallContext&, const auto& req, auto& resp) {
                      resp.set_url(CRISP_TRY(streams_.Exec(req)));
                      return Status::Ok();
                    });
}

ServerUnaryReactor* StreamingService::Attach(CallbackServerContext* context,
                                             const runtime::v1::AttachRequest* request,
                                             runtime::v1::AttachResponse* response) {
  return rpc::Unary(pool_, Lane::kFast, context, request, response,
                    [this](const CallContext&, const auto& req, auto& resp) {
                      resp.set_url(CRISP_TRY(streams_.Attach(req)));
                      return Status::Ok();
                    });
}

ServerUnaryReactor* StreamingService::PortForward(CallbackServerContext* context,
                                                  const runtime::v1::PortForwardRequest* request,
                                                  runtime::v1::PortForwardResponse* response) {
  return rpc::Unary(pool_, Lane::kFast, context, request, response,
                    [this](const CallContext&, const auto& req, auto& resp) {
                      resp.set_url(CRISP_TRY(streams_.PortForward(req)));
                      return Status::Ok();
                    });
}

}  // namespace crisp::rund
