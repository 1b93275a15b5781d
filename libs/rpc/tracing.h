#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/server_context.h>

#include "libs/base/trace.h"

namespace crisp::rpc {

/// The metadata of a call that says which trace it belongs to, as the W3C has it.
inline constexpr char kTraceParentKey[] = "traceparent";
/// Where the server leaves the call's own span for its handler; nobody sends it.
inline constexpr char kSpanKey[] = "crisp-span";

/// The span of a call that has come in; not valid where traces are off.
trace::Context TraceOf(const grpc::CallbackServerContext& context);
/// Says to the peer which span the call is made for.
void SendTrace(grpc::ClientContext& context, const trace::Context& trace = trace::Current());

}  // namespace crisp::rpc
