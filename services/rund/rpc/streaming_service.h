#pragma once

#include "crisp/rund/v1/streaming.grpc.pb.h"
#include "libs/work/pool.h"
#include "services/rund/core/streams.h"

namespace crisp::rund {

/// crisp.rund.v1.Streaming: translates, nothing else.
class StreamingService final : public v1::Streaming::CallbackService {
 public:
  StreamingService(work::Pool& pool, Streams& streams) : pool_(pool), streams_(streams) {}

  grpc::ServerUnaryReactor* Exec(grpc::CallbackServerContext* context,
                                 const runtime::v1::ExecRequest* request,
                                 runtime::v1::ExecResponse* response) override;
  grpc::ServerUnaryReactor* Attach(grpc::CallbackServerContext* context,
                                   const runtime::v1::AttachRequest* request,
                                   runtime::v1::AttachResponse* response) override;
  grpc::ServerUnaryReactor* PortForward(grpc::CallbackServerContext* context,
                                        const runtime::v1::PortForwardRequest* request,
                                        runtime::v1::PortForwardResponse* response) override;

 private:
  work::Pool& pool_;
  Streams& streams_;
};

}  // namespace crisp::rund
