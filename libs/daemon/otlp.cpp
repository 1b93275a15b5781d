#include "libs/daemon/otlp.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "libs/log/log.h"
#include "libs/rpc/status.h"
#include "opentelemetry/trace.grpc.pb.h"

namespace crisp::daemon {
namespace {

namespace otlp = opentelemetry::proto::collector::trace::v1;

/// Spans that wait; more are dropped.
constexpr std::size_t kMaxWaiting = 4096;
/// As soon as there are so many, or some have waited for this long, they are sent.
constexpr std::size_t kBatch = 512;
constexpr std::chrono::seconds kLongest{2};
constexpr std::chrono::seconds kExport{5};
/// For the last ones, when the process ends.
constexpr std::chrono::milliseconds kLast{500};

template <std::size_t N>
std::string Bytes(const std::array<std::uint8_t, N>& id) {
  return {id.begin(), id.end()};
}

std::uint64_t UnixNanos(std::chrono::system_clock::time_point time) {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count());
}

void Add(google::protobuf::RepeatedPtrField<otlp::KeyValue>& attributes, const std::string& key,
         const std::string& value) {
  otlp::KeyValue* attribute = attributes.Add();
  attribute->set_key(key);
  attribute->mutable_value()->set_string_value(value);
}

otlp::Span::SpanKind KindOf(trace::Kind kind) {
  switch (kind) {
    case trace::Kind::kServer: return otlp::Span::SPAN_KIND_SERVER;
    case trace::Kind::kClient: return otlp::Span::SPAN_KIND_CLIENT;
    case trace::Kind::kInternal: break;
  }
  return otlp::Span::SPAN_KIND_INTERNAL;
}

void Fill(const trace::SpanData& span, otlp::Span& out) {
  out.set_trace_id(Bytes(span.context.trace));
  out.set_span_id(Bytes(span.context.span));
  if (span.parent != trace::SpanId{}) out.set_parent_span_id(Bytes(span.parent));
  out.set_name(span.name);
  out.set_kind(KindOf(span.kind));
  out.set_start_time_unix_nano(UnixNanos(span.start));
  out.set_end_time_unix_nano(UnixNanos(span.end));
  for (const auto& [key, value] : span.attributes) Add(*out.mutable_attributes(), key, value);
  if (span.status.ok()) return;
  Add(*out.mutable_attributes(), "rpc.grpc.status", CodeName(span.status.code()));
  out.mutable_status()->set_code(otlp::Status::STATUS_CODE_ERROR);
  out.mutable_status()->set_message(span.status.message());
}

}  // namespace

/// Held by the sink too: a call that ends late finds it.
struct OtlpExporter::Impl {
  Impl(const std::string& endpoint, TraceSource from, metrics::Registry& registry)
      : source(std::move(from)),
        stub(otlp::TraceService::NewStub(
            grpc::CreateChannel(endpoint, grpc::InsecureChannelCredentials()))),
        exported(registry.AddCounter(fmt::format("crisp_{}_spans_exported_total", source.service),
                                     "Spans that the collector has taken")),
        dropped(registry.AddCounter(fmt::format("crisp_{}_spans_dropped_total", source.service),
                                    "Spans that were lost: the collector is away or too slow")) {}

  void Put(trace::SpanData span) {
    std::unique_lock lock(mutex);
    if (ending || waiting.size() >= kMaxWaiting) {
      lock.unlock();
      return dropped.Add();
    }
    waiting.push_back(std::move(span));
    if (waiting.size() >= kBatch) changed.notify_all();
  }

  void Serve() {
    std::unique_lock lock(mutex);
    while (!ending) {
      changed.wait_for(lock, kLongest, [this] { return ending || waiting.size() >= kBatch; });
      if (!ending) SendAll(lock, kExport);
    }
    SendAll(lock, kLast);
  }

  /// `lock` is held before and after, not while it sends.
  void SendAll(std::unique_lock<std::mutex>& lock, std::chrono::nanoseconds timeout) {
    if (waiting.empty()) return;
    const std::vector<trace::SpanData> batch = std::exchange(waiting, {});
    lock.unlock();
    const Status sent = Send(batch, timeout);
    (sent.ok() ? exported : dropped).Add(static_cast<double>(batch.size()));
    // Said when it begins and when it is over, not for each batch.
    if (sent.ok() == failing) {
      failing = !failing;
      if (failing) {
        log::Warn("traces are lost: the collector does not take them", {{"error", sent}});
      } else {
        log::Info("the collector takes traces again");
      }
    }
    lock.lock();
  }

  Status Send(const std::vector<trace::SpanData>& batch, std::chrono::nanoseconds timeout) {
    otlp::ExportTraceServiceRequest request;
    otlp::ResourceSpans* spans = request.add_resource_spans();
    auto& resource = *spans->mutable_resource()->mutable_attributes();
    Add(resource, "service.name", "crisp-" + source.service);
    Add(resource, "service.instance.id", source.instance);
    Add(resource, "service.version", source.version);
    otlp::ScopeSpans* scope = spans->add_scope_spans();
    scope->mutable_scope()->set_name("crisp");
    scope->mutable_scope()->set_version(source.version);
    for (const trace::SpanData& span : batch) Fill(span, *scope->add_spans());
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::duration_cast<std::chrono::microseconds>(timeout));
    {
      const std::lock_guard lock(mutex);
      under_way = &context;
    }
    otlp::ExportTraceServiceResponse response;
    const grpc::Status status = stub->Export(&context, request, &response);
    const std::lock_guard lock(mutex);
    under_way = nullptr;
    return rpc::FromGrpc(status);
  }

  /// A collector that hangs must not keep the process.
  void End() {
    const std::lock_guard lock(mutex);
    ending = true;
    if (under_way != nullptr) under_way->TryCancel();
    changed.notify_all();
  }

  const TraceSource source;
  const std::unique_ptr<otlp::TraceService::Stub> stub;
  metrics::Counter& exported;
  metrics::Counter& dropped;
  bool failing = false;  // the thread's
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<trace::SpanData> waiting;
  grpc::ClientContext* under_way = nullptr;
  bool ending = false;
  std::thread thread;
};

OtlpExporter::OtlpExporter(const std::string& endpoint, std::int64_t per_million,
                           TraceSource source, metrics::Registry& registry)
    : impl_(std::make_shared<Impl>(endpoint, std::move(source), registry)) {
  impl_->thread = std::thread([impl = impl_.get()] { impl->Serve(); });
  trace::Start([impl = impl_](trace::SpanData span) { impl->Put(std::move(span)); }, per_million);
}

OtlpExporter::~OtlpExporter() {
  trace::Start(nullptr, 0);
  impl_->End();
  impl_->thread.join();
}

}  // namespace crisp::daemon
