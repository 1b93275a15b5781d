// The methods that only look, against two runds that answer as told.
#include "services/crid/rpc/observer.h"

#include <catch2/catch.hpp>

#include <set>
#include <thread>

#include "libs/os/files.h"
#include "libs/rpc/peer.h"
#include "libs/rpc/server.h"
#include "libs/testing/test_root.h"
#include "services/crid/rpc/runtime_service.h"
#include "services/crid/tests/fake_daemons.h"

namespace crisp::crid {
namespace {

using namespace std::chrono_literals;
using RuntimeStub = runtime::v1::RuntimeService::Stub;

class Node {
 public:
  Node() {
    loop.Start();
    for (const char* name : {"rund", "netd", "imaged"}) {
      REQUIRE(os::MakeDirs(root / name).ok());
    }
    first.Start(root / "rund/1.sock");
    second.Start(root / "rund/2.sock");
    netd.Start(root / "netd/1.sock");
    imaged.Start(root / "imaged/1.sock");
    REQUIRE(peers.Start().ok());
    server.AddService(&service);
    REQUIRE(server.Start().ok());
    stub = runtime::v1::RuntimeService::NewStub(rpc::Connect(root / "crisp.sock"));
    REQUIRE(view->WaitFresh(CallContext::Background(10s)).ok());
  }
  ~Node() {
    service.observer().Close();
    server.Shutdown(1s);
    loop.Stop();
    pool.Stop();
  }
  /// Pods are spread: two of them are on two runds.
  std::string RunPod(const std::string& name) {
    runtime::v1::RunPodSandboxRequest request;
    auto* metadata = request.mutable_config()->mutable_metadata();
    metadata->set_name(name);
    metadata->set_uid("uid-" + name);
    metadata->set_namespace_("ns");
    runtime::v1::RunPodSandboxResponse response;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + 20s);
    const grpc::Status status = stub->RunPodSandbox(&context, request, &response);
    INFO(status.error_message());
    REQUIRE(status.ok());
    return response.pod_sandbox_id();
  }

  testing::TestRoot root;
  fake::Script script;
  fake::Rund first{script};
  fake::Rund second{script};
  fake::Netd netd{script};
  fake::Imaged imaged{script};
  loop::Loop loop;
  work::Pool pool;
  RandomIds ids;
  metrics::Registry registry;
  Metrics metrics{registry};
  settings::Settings settings;
  std::shared_ptr<View> view = std::make_shared<View>(5s);
  Peers peers{{.run_root = root.path(), .peer_wait = 5s, .status_wait = 50ms}, *view, loop, [] {}};
  PodFlow pods{*view, peers, pool, ids, metrics, {}};
  ContainerFlow containers{*view, peers, pool, ids, metrics, {}};
  RuntimeService service{view, peers, pods, containers, pool, settings, "0.1.0"};
  rpc::Server server{{.sockets = {root / "crisp.sock"}}};
  std::unique_ptr<RuntimeStub> stub;
};

template <typename Response, typename Reader>
Response ReadAll(const Reader& reader) {
  Response all;
  Response piece;
  while (reader->Read(&piece)) all.MergeFrom(piece);
  const grpc::Status status = reader->Finish();
  INFO(status.error_message());
  CHECK(status.ok());
  return all;
}

TEST_CASE("Statistics of several runds are one list, unary and as a stream") {
  Node node;
  const std::set<std::string> pods = {node.RunPod("a"), node.RunPod("b")};
  REQUIRE(node.first.pod_count() == 1);
  REQUIRE(node.second.pod_count() == 1);

  grpc::ClientContext unary;
  runtime::v1::ListPodSandboxStatsResponse list;
  REQUIRE(node.stub->ListPodSandboxStats(&unary, {}, &list).ok());
  std::set<std::string> found;
  for (const auto& stats : list.stats()) found.insert(stats.attributes().id());
  CHECK(found == pods);

  grpc::ClientContext stats_context;
  CHECK(ReadAll<runtime::v1::StreamPodSandboxStatsResponse>(
            node.stub->StreamPodSandboxStats(&stats_context, {}))
            .pod_sandbox_stats_size() == 2);
  grpc::ClientContext metrics_context;
  CHECK(ReadAll<runtime::v1::StreamPodSandboxMetricsResponse>(
            node.stub->StreamPodSandboxMetrics(&metrics_context, {}))
            .pod_sandbox_metrics_size() == 2);
  grpc::ClientContext pods_context;
  CHECK(ReadAll<runtime::v1::StreamPodSandboxesResponse>(
            node.stub->StreamPodSandboxes(&pods_context, {}))
            .pod_sandboxes_size() == 2);
  grpc::ClientContext described;
  runtime::v1::ListMetricDescriptorsResponse descriptors;
  REQUIRE(node.stub->ListMetricDescriptors(&described, {}, &descriptors).ok());
  CHECK(descriptors.descriptors_size() == 1);  // of one rund: all have the same
}

TEST_CASE("Statistics of one object are asked of its rund, by a prefix as well") {
  Node node;
  const std::string pod = node.RunPod("a");
  grpc::ClientContext context;
  runtime::v1::PodSandboxStatsRequest request;
  request.set_pod_sandbox_id(pod.substr(0, 12));
  runtime::v1::PodSandboxStatsResponse response;
  REQUIRE(node.stub->PodSandboxStats(&context, request, &response).ok());
  CHECK(response.stats().attributes().id() == pod);
  grpc::ClientContext unknown;
  request.set_pod_sandbox_id(std::string(64, 'f'));
  CHECK(node.stub->PodSandboxStats(&unknown, request, &response).error_code() ==
        grpc::StatusCode::NOT_FOUND);
}

TEST_CASE("A stream's failure is its status") {
  Node node;
  node.script.Fail("ListContainerStats", grpc::StatusCode::INTERNAL, "as told");
  grpc::ClientContext context;
  const auto reader = node.stub->StreamContainerStats(&context, {});
  runtime::v1::StreamContainerStatsResponse piece;
  CHECK_FALSE(reader->Read(&piece));
  const grpc::Status status = reader->Finish();
  CHECK(status.error_code() == grpc::StatusCode::INTERNAL);
  CHECK(status.error_message() == "as told");
}

TEST_CASE("Events go on over the restart of a rund, and end when crid does") {
  Node node;
  grpc::ClientContext context;
  const auto reader = node.stub->GetContainerEvents(&context, {});
  reader->WaitForInitialMetadata();
  const std::string before = node.RunPod("a");
  runtime::v1::ContainerEventResponse event;
  for (int i = 0; i < 2; ++i) {
    REQUIRE(reader->Read(&event));
    CHECK(event.container_id() == before);
  }
  node.first.Stop();
  node.second.Stop();
  node.first.Start(node.root / "rund/1.sock");
  node.second.Start(node.root / "rund/2.sock");
  REQUIRE(node.view->WaitFresh(CallContext::Background(10s)).ok());
  const std::string after = node.RunPod("b");
  for (int i = 0; i < 2; ++i) {
    REQUIRE(reader->Read(&event));
    CHECK(event.container_id() == after);
    CHECK(event.container_event_type() ==
          (i == 0 ? runtime::v1::CONTAINER_CREATED_EVENT : runtime::v1::CONTAINER_STARTED_EVENT));
  }
  node.service.observer().Close();
  CHECK_FALSE(reader->Read(&event));
  CHECK(reader->Finish().error_code() == grpc::StatusCode::UNAVAILABLE);
}

}  // namespace
}  // namespace crisp::crid
