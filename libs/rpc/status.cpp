#include "libs/rpc/status.h"

#include <string>

namespace crisp::rpc {
namespace {

/// A trailer must fit gRPC's default limit of 8 KiB of metadata, percent-encoded.
constexpr std::size_t kMaxMessage = 4096;

}  // namespace

grpc::Status ToGrpc(const Status& status) {
  if (status.ok()) return grpc::Status::OK;
  std::string message = status.message();
  if (message.size() > kMaxMessage) {
    std::size_t cut = kMaxMessage;
    while (cut > 0 && (static_cast<unsigned char>(message[cut]) & 0xC0U) == 0x80U) --cut;
    message.resize(cut);
    message += " ...";
  }
  return {static_cast<grpc::StatusCode>(status.code()), message};
}

Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return Status::Ok();
  const int code = status.error_code();
  const bool known = code > 0 && code <= static_cast<int>(Code::kUnauthenticated);
  return {known ? static_cast<Code>(code) : Code::kUnknown, status.error_message()};
}

}  // namespace crisp::rpc
