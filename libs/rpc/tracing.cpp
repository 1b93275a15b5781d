#include "libs/rpc/tracing.h"

#include <string_view>

namespace crisp::rpc {

trace::Context TraceOf(const grpc::CallbackServerContext& context) {
  if (!trace::Enabled()) return {};
  const auto& metadata = context.client_metadata();
  const auto found = metadata.find(kSpanKey);
  if (found == metadata.end()) return {};
  return trace::ParseParent({found->second.data(), found->second.size()})
      .value_or(trace::Context{});
}

void SendTrace(grpc::ClientContext& context, const trace::Context& trace) {
  if (trace.valid()) context.AddMetadata(kTraceParentKey, trace::ToParent(trace));
}

}  // namespace crisp::rpc
