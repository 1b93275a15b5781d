#pragma once

namespace crisp::rpc {

/// The request id travels in this metadata key, both ways.
inline constexpr char kRequestIdKey[] = "crisp-request-id";

}  // namespace crisp::rpc
