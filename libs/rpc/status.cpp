#include "libs/rpc/status.h"

#include <string>
#include <string_view>

#include "libs/base/text.h"

namespace crisp::rpc {
namespace {

/// A trailer must fit gRPC's default limit of 8 KiB of metadata, percent-encoded.
constexpr std::size_t kMaxMessage = 4096;
constexpr std::size_t kMaxEncoded = 6144;

/// What the byte takes on the wire.
std::size_t EncodedSize(char c) { return c >= ' ' && c <= '~' && c != '%' ? 1 : 3; }

/// How many bytes of the text may be sent; whole characters where it is UTF-8.
std::size_t SendableSize(std::string_view text) {
  std::size_t encoded = 0;
  std::size_t cut = 0;
  while (cut < text.size() && cut < kMaxMessage) {
    encoded += EncodedSize(text[cut]);
    if (encoded > kMaxEncoded) break;
    ++cut;
  }
  if (cut == text.size()) return cut;
  constexpr std::size_t kLongestTail = 3;
  for (std::size_t back = 0; back <= kLongestTail && back < cut; ++back) {
    if (!IsUtf8Tail(text[cut - back])) return cut - back;
  }
  return cut;
}

}  // namespace

grpc::Status ToGrpc(const Status& status) {
  if (status.ok()) return grpc::Status::OK;
  std::string message = status.message();
  if (const std::size_t size = SendableSize(message); size < message.size()) {
    message.resize(size);
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
