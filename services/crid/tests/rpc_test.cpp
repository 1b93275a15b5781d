#include <grpcpp/impl/client_unary_call.h>

#include <future>
#include <set>
#include <thread>

#include "libs/base/ids.h"
#include "libs/loop/loop.h"
#include "libs/os/files.h"
#include "libs/rpc/forward.h"
#include "libs/rpc/server.h"
#include "libs/testing/test_root.h"
#include "services/crid/core/reconcile.h"
#include "services/crid/rpc/image_service.h"
#include "services/crid/rpc/peers.h"
#include "services/crid/rpc/runtime_service.h"
#include "services/crid/tests/fake_daemons.h"

using namespace crisp;
using namespace crisp::crid;
using namespace std::chrono_literals;

namespace {

using RuntimeStub = runtime::v1::RuntimeService::Stub;
using Calls = std::vector<std::string>;

FlowOptions Flows() { return {}; }

/// The front with fake daemons around it, all on sockets below a TestRoot.
class Node {
 public:
  /// `pool_options`: the front's threads.
  explicit Node(std::chrono::milliseconds peer_wait = 5s,
                const work::PoolOptions& pool_options = {})
      : pool(pool_options),
        view(std::make_shared<View>(peer_wait)),
        peers({.run_root = root.path(), .peer_wait = peer_wait, .status_wait = 50ms}, *view, loop,
              [] {}),
        metrics(registry),
        pods(*view, peers, pool, ids, metrics, Flows()),
        containers(*view, peers, pool, ids, metrics, Flows()),
        runtime_service(view, peers, pods, containers, pool, settings, "0.1.0",
                        /*status_grace=*/0s),
        image_service(peers, pool),
        server({.sockets = {root / "crisp.sock"}}) {
    loop.Start();
    for (const char* service : {"rund", "netd", "imaged"}) {
      REQUIRE(os::MakeDirs(root / service).ok());
    }
    rund.Start(root / "rund/1.sock");
    netd.Start(root / "netd/1.sock");
    imaged.Start(root / "imaged/1.sock");
    REQUIRE(peers.Start().ok());
    server.AddService(&runtime_service);
    server.AddService(&image_service);
    REQUIRE(server.Start().ok());
    channel = rpc::Connect(root / "crisp.sock");
    stub = runtime::v1::RuntimeService::NewStub(channel);
    image_stub = runtime::v1::ImageService::NewStub(channel);
    REQUIRE(view->WaitFresh(CallContext::Background(10s)).ok());
  }
  ~Node() {
    server.Shutdown(1s);
    loop.Stop();
    pool.Stop();
  }

  template <typename Req, typename Resp>
  grpc::Status Call(grpc::Status (RuntimeStub::*method)(grpc::ClientContext*, const Req&, Resp*),
                    const Req& request, Resp& response, std::chrono::milliseconds limit = 20s) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + limit);
    return (stub.get()->*method)(&context, request, &response);
  }

  static runtime::v1::RunPodSandboxRequest PodRequest(const std::string& name) {
    runtime::v1::RunPodSandboxRequest request;
    auto* metadata = request.mutable_config()->mutable_metadata();
    metadata->set_name(name);
    metadata->set_namespace_("default");
    metadata->set_uid("u");
    return request;
  }
  grpc::Status RunPod(const std::string& name, std::string& id,
                      std::chrono::milliseconds limit = 20s) {
    runtime::v1::RunPodSandboxResponse response;
    const auto status = Call(&RuntimeStub::RunPodSandbox, PodRequest(name), response, limit);
    id = response.pod_sandbox_id();
    return status;
  }
  grpc::Status Create(const std::string& pod, const std::string& name, std::string& id) {
    runtime::v1::CreateContainerRequest request;
    request.set_pod_sandbox_id(pod);
    request.mutable_config()->mutable_metadata()->set_name(name);
    request.mutable_config()->mutable_image()->set_image("busybox");
    runtime::v1::CreateContainerResponse response;
    const auto status = Call(&RuntimeStub::CreateContainer, request, response);
    id = response.container_id();
    return status;
  }
  /// The same where they must succeed.
  std::string Pod(const std::string& name = "one") {
    std::string id;
    REQUIRE(RunPod(name, id).ok());
    return id;
  }
  std::string Container(const std::string& pod, const std::string& name = "c") {
    std::string id;
    REQUIRE(Create(pod, name, id).ok());
    return id;
  }
  grpc::Status CreateWith(const std::string& pod, const runtime::v1::ContainerConfig& config) {
    runtime::v1::CreateContainerRequest request;
    request.set_pod_sandbox_id(pod);
    *request.mutable_config() = config;
    runtime::v1::CreateContainerResponse response;
    return Call(&RuntimeStub::CreateContainer, request, response);
  }
  std::vector<std::string> PodIds() {
    runtime::v1::ListPodSandboxResponse list;
    const auto status = Call(&RuntimeStub::ListPodSandbox, {}, list);
    INFO(status.error_message());
    REQUIRE(status.ok());
    std::vector<std::string> out;
    for (const auto& item : list.items()) out.push_back(item.id());
    return out;
  }
  std::vector<runtime::v1::Container> Containers() {
    runtime::v1::ListContainersResponse list;
    REQUIRE(Call(&RuntimeStub::ListContainers, {}, list).ok());
    return {list.containers().begin(), list.containers().end()};
  }

  testing::TestRoot root;
  fake::Script script;
  fake::Rund rund{script};
  fake::Netd netd{script};
  fake::Imaged imaged{script};
  settings::Settings settings;
  RandomIds ids;
  work::Pool pool;
  loop::Loop loop;
  metrics::Registry registry;
  std::shared_ptr<View> view;
  Peers peers;
  Metrics metrics;
  PodFlow pods;
  ContainerFlow containers;
  RuntimeService runtime_service;
  ImageService image_service;
  rpc::Server server;
  rpc::Channel channel;
  std::unique_ptr<RuntimeStub> stub;
  std::unique_ptr<runtime::v1::ImageService::Stub> image_stub;
};

/// False when it has not come to be within 10 s.
bool Until(const std::function<bool()>& done) {
  const auto end = std::chrono::steady_clock::now() + 10s;
  while (!done()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

bool Before(const Calls& calls, const std::string& first, const std::string& second) {
  auto a = std::find(calls.begin(), calls.end(), first);
  auto b = std::find(calls.begin(), calls.end(), second);
  return a != calls.end() && b != calls.end() && a < b;
}

}  // namespace

TEST_CASE("All 43 methods of the CRI are served: each does its work or says that it does not yet") {
  Node node(100ms);
  const auto* file = runtime::v1::VersionRequest::descriptor()->file();
  std::set<std::string> offered;
  std::set<std::string> not_yet;
  for (int s = 0; s < file->service_count(); ++s) {
    for (int m = 0; m < file->service(s)->method_count(); ++m) {
      const auto* method = file->service(s)->method(m);
      const std::string path = "/" + method->service()->full_name() + "/" + method->name();
      grpc::ClientContext context;
      // The one that goes on until its caller leaves.
      const bool endless = method->name() == "GetContainerEvents";
      context.set_deadline(std::chrono::system_clock::now() + (endless ? 500ms : 10'000ms));
      const grpc::ByteBuffer request = rpc::StringToBytes("");
      grpc::ByteBuffer response;
      const grpc::Status status = grpc::internal::BlockingUnaryCall(
          node.channel.get(),
          grpc::internal::RpcMethod(path.c_str(), grpc::internal::RpcMethod::NORMAL_RPC), &context,
          request, &response);
      INFO(path << ": " << status.error_code() << " " << status.error_message());
      // What a client that expects one message makes of a stream that ends well without any.
      const bool empty_stream = status.error_message().rfind("No message returned", 0) == 0;
      if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED && !empty_stream) {
        CHECK(status.error_message().rfind("crisp does not offer " + method->name(), 0) == 0);
        not_yet.insert(method->name());
      } else {
        offered.insert(method->name());
      }
    }
  }
  CHECK(offered.size() + not_yet.size() == 43);
  for (const char* name : {"Version",
                           "Status",
                           "RuntimeConfig",
                           "UpdateRuntimeConfig",
                           "RunPodSandbox",
                           "StopPodSandbox",
                           "RemovePodSandbox",
                           "PodSandboxStatus",
                           "ListPodSandbox",
                           "CreateContainer",
                           "StartContainer",
                           "StopContainer",
                           "RemoveContainer",
                           "ListContainers",
                           "ContainerStatus",
                           "ListImages",
                           "ImageStatus",
                           "PullImage",
                           "RemoveImage",
                           "ImageFsInfo",
                           "ContainerStats",
                           "ListContainerStats",
                           "PodSandboxStats",
                           "ListPodSandboxStats",
                           "ListMetricDescriptors",
                           "ListPodSandboxMetrics",
                           "GetContainerEvents",
                           "StreamPodSandboxes",
                           "StreamContainers",
                           "StreamContainerStats",
                           "StreamPodSandboxStats",
                           "StreamPodSandboxMetrics",
                           "StreamImages"}) {
    CHECK(offered.count(name) == 1);
  }
}

TEST_CASE("A pod and a container live and go, and each caller sees its own change in the lists") {
  Node node;
  const std::string pod = node.Pod();
  CHECK(IsFullId(pod));
  CHECK(node.PodIds() == Calls{pod});
  std::string again;
  REQUIRE(node.RunPod("one", again).ok());
  CHECK(again == pod);

  std::string container;
  REQUIRE(node.Create(pod.substr(0, 13), "c", container).ok());
  REQUIRE(node.Containers().size() == 1);
  CHECK(node.Containers()[0].state() == runtime::v1::CONTAINER_CREATED);
  runtime::v1::StartContainerRequest start;
  start.set_container_id(container.substr(0, 13));
  runtime::v1::StartContainerResponse started;
  REQUIRE(node.Call(&RuntimeStub::StartContainer, start, started).ok());
  CHECK(node.Containers()[0].state() == runtime::v1::CONTAINER_RUNNING);
  runtime::v1::StopContainerRequest stop;
  stop.set_container_id(container);
  runtime::v1::StopContainerResponse stopped;
  REQUIRE(node.Call(&RuntimeStub::StopContainer, stop, stopped).ok());
  CHECK(node.Containers()[0].state() == runtime::v1::CONTAINER_EXITED);

  runtime::v1::ContainerStatusRequest status;
  status.set_container_id(container.substr(0, 13));
  runtime::v1::ContainerStatusResponse answer;
  REQUIRE(node.Call(&RuntimeStub::ContainerStatus, status, answer).ok());
  CHECK(answer.status().id() == container);  // the prefix was made whole

  runtime::v1::RemovePodSandboxRequest remove;
  remove.set_pod_sandbox_id(pod);
  runtime::v1::RemovePodSandboxResponse removed;
  REQUIRE(node.Call(&RuntimeStub::RemovePodSandbox, remove, removed).ok());
  CHECK(node.PodIds().empty());
  CHECK(node.Containers().empty());
  const Calls calls = node.script.Calls();
  CHECK(Before(calls, "Detach", "RemovePod"));
  CHECK(Before(calls, "RemovePod", "Release"));
  // Idempotent.
  CHECK(node.Call(&RuntimeStub::RemovePodSandbox, remove, removed).ok());
  CHECK(node.Call(&RuntimeStub::StopContainer, stop, stopped).ok());
  CHECK(node.Call(&RuntimeStub::ContainerStatus, status, answer).error_code() ==
        grpc::StatusCode::NOT_FOUND);
}

TEST_CASE("Images among the mounts are prepared for the container; what fails says it is one") {
  Node node;
  std::string pod;
  REQUIRE(node.RunPod("p", pod).ok());
  runtime::v1::ContainerConfig config;
  config.mutable_metadata()->set_name("c");
  config.mutable_image()->set_image("busybox");
  config.add_mounts()->set_container_path("/plain");
  runtime::v1::Mount& mount = *config.add_mounts();
  mount.set_container_path("/models");
  mount.mutable_image()->set_image("sha256:2");
  CHECK(node.CreateWith(pod, config).ok());
  CHECK(node.script.Count("PrepareVolume sha256:2") == 1);
  const runtime::v1::Mount told = node.rund.last_config().mounts(1);
  CHECK(told.image().image() == "sha256:2");
  CHECK(told.image().image_ref() == "id of sha256:2");

  config.mutable_metadata()->set_name("d");
  node.script.Fail("PrepareVolume sha256:2", grpc::StatusCode::NOT_FOUND, "no image");
  const grpc::Status status = node.CreateWith(pod, config);
  CHECK(status.error_code() == grpc::StatusCode::UNKNOWN);
  CHECK(status.error_message() == "ImageVolumeMountFailed: mounts[1].image: no image");
  CHECK(node.script.Count("Release") == 1);
}

TEST_CASE("A network that fails undoes the pod, if rund lets it, and is the cause that is told") {
  Node node;
  node.script.Fail("Attach", grpc::StatusCode::INTERNAL, "plugin bridge: no addresses left");
  std::string pod;
  const grpc::Status status = node.RunPod("one", pod);
  CHECK(status.error_code() == grpc::StatusCode::INTERNAL);
  CHECK(status.error_message() == "pod default/one: network: plugin bridge: no addresses left");
  CHECK(Before(node.script.Calls(), "RemovePod", "Detach"));
  CHECK(node.rund.pod_count() == 0);
  CHECK(node.PodIds().empty());
}

TEST_CASE("netd's own word that there is no network is told at once, not asked for again") {
  Node node;
  node.script.On("Attach", [](grpc::ServerContext& context) {
    context.AddTrailingMetadata("crisp-request-id", "r");  // as netd's own answers have it
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "no configuration in /etc/cni/net.d");
  });
  std::string pod;
  const grpc::Status status = node.RunPod("one", pod);
  CHECK(status.error_code() == grpc::StatusCode::UNAVAILABLE);
  CHECK(status.error_message() == "pod default/one: network: no configuration in /etc/cni/net.d");
  CHECK(node.script.Count("Attach") == 1);
}

TEST_CASE("Networks that hang keep no other pod or container from its life and end") {
  work::PoolOptions one_thread_each;
  for (work::LaneOptions* lane :
       {&one_thread_each.wait, &one_thread_each.flight, &one_thread_each.slow_flight,
        &one_thread_each.slow_wait, &one_thread_each.end_flight}) {
    lane->cap = 1;
  }
  Node node(5s, one_thread_each);
  const std::string pod = node.Pod();
  fake::Gate gate;
  node.script.On("Attach", gate.Hook());
  std::string hung;
  auto run = std::async(std::launch::async, [&] { return node.RunPod("two", hung); });
  REQUIRE(node.script.WaitFor("Attach", 2));
  std::string container;
  CHECK(node.Create(pod, "c", container).ok());
  runtime::v1::StopPodSandboxRequest stop;
  stop.set_pod_sandbox_id(pod);
  runtime::v1::StopPodSandboxResponse stopped;
  CHECK(node.Call(&RuntimeStub::StopPodSandbox, stop, stopped).ok());
  runtime::v1::RemovePodSandboxRequest remove;
  remove.set_pod_sandbox_id(pod);
  runtime::v1::RemovePodSandboxResponse removed;
  CHECK(node.Call(&RuntimeStub::RemovePodSandbox, remove, removed).ok());
  gate.Open();
  CHECK(run.get().ok());
}

TEST_CASE("A rund that is stopped with records is waited for, by a front that has never met it") {
  Node node(50ms);
  const std::string pod = node.Pod();
  const auto cc = CallContext::Background(10s);
  node.root.Write("rund/2.records", "");
  // The front looks at the directory when it starts; this one sees the file appear.
  REQUIRE(Until([&] { return node.view->Instances().size() == 2; }));
  CHECK(Reconcile(cc, *node.view, node.peers, node.metrics).code() == Code::kUnavailable);
  CHECK(node.script.Count("Reconcile owners 1") == 0);
  runtime::v1::ListPodSandboxResponse list;
  CHECK(node.Call(&RuntimeStub::ListPodSandbox, {}, list).error_message() == "rund/2 is away");
  // It has left for good: nothing of it is on record.
  REQUIRE(os::RemoveFile(node.root / "rund/2.records").ok());
  REQUIRE(Until([&] { return node.view->Instances().size() == 1; }));
  CHECK(Reconcile(cc, *node.view, node.peers, node.metrics).ok());
  CHECK(node.PodIds() == Calls{pod});
}

TEST_CASE("Nobody waits for a daemon that is away once the front stops") {
  Node node(1h);
  const std::string pod = node.Pod();
  node.rund.Stop();
  REQUIRE(Until([&] { return !node.view->Fresh(); }));
  runtime::v1::PodSandboxStatusRequest request;
  request.set_pod_sandbox_id(pod);
  runtime::v1::PodSandboxStatusResponse answer;
  auto status = std::async(std::launch::async, [&] {
    return node.Call(&RuntimeStub::PodSandboxStatus, request, answer, 1h);
  });
  runtime::v1::ListPodSandboxResponse pods;
  auto list = std::async(std::launch::async,
                         [&] { return node.Call(&RuntimeStub::ListPodSandbox, {}, pods, 1h); });
  node.peers.Close();
  node.view->Close();
  CHECK(status.get().error_code() == grpc::StatusCode::UNAVAILABLE);
  CHECK(list.get().error_code() == grpc::StatusCode::UNAVAILABLE);
}

TEST_CASE("A user namespace is made before the network, which is made inside of it") {
  Node node;
  auto request = Node::PodRequest("users");
  auto* users = request.mutable_config()
                    ->mutable_linux()
                    ->mutable_security_context()
                    ->mutable_namespace_options()
                    ->mutable_userns_options();
  for (auto* ids : {users->add_uids(), users->add_gids()}) ids->set_length(65536);
  runtime::v1::RunPodSandboxResponse response;
  REQUIRE(node.Call(&RuntimeStub::RunPodSandbox, request, response).ok());
  CHECK(Before(node.script.Calls(), "PreparePod", "in /run/userns"));
  CHECK(Before(node.script.Calls(), "in /run/userns", "Attach"));
  // What rund refuses ends it: netd is not asked.
  node.script.Fail("PreparePod", grpc::StatusCode::INVALID_ARGUMENT, "userns_options: no");
  request.mutable_config()->mutable_metadata()->set_attempt(1);
  CHECK(node.Call(&RuntimeStub::RunPodSandbox, request, response).error_message() ==
        "pod default/users: userns_options: no");
  CHECK(node.script.Count("Attach") == 1);
}

TEST_CASE("An update of resources goes to the rund that has the container, by its whole id") {
  Node node;
  const std::string pod = node.Pod();
  const std::string container = node.Container(pod);
  runtime::v1::UpdateContainerResourcesRequest update;
  update.set_container_id(container.substr(0, 13));
  runtime::v1::UpdateContainerResourcesResponse updated;
  REQUIRE(node.Call(&RuntimeStub::UpdateContainerResources, update, updated).ok());
  CHECK(node.script.Count("update " + container) == 1);
  update.set_container_id(std::string(64, 'e'));
  CHECK(node.Call(&RuntimeStub::UpdateContainerResources, update, updated).error_code() ==
        grpc::StatusCode::NOT_FOUND);
}

TEST_CASE("A checkpoint is asked of the rund that has the container, by its whole id") {
  Node node;
  const std::string pod = node.Pod();
  const std::string container = node.Container(pod);
  runtime::v1::CheckpointContainerRequest request;
  request.set_container_id(container.substr(0, 13));
  request.set_location("/a.tar");
  runtime::v1::CheckpointContainerResponse response;
  REQUIRE(node.Call(&RuntimeStub::CheckpointContainer, request, response).ok());
  CHECK(node.script.Count("checkpoint " + container + " to /a.tar") == 1);
  request.set_container_id(std::string(64, 'e'));
  CHECK(node.Call(&RuntimeStub::CheckpointContainer, request, response).error_code() ==
        grpc::StatusCode::NOT_FOUND);
}

TEST_CASE("A container is restored from an archive or an image, on the image that this names") {
  const auto [image, staged] = GENERATE(std::pair{"/a.tar", "stage /a.tar"},
                                        std::pair{"checkpoint:1", "stage id of checkpoint:1"});
  Node node;
  runtime::v1::CreateContainerRequest request;
  request.set_pod_sandbox_id(node.Pod());
  request.mutable_config()->mutable_metadata()->set_name("c");
  request.mutable_config()->mutable_image()->set_image(image);
  runtime::v1::CreateContainerResponse response;
  SECTION("that is here") {
    REQUIRE(node.Call(&RuntimeStub::CreateContainer, request, response).ok());
    CHECK(Before(node.script.Calls(), staged, "Prepare base id"));
    CHECK(Before(node.script.Calls(), "Prepare base id", "restores"));
    CHECK(Before(node.script.Calls(), "restores", "CreateContainer"));
  }
  SECTION("that is not here") {
    node.script.Fail("Prepare base id", grpc::StatusCode::NOT_FOUND, "no image");
    const auto status = node.Call(&RuntimeStub::CreateContainer, request, response);
    CHECK(status.error_code() == grpc::StatusCode::NOT_FOUND);
    CHECK(status.error_message().find("base:1 (base id)") != std::string::npos);
    CHECK(node.script.Count("CreateContainer") == 0);
    CHECK(node.script.Count("Release") == 1);
  }
}

TEST_CASE("A stop goes on over a restart of rund, and says nothing of it") {
  Node node;
  const std::string pod = node.Pod();
  const std::string container = node.Container(pod);
  node.script.Fail("StopContainer", grpc::StatusCode::UNAVAILABLE, "rund is ending");
  runtime::v1::StopContainerRequest stop;
  stop.set_container_id(container);
  runtime::v1::StopContainerResponse stopped;
  auto call = std::async(std::launch::async,
                         [&] { return node.Call(&RuntimeStub::StopContainer, stop, stopped); });
  REQUIRE(node.script.WaitFor("StopContainer", 2));
  node.rund.Stop();
  node.script.On("StopContainer", nullptr);
  node.rund.Start(node.root / "rund/1.sock");
  CHECK(call.get().ok());
  CHECK(node.Containers()[0].state() == runtime::v1::CONTAINER_EXITED);
}

TEST_CASE("The network is made while the pod is prepared, and a failed preparation waits for it") {
  Node node;
  fake::Gate gate;
  node.script.On("Attach", gate.Hook());
  node.script.Fail("PreparePod", grpc::StatusCode::INVALID_ARGUMENT, "hostname: bad");
  std::string pod;
  auto run = std::async(std::launch::async, [&] { return node.RunPod("one", pod); });
  REQUIRE(node.script.WaitFor("Attach"));
  REQUIRE(node.script.WaitFor("PreparePod"));
  CHECK(node.script.Count("Detach") == 0);
  gate.Open();
  CHECK(run.get().error_message() == "pod default/one: hostname: bad");
  CHECK(node.script.Count("Detach") == 1);
}

TEST_CASE("The network begins beside the reservation, and a refused one gives it back") {
  Node node;
  fake::Gate gate;
  node.script.On("ReservePod", gate.Hook());
  std::string pod;
  auto run = std::async(std::launch::async, [&] { return node.RunPod("one", pod); });
  REQUIRE(node.script.WaitFor("Attach"));
  gate.Open();
  REQUIRE(run.get().ok());
  CHECK(node.script.Count("Attach") == 1);

  node.script.Fail("ReservePod", grpc::StatusCode::INVALID_ARGUMENT, "runtime_handler: none such");
  std::string refused;
  const grpc::Status status = node.RunPod("two", refused);
  CHECK(status.error_code() == grpc::StatusCode::INVALID_ARGUMENT);
  CHECK(status.error_message() == "runtime_handler: none such");
  CHECK(node.script.Count("Detach") == 1);
  CHECK(node.script.Count("RemovePod") == 0);
}

/// As an earlier front left it.
void Reserve(rund::v1::Pods::StubInterface& stub, const std::string& pod, const std::string& name) {
  grpc::ClientContext context;
  rund::v1::ReservePodRequest reserve;
  reserve.set_pod_id(pod);
  *reserve.mutable_metadata() = Node::PodRequest(name).config().metadata();
  rund::v1::ReservePodResponse reserved;
  REQUIRE(stub.ReservePod(&context, reserve, &reserved).ok());
}

TEST_CASE("A half-made pod that nobody comes back for is undone, one under way is left alone") {
  Node node;
  const std::string abandoned(64, 'a');
  const auto stub = rund::v1::Pods::NewStub(rpc::Connect(node.root / "rund/1.sock"));
  Reserve(*stub, abandoned, "gone");
  fake::Gate gate;
  node.script.On("PreparePod", gate.Hook());
  std::string pod;
  auto run = std::async(std::launch::async, [&] { return node.RunPod("one", pod); });
  REQUIRE(node.script.WaitFor("PreparePod"));
  REQUIRE(Until([&] { return node.view->HalfMadePods().size() == 2; }));

  auto undo = std::async(std::launch::async,
                         [&] { node.pods.UndoAbandoned(CallContext::Background(20s)); });
  REQUIRE(node.script.WaitFor("RemovePod"));
  gate.Open();
  undo.get();
  REQUIRE(run.get().ok());
  CHECK(node.script.Count("Detach") == 1);
  CHECK(node.script.Count("RemovePod") == 1);
  CHECK(node.PodIds() == Calls{pod});
  CHECK(Until([&] { return node.view->HalfMadePods().empty(); }));
}

TEST_CASE("A pod that is taken for half made, as its start was not seen, is left alone") {
  Node node;
  const std::string pod(64, 'a');
  const auto stub = rund::v1::Pods::NewStub(rpc::Connect(node.root / "rund/1.sock"));
  Reserve(*stub, pod, "late");
  REQUIRE(Until([&] { return node.view->HalfMadePods().size() == 1; }));
  fake::Gate gate;
  node.script.On("RemovePod", gate.Hook());
  auto undo = std::async(std::launch::async,
                         [&] { node.pods.UndoAbandoned(CallContext::Background(20s)); });
  REQUIRE(node.script.WaitFor("RemovePod"));
  {
    grpc::ClientContext context;
    rund::v1::StartPodRequest start;
    start.set_pod_id(pod);
    rund::v1::StartPodResponse started;
    REQUIRE(stub->StartPod(&context, start, &started).ok());
  }
  gate.Open();
  undo.get();
  CHECK(node.script.Count("Detach") == 0);
  CHECK(Until([&] { return node.PodIds() == Calls{pod}; }));
}

TEST_CASE("A second call joins the first, and a caller's deadline does not end the work") {
  Node node;
  fake::Gate gate;
  node.script.On("Attach", gate.Hook());
  std::string first;
  std::string second;
  auto one = std::async(std::launch::async, [&] { return node.RunPod("one", first); });
  auto two = std::async(std::launch::async, [&] { return node.RunPod("one", second); });
  REQUIRE(Until([&] { return node.pool.Stats(work::Lane::kSlowWait).running == 2; }));
  std::string lost;
  CHECK(node.RunPod("one", lost, 100ms).error_code() == grpc::StatusCode::DEADLINE_EXCEEDED);
  gate.Open();
  REQUIRE(one.get().ok());
  REQUIRE(two.get().ok());
  CHECK(first == second);
  CHECK(node.script.Count("Attach") == 1);
  CHECK(node.script.Count("ReservePod") == 1);
  CHECK(node.PodIds() == Calls{first});
}

TEST_CASE("Creates that hang hold up no start, no remove and no pod") {
  Node node;
  const std::string pod = node.Pod();
  const std::string container = node.Container(pod);
  fake::Gate gate;
  node.script.On("CreateContainer", gate.Hook());
  const int hung = static_cast<int>(work::PoolOptions{}.flight.cap) + 8;
  std::vector<std::future<bool>> creates;
  for (int i = 0; i < hung; ++i) {
    creates.push_back(std::async(std::launch::async, [&node, &pod, i] {
      std::string id;
      return node.Create(pod, "hung" + std::to_string(i), id).ok();
    }));
  }
  REQUIRE(node.script.WaitFor("CreateContainer", hung + 1));
  runtime::v1::StartContainerRequest start;
  start.set_container_id(container);
  runtime::v1::StartContainerResponse started;
  CHECK(node.Call(&RuntimeStub::StartContainer, start, started, 10s).ok());
  runtime::v1::RemoveContainerRequest remove;
  remove.set_container_id(container);
  runtime::v1::RemoveContainerResponse removed;
  CHECK(node.Call(&RuntimeStub::RemoveContainer, remove, removed, 10s).ok());
  std::string other;
  CHECK(node.RunPod("two", other, 10s).ok());
  gate.Open();
  for (auto& create : creates) CHECK(create.get());
}

TEST_CASE("The container whose PIDs are joined may be named by the beginning of its id") {
  Node node;
  const std::string pod = node.Pod();
  const std::string target = node.Container(pod, "target");
  runtime::v1::ContainerConfig config;
  config.mutable_metadata()->set_name("guest");
  config.mutable_image()->set_image("busybox");
  auto& options = *config.mutable_linux()->mutable_security_context()->mutable_namespace_options();
  options.set_pid(runtime::v1::TARGET);
  options.set_target_id(target.substr(0, 13));
  REQUIRE(node.CreateWith(pod, config).ok());
  CHECK(node.rund.last_config().linux().security_context().namespace_options().target_id() ==
        target);
  config.mutable_metadata()->set_name("lost");
  options.set_target_id("beef");
  const grpc::Status refused = node.CreateWith(pod, config);
  CHECK(refused.error_code() == grpc::StatusCode::INVALID_ARGUMENT);
  CHECK(refused.error_message().find("target_id") != std::string::npos);
}

TEST_CASE("An image that is missing leaves no container behind") {
  Node node;
  const std::string pod = node.Pod();
  node.script.Fail("Prepare", grpc::StatusCode::NOT_FOUND, "no image busybox");
  std::string container;
  const grpc::Status status = node.Create(pod, "c", container);
  CHECK(status.error_code() == grpc::StatusCode::NOT_FOUND);
  CHECK(status.error_message() == "no image busybox");
  CHECK(node.rund.container_count() == 0);
  CHECK(node.script.Count("Release") == 1);
  CHECK(node.script.Count("CreateContainer") == 0);
}

TEST_CASE("A client that leaves does not end the stop that it asked for") {
  Node node;
  const std::string pod = node.Pod();
  const std::string container = node.Container(pod);
  fake::Gate gate;
  node.script.On("StopContainer", gate.Hook());
  runtime::v1::StopContainerRequest stop;
  stop.set_container_id(container);
  stop.set_timeout(30);
  runtime::v1::StopContainerResponse stopped;
  CHECK(node.Call(&RuntimeStub::StopContainer, stop, stopped, 100ms).error_code() ==
        grpc::StatusCode::DEADLINE_EXCEEDED);
  gate.Open();
  CHECK(node.script.WaitFor("stopped"));
}

TEST_CASE("Lists wait for a rund that restarts, and name it when it stays away") {
  Node node(1s);
  const std::string pod = node.Pod();
  node.rund.Stop();
  auto list = std::async(std::launch::async, [&node] { return node.PodIds(); });
  node.rund.Start(node.root / "rund/1.sock");
  CHECK(list.get() == Calls{pod});

  node.rund.Stop();
  REQUIRE(Until([&] { return !node.view->Fresh(); }));
  runtime::v1::ListPodSandboxResponse answer;
  const grpc::Status away = node.Call(&RuntimeStub::ListPodSandbox, {}, answer);
  CHECK(away.error_code() == grpc::StatusCode::UNAVAILABLE);
  CHECK(away.error_message() == "rund/1 is away");
  runtime::v1::VersionResponse version;
  CHECK(node.Call(&RuntimeStub::Version, {}, version).ok());
  CHECK(version.runtime_name() == "crisp");
}

TEST_CASE("Without netd a pod is undone, its name is free, and the daemon is named") {
  Node node(200ms);
  node.netd.Stop();
  std::string pod;
  const grpc::Status status = node.RunPod("one", pod);
  CHECK(status.error_code() == grpc::StatusCode::UNAVAILABLE);
  CHECK(status.error_message().find("netd/1") != std::string::npos);
  CHECK(node.rund.pod_count() == 0);
  runtime::v1::StatusResponse answer;
  REQUIRE(node.Call(&RuntimeStub::Status, {}, answer).ok());
  std::map<std::string, runtime::v1::RuntimeCondition> conditions;
  for (const auto& condition : answer.status().conditions()) {
    conditions[condition.type()] = condition;
  }
  CHECK(conditions["RuntimeReady"].status());
  CHECK_FALSE(conditions["NetworkReady"].status());
  CHECK(conditions["NetworkReady"].message() == "netd/1 is not running");
  CHECK(conditions["CrispImageService"].status());
  node.netd.Start(node.root / "netd/1.sock");
  CHECK(node.RunPod("one", pod).ok());
}

TEST_CASE("A container is removed while imaged is away; the reconcile gives its snapshot back") {
  Node node(200ms);
  const std::string pod = node.Pod();
  const std::string container = node.Container(pod);
  node.imaged.Stop();
  runtime::v1::RemoveContainerRequest remove;
  remove.set_container_id(container);
  runtime::v1::RemoveContainerResponse removed;
  CHECK(node.Call(&RuntimeStub::RemoveContainer, remove, removed).ok());
  node.imaged.Start(node.root / "imaged/1.sock");
  const auto cc = CallContext::Background(10s);
  auto reconciled = Reconcile(cc, *node.view, node.peers, node.metrics);
  INFO(reconciled.ToString());
  CHECK(reconciled.ok());
  CHECK(node.script.Count("Reconcile owners 0") == 1);
  CHECK(node.script.Count("Reconcile pods 1") == 1);
  // Nobody is told who lives while a rund is not seen.
  node.rund.Stop();
  REQUIRE(Until([&] { return !node.view->Fresh(); }));
  CHECK(Reconcile(cc, *node.view, node.peers, node.metrics).code() == Code::kUnavailable);
}

TEST_CASE("The image service's calls are passed on as they are") {
  Node node;
  grpc::ClientContext context;
  runtime::v1::ImageStatusRequest request;
  request.mutable_image()->set_image("busybox");
  runtime::v1::ImageStatusResponse response;
  REQUIRE(node.image_stub->ImageStatus(&context, request, &response).ok());
  CHECK(response.image().id() == "id of busybox");
}

TEST_CASE("Ids that cannot be are told apart from ids that are unknown") {
  Node node;
  runtime::v1::PodSandboxStatusResponse status;
  runtime::v1::PodSandboxStatusRequest request;
  CHECK(node.Call(&RuntimeStub::PodSandboxStatus, request, status).error_code() ==
        grpc::StatusCode::INVALID_ARGUMENT);
  request.set_pod_sandbox_id("../x");
  CHECK(node.Call(&RuntimeStub::PodSandboxStatus, request, status).error_code() ==
        grpc::StatusCode::INVALID_ARGUMENT);
  request.set_pod_sandbox_id("abc");
  CHECK(node.Call(&RuntimeStub::PodSandboxStatus, request, status).error_code() ==
        grpc::StatusCode::NOT_FOUND);
  runtime::v1::StopPodSandboxRequest stop;
  runtime::v1::StopPodSandboxResponse stopped;
  CHECK(node.Call(&RuntimeStub::StopPodSandbox, stop, stopped).error_code() ==
        grpc::StatusCode::INVALID_ARGUMENT);
  stop.set_pod_sandbox_id("not-there");
  CHECK(node.Call(&RuntimeStub::StopPodSandbox, stop, stopped).ok());
}
