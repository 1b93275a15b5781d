// Which calls wait for which: each in its lane of the pool.
#include <grpcpp/grpcpp.h>

#include <catch2/catch.hpp>
#include <future>

#include "libs/os/files.h"
#include "libs/rpc/peer.h"
#include "libs/rpc/server.h"
#include "services/rund/rpc/containers_service.h"
#include "services/rund/rpc/pods_service.h"
#include "services/rund/tests/test_node.h"

using namespace crisp;        // NOLINT
using namespace crisp::rund;  // NOLINT
namespace cri = runtime::v1;

TEST_CASE("Creates that hang keep no log from being reopened") {
  TestNode node;
  node.pool_options().mutate.cap = 1;
  node.Restart();
  const ContainerId id = node.Run(node.Pod(), {});
  ContainersService containers(node.pool(), node.containers(), node.engine().resources());
  rpc::Server server({.sockets = {node.root() / "s"}});
  server.AddService(&containers);
  REQUIRE(server.Start().ok());
  const auto stub = v1::Containers::NewStub(rpc::Connect(node.root() / "s"));
  std::promise<void> gate;
  const std::shared_future<void> open = gate.get_future().share();
  REQUIRE(node.pool().Submit(work::Lane::kMutate, TestNode::Call(), [open] { open.wait(); }).ok());
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  cri::ReopenContainerLogRequest request;
  request.set_container_id(id.str());
  cri::ReopenContainerLogResponse response;
  CHECK(stub->ReopenContainerLog(&context, request, &response).ok());
  gate.set_value();
  server.Shutdown(std::chrono::seconds(5));
}

TEST_CASE("Commands that hang keep no container and no pod from their ends") {
  TestNode node;
  node.pool_options().wait.cap = 1;
  node.pool_options().exec.cap = 1;
  node.Restart();
  const PodId pod = node.Pod();
  const ContainerId hung = node.Run(pod, {.name = "hung", .log_path = ""});
  const ContainerId other = node.Run(pod, {.name = "other", .log_path = ""});
  PodsService pods(node.pool(), node.pods(), node.engine().resources());
  ContainersService containers(node.pool(), node.containers(), node.engine().resources());
  rpc::Server server({.sockets = {node.root() / "s"}});
  server.AddService(&pods);
  server.AddService(&containers);
  REQUIRE(server.Start().ok());
  const auto channel = rpc::Connect(node.root() / "s");
  const auto container_stub = v1::Containers::NewStub(channel);
  const auto pod_stub = v1::Pods::NewStub(channel);

  auto exec = std::async(std::launch::async, [&] {
    grpc::ClientContext context;
    cri::ExecSyncRequest request;
    request.set_container_id(hung.str());
    for (const char* word : {"sleep", "1000"}) request.add_cmd(word);
    cri::ExecSyncResponse response;
    return container_stub->ExecSync(&context, request, &response);
  });
  TestNode::Await([&] { return node.pool().Stats(work::Lane::kExec).running == 1; });

  const auto deadline = [](grpc::ClientContext& context) {
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  };
  {
    grpc::ClientContext context;
    deadline(context);
    v1::StopContainerRequest request;
    request.set_container_id(other.str());
    v1::StopContainerResponse response;
    CHECK(container_stub->StopContainer(&context, request, &response).ok());
  }
  {
    grpc::ClientContext context;
    deadline(context);
    v1::RemoveContainerRequest request;
    request.set_container_id(other.str());
    v1::RemoveContainerResponse response;
    CHECK(container_stub->RemoveContainer(&context, request, &response).ok());
  }
  {
    grpc::ClientContext context;
    deadline(context);
    v1::RemovePodRequest request;
    request.set_pod_id(pod.str());
    v1::RemovePodResponse response;
    CHECK(pod_stub->RemovePod(&context, request, &response).ok());
  }
  exec.get();
  server.Shutdown(std::chrono::seconds(5));
}

TEST_CASE("Creates that hang keep no pod from being made and no container from its end") {
  TestNode node;
  const std::string go = node.root() / "go";
  node.Instead("create", "while [ ! -e " + go + " ]; do sleep 0.1; done; exit 1");
  node.pool_options().mutate.cap = 1;
  node.pool_options().create.cap = 1;
  node.pool_options().wait.cap = 1;
  node.Restart();
  const PodId pod = node.Pod();
  PodsService pods(node.pool(), node.pods(), node.engine().resources());
  ContainersService containers(node.pool(), node.containers(), node.engine().resources());
  rpc::Server server({.sockets = {node.root() / "s"}});
  server.AddService(&pods);
  server.AddService(&containers);
  REQUIRE(server.Start().ok());
  const auto channel = rpc::Connect(node.root() / "s");
  const auto container_stub = v1::Containers::NewStub(channel);
  const auto pod_stub = v1::Pods::NewStub(channel);
  const auto deadline = [](grpc::ClientContext& context) {
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  };
  const auto create_request = node.CreateRequest(pod, node.Reserve(pod, "hung"), {});
  auto create = std::async(std::launch::async, [&] {
    grpc::ClientContext context;
    v1::CreateContainerResponse response;
    return container_stub->CreateContainer(&context, create_request, &response);
  });
  TestNode::Await([&] { return node.pool().Stats(work::Lane::kCreate).running == 1; });
  {
    grpc::ClientContext context;
    deadline(context);
    v1::ReservePodRequest request;
    request.set_pod_id(std::string(64, 'e'));
    request.mutable_metadata()->set_name("other");
    request.mutable_metadata()->set_namespace_("test");
    request.mutable_metadata()->set_uid("uid");
    v1::ReservePodResponse response;
    CHECK(pod_stub->ReservePod(&context, request, &response).ok());
  }
  {
    grpc::ClientContext context;
    deadline(context);
    v1::RemovePodRequest request;
    request.set_pod_id(std::string(64, 'e'));
    v1::RemovePodResponse response;
    CHECK(pod_stub->RemovePod(&context, request, &response).ok());
  }
  CHECK(node.pool().Stats(work::Lane::kCreate).running == 1);
  REQUIRE(os::WriteFile(go, "").ok());
  CHECK_FALSE(create.get().ok());
  server.Shutdown(std::chrono::seconds(5));
}
