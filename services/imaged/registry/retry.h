#pragma once

#include <chrono>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/http/client.h"

namespace crisp::imaged {

/// The pause before the next try, where `tries` (from 0) came to nothing: 250 ms, doubled each time
/// up to 8 s, and up to a half less, so that not all nodes of a cluster come at the same moment.
std::chrono::nanoseconds BackOff(int tries);

/// Client::Send, for a server that has its moments: 429, 408 and 5xx are asked again, after the
/// time that the server names (30 s at most) or with back-off, and so is a connection that cannot
/// be had or breaks; three tries after the first, or two where nobody answers. The last answer or
/// error is the call's.
Result<http::Response> SendPatiently(const CallContext& cc, http::Client& client,
                                     const http::Request& request);

}  // namespace crisp::imaged
