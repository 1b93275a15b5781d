#pragma once

#include <grpcpp/grpcpp.h>

#include <string_view>

#include "libs/base/status.h"
#include "libs/rpc/unary.h"

// What the CRI knows and crisp does not offer yet answers UNIMPLEMENTED with a sentence that says
// so, which a person reads in an event or on a terminal. Clients fall back on the code.
namespace crisp::crid {

inline Status NotYet(std::string_view method, std::string_view why) {
  return Unimplemented("crisp does not offer {} yet: {}", method, why);
}

}  // namespace crisp::crid

#define CRISP_NOT_YET(Method, Request, Response, why)                                              \
  grpc::ServerUnaryReactor* Method(grpc::CallbackServerContext* context,                           \
                                   const runtime::v1::Request*, runtime::v1::Response*) override { \
    return rpc::Finish(context, NotYet(#Method, why));                                             \
  }
