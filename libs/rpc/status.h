#pragma once

#include <grpcpp/support/status.h>

#include "libs/base/status.h"

namespace crisp::rpc {

/// Code by code, message as it is (cut at 8 KiB: it travels in an HTTP/2 trailer).
grpc::Status ToGrpc(const Status& status);
Status FromGrpc(const grpc::Status& status);

}  // namespace crisp::rpc
