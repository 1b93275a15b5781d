#pragma once

#include <grpcpp/grpcpp.h>

#include <string_view>

#include "libs/base/status.h"
#include "libs/rpc/status.h"
#include "libs/rpc/unary.h"

// What the CRI knows and crisp does not offer yet answers UNIMPLEMENTED with a sentence that says
// so, which a person reads in an event or on a terminal. Clients fall back on the code.
namespace crisp::crid {

inline Status NotYet(std::string_view method, std::string_view why) {
  return Unimplemented("crisp does not offer {} yet: {}", method, why);
}

/// A stream that ends at once.
template <typename Response>
grpc::ServerWriteReactor<Response>* FinishStream(const Status& status) {
  class Ended final : public grpc::ServerWriteReactor<Response> {
   public:
    explicit Ended(const Status& why) { this->Finish(rpc::ToGrpc(why)); }
    void OnDone() override { delete this; }
  };
  return new Ended(status);  // deletes itself in OnDone
}

}  // namespace crisp::crid

#define CRISP_NOT_YET(Method, Request, Response, why)                                              \
  grpc::ServerUnaryReactor* Method(grpc::CallbackServerContext* context,                           \
                                   const runtime::v1::Request*, runtime::v1::Response*) override { \
    return rpc::Finish(context, NotYet(#Method, why));                                             \
  }
#define CRISP_NO_STREAM_YET(Method, Request, Response, why)                                       \
  grpc::ServerWriteReactor<runtime::v1::Response>* Method(grpc::CallbackServerContext*,           \
                                                          const runtime::v1::Request*) override { \
    return FinishStream<runtime::v1::Response>(NotYet(#Method, why));                             \
  }
