#include "libs/daemon/otlp.h"

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <mutex>

#include "crisp/daemon/v1/daemon.grpc.pb.h"
#include "libs/rpc/peer.h"
#include "libs/rpc/server.h"
#include "libs/rpc/unary.h"
#include "libs/testing/test_root.h"
#include "opentelemetry/trace.grpc.pb.h"

using namespace std::chrono_literals;

namespace crisp::daemon {
namespace {

namespace otlp = opentelemetry::proto::collector::trace::v1;

constexpr const char* kKubelet = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A collector that keeps what it gets.
class Collector final : public otlp::TraceService::Service {
 public:
  explicit Collector(const std::string& socket) : endpoint_("unix:" + socket) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort(endpoint_, grpc::InsecureServerCredentials());
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    REQUIRE(server_ != nullptr);
  }
  ~Collector() override { server_->Shutdown(std::chrono::system_clock::now()); }

  const std::string& endpoint() const { return endpoint_; }
  grpc::Status Export(grpc::ServerContext* /*context*/,
                      const otlp::ExportTraceServiceRequest* request,
                      otlp::ExportTraceServiceResponse* /*response*/) override {
    const std::lock_guard lock(mutex_);
    for (const auto& resource : request->resource_spans()) all_.push_back(resource);
    return grpc::Status::OK;
  }
  std::vector<otlp::ResourceSpans> all() const {
    const std::lock_guard lock(mutex_);
    return all_;
  }

 private:
  const std::string endpoint_;
  mutable std::mutex mutex_;
  std::vector<otlp::ResourceSpans> all_;
  std::unique_ptr<grpc::Server> server_;
};

/// A daemon that asks another one, or has nobody to ask.
class Hop final : public v1::Daemon::CallbackService {
 public:
  Hop(work::Pool& pool, const rpc::Peer* next) : pool_(pool), next_(next) {}

  grpc::ServerUnaryReactor* Info(grpc::CallbackServerContext* context,
                                 const v1::InfoRequest* request,
                                 v1::InfoResponse* response) override {
    return rpc::Unary(pool_, work::Lane::kMutate, context, request, response,
                      [this](const CallContext& cc, const v1::InfoRequest& r,
                             v1::InfoResponse& /*out*/) -> Status {
                        if (next_ == nullptr) return NotFound("the end");
                        const auto stub = v1::Daemon::NewStub(next_->channel());
                        return rpc::Call(cc, *next_, *stub, &v1::Daemon::Stub::Info, r).status();
                      });
  }

 private:
  work::Pool& pool_;
  const rpc::Peer* next_;
};

std::string ValueOf(const google::protobuf::RepeatedPtrField<otlp::KeyValue>& attributes,
                    const std::string& key) {
  for (const auto& one : attributes) {
    if (one.key() == key) return one.value().string_value();
  }
  return "";
}

}  // namespace

TEST_CASE("the trace of a caller goes through all daemons and to the collector") {
  const testing::TestRoot root;
  const Collector collector(root / "otlp.sock");
  metrics::Registry registry;
  work::Pool pool;
  rpc::Server last({.sockets = {root / "last.sock"}});
  Hop end(pool, nullptr);
  last.AddService(&end);
  REQUIRE(last.Start().ok());
  const rpc::Peer peer("last", root / "last.sock", 5s);
  rpc::Server first({.sockets = {root / "first.sock"}});
  Hop front(pool, &peer);
  first.AddService(&front);
  REQUIRE(first.Start().ok());
  {
    const OtlpExporter exporter(collector.endpoint(), 0, {"rund", "7", "1.2.3"}, registry);
    const auto stub = v1::Daemon::NewStub(rpc::Connect(root / "first.sock"));
    grpc::ClientContext context;
    context.AddMetadata("traceparent", kKubelet);
    v1::InfoResponse response;
    CHECK(stub->Info(&context, {}, &response).error_code() == grpc::StatusCode::NOT_FOUND);
    // Without a parent nothing is sampled here.
    grpc::ClientContext untraced;
    CHECK_FALSE(stub->Info(&untraced, {}, &response).ok());
  }
  first.Shutdown(5s);
  last.Shutdown(5s);
  const auto all = collector.all();
  REQUIRE(all.size() == 1);
  const auto& resource = all[0].resource().attributes();
  CHECK(ValueOf(resource, "service.name") == "crisp-rund");
  CHECK(ValueOf(resource, "service.instance.id") == "7");
  CHECK(ValueOf(resource, "service.version") == "1.2.3");
  REQUIRE(all[0].scope_spans_size() == 1);
  const auto& spans = all[0].scope_spans(0).spans();
  REQUIRE(spans.size() == 2);
  // The inner one ends first.
  const otlp::Span& outer = spans[1];
  const otlp::Span& inner = spans[0];
  const trace::Context kubelet = *trace::ParseParent(kKubelet);
  CHECK(outer.trace_id() == std::string(kubelet.trace.begin(), kubelet.trace.end()));
  CHECK(outer.parent_span_id() == std::string(kubelet.span.begin(), kubelet.span.end()));
  CHECK(outer.name() == "crisp.daemon.v1.Daemon/Info");
  CHECK(outer.kind() == otlp::Span::SPAN_KIND_SERVER);
  CHECK(outer.end_time_unix_nano() >= outer.start_time_unix_nano());
  CHECK(outer.status().code() == otlp::Status::STATUS_CODE_ERROR);
  CHECK(ValueOf(outer.attributes(), "rpc.grpc.status") == "NOT_FOUND");
  CHECK_FALSE(ValueOf(outer.attributes(), "crisp.request").empty());
  CHECK(inner.trace_id() == outer.trace_id());
  CHECK(inner.parent_span_id() == outer.span_id());
  CHECK(registry.Render().find("crisp_rund_spans_exported_total 2") != std::string::npos);
}

TEST_CASE("spans are dropped and counted while the collector is away, and nobody waits") {
  const testing::TestRoot root;
  metrics::Registry registry;
  {
    const OtlpExporter exporter("unix:" + (root / "none.sock"), 1'000'000, {"rund", "1", "1"},
                                registry);
    for (int i = 0; i < 10; ++i) {
      trace::Span::Begin("x", trace::Kind::kInternal, {}).End(Status::Ok());
    }
  }
  CHECK(registry.Render().find("crisp_rund_spans_dropped_total 10") != std::string::npos);
  CHECK_FALSE(trace::Enabled());
}

}  // namespace crisp::daemon
