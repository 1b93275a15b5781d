// Which calls wait for which: each in its lane of the pool.
#include <grpcpp/grpcpp.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <future>
#include <memory>
#include <string>

#include "libs/os/files.h"
#include "libs/rpc/peer.h"
#include "libs/rpc/server.h"
#include "services/rund/rpc/containers_service.h"
#include "services/rund/rpc/pods_service.h"
#include "services/rund/tests/test_node.h"

using namespace crisp;                 // NOLINT
using namespace crisp::rund;           // NOLINT
using namespace std::chrono_literals;  // NOLINT
namespace cri = runtime::v1;

namespace {

using PodsStub = v1::Pods::Stub;
using ContainersStub = v1::Containers::Stub;

/// A node's services behind a socket, and the calls of a front to them.
class Served {
 public:
  explicit Served(TestNode& node)
      : pods_(node.pool(), node.pods(), node.engine().resources()),
        containers_(node.pool(), node.containers(), node.engine().resources(),
                    node.engine().checkpoints()),
        server_({.sockets = {node.root() / "s"}}) {
    server_.AddService(&pods_);
    server_.AddService(&containers_);
    REQUIRE(server_.Start().ok());
    const auto channel = rpc::Connect(node.root() / "s");
    pods_stub_ = v1::Pods::NewStub(channel);
    containers_stub_ = v1::Containers::NewStub(channel);
  }
  Served(const Served&) = delete;
  Served& operator=(const Served&) = delete;
  ~Served() { server_.Shutdown(5s); }

  template <typename Stub, typename Request, typename Response>
  grpc::Status Call(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                    const Request& request, std::chrono::seconds limit = 20s) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + limit);
    Response response;
    return (StubOf<Stub>().*method)(&context, request, &response);
  }

 private:
  template <typename Stub>
  Stub& StubOf() {
    if constexpr (std::is_same_v<Stub, PodsStub>) {
      return *pods_stub_;
    } else {
      return *containers_stub_;
    }
  }

  PodsService pods_;
  ContainersService containers_;
  rpc::Server server_;
  std::unique_ptr<PodsStub> pods_stub_;
  std::unique_ptr<ContainersStub> containers_stub_;
};

}  // namespace

TEST_CASE("Creates that hang keep no log from being reopened") {
  TestNode node;
  node.pool_options().mutate.cap = 1;
  node.Restart();
  cri::ReopenContainerLogRequest reopen;
  reopen.set_container_id(node.Run(node.Pod(), {}).str());
  Served front(node);
  std::promise<void> gate;
  const std::shared_future<void> open = gate.get_future().share();
  REQUIRE(node.pool().Submit(work::Lane::kMutate, TestNode::Call(), [open] { open.wait(); }).ok());
  CHECK(front.Call(&ContainersStub::ReopenContainerLog, reopen).ok());
  gate.set_value();
}

TEST_CASE("Commands that hang keep no container and no pod from their ends") {
  TestNode node;
  node.pool_options().wait.cap = 1;
  node.pool_options().exec.cap = 1;
  node.Restart();
  const PodId pod = node.Pod();
  const ContainerId hung = node.Run(pod, {.name = "hung", .log_path = ""});
  const ContainerId other = node.Run(pod, {.name = "other", .log_path = ""});
  Served front(node);
  auto exec = std::async(std::launch::async, [&] {
    cri::ExecSyncRequest request;
    request.set_container_id(hung.str());
    for (const char* word : {"sleep", "1000"}) request.add_cmd(word);
    return front.Call(&ContainersStub::ExecSync, request, 600s);
  });
  TestNode::Await([&] { return node.pool().Stats(work::Lane::kExec).running == 1; });

  v1::StopContainerRequest stop;
  stop.set_container_id(other.str());
  CHECK(front.Call(&ContainersStub::StopContainer, stop).ok());
  v1::RemoveContainerRequest remove;
  remove.set_container_id(other.str());
  CHECK(front.Call(&ContainersStub::RemoveContainer, remove).ok());
  v1::RemovePodRequest remove_pod;
  remove_pod.set_pod_id(pod.str());
  CHECK(front.Call(&PodsStub::RemovePod, remove_pod).ok());
  exec.get();
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
  Served front(node);
  const auto create_request = node.CreateRequest(pod, node.Reserve(pod, "hung"), {});
  auto create = std::async(std::launch::async, [&] {
    return front.Call(&ContainersStub::CreateContainer, create_request, 600s);
  });
  TestNode::Await([&] { return node.pool().Stats(work::Lane::kCreate).running == 1; });

  v1::ReservePodRequest reserve;
  reserve.set_pod_id(std::string(64, 'e'));
  reserve.mutable_metadata()->set_name("other");
  reserve.mutable_metadata()->set_namespace_("test");
  reserve.mutable_metadata()->set_uid("uid");
  CHECK(front.Call(&PodsStub::ReservePod, reserve).ok());
  v1::RemovePodRequest remove;
  remove.set_pod_id(reserve.pod_id());
  CHECK(front.Call(&PodsStub::RemovePod, remove).ok());
  CHECK(node.pool().Stats(work::Lane::kCreate).running == 1);
  REQUIRE(os::WriteFile(go, "").ok());
  CHECK_FALSE(create.get().ok());
}
