#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "libs/base/trace.h"
#include "libs/metrics/registry.h"

namespace crisp::daemon {

/// Who the spans are of: the resource of OTLP.
struct TraceSource {
  std::string service;   // "rund": service.name is "crisp-rund"
  std::string instance;  // service.instance.id
  std::string version;   // service.version
};

/// Sends spans to a collector by OTLP over gRPC, in the background and in batches: no call waits
/// for it. While the collector is away spans are dropped, and counted. One for each process: makes
/// itself the sink of trace::Start, and ends that.
class OtlpExporter {
 public:
  /// `endpoint`: "host:port", or "unix:/path"; plain gRPC. `per_million`: see trace::Start.
  OtlpExporter(const std::string& endpoint, std::int64_t per_million, TraceSource source,
               metrics::Registry& registry);
  OtlpExporter(const OtlpExporter&) = delete;
  OtlpExporter& operator=(const OtlpExporter&) = delete;
  /// Sends what is left, for a moment.
  ~OtlpExporter();

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace crisp::daemon
