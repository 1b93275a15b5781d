// "crispctl network check" against a front and a netd that answer as they are told.
#include <grpcpp/grpcpp.h>

#include <catch2/catch.hpp>
#include <memory>

#include "cri/v1/api.grpc.pb.h"
#include "crisp/netd/v1/netd.grpc.pb.h"
#include "libs/json/json.h"
#include "libs/os/files.h"
#include "libs/testing/test_root.h"
#include "services/crispctl/tests/command_run.h"

namespace cri = runtime::v1;

namespace crisp::ctl {
namespace {

class Front final : public cri::RuntimeService::Service {
 public:
  grpc::Status ListPodSandbox(grpc::ServerContext*, const cri::ListPodSandboxRequest*,
                              cri::ListPodSandboxResponse* response) override {
    for (const char* name : {"good", "old", "host", "damaged"}) {
      auto* pod = response->add_items();
      pod->set_id(std::string(name) + "-id");
      pod->mutable_metadata()->set_name(name);
    }
    return grpc::Status::OK;
  }
};

class Netd final : public netd::v1::Network::Service {
 public:
  grpc::Status Check(grpc::ServerContext*, const netd::v1::CheckRequest* request,
                     netd::v1::CheckResponse* response) override {
    if (request->pod_id() == "host-id") return {grpc::StatusCode::NOT_FOUND, "not attached"};
    if (request->pod_id() == "damaged-id") {
      return {grpc::StatusCode::INTERNAL, "plugin bridge: CHECK failed: no address"};
    }
    response->set_unasked(request->pod_id() == "old-id");
    return grpc::Status::OK;
  }
};

/// Serves one of them on a socket as long as it lives.
template <typename Service>
struct Served {
  explicit Served(const std::string& socket) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix:" + socket, grpc::InsecureServerCredentials());
    builder.RegisterService(&service);
    server = builder.BuildAndStart();
  }
  ~Served() { server->Shutdown(); }

  Service service;
  std::unique_ptr<grpc::Server> server;
};

/// A node whose netd has an instance of a name of its own.
struct Sockets {
  Sockets() : config(root.Write("crisp.yaml", "run_root: " + (root / "run") + "\n")) {
    CHECK(os::MakeDirs(root / "run/netd").ok());
    front = std::make_unique<Served<Front>>(root / "run/crisp.sock");
  }
  Ran Check(std::vector<std::string> words) const {
    words.insert(words.begin(), {"-c", config, "-o", "json", "network", "check"});
    return RunCommand(std::move(words));
  }

  testing::TestRoot root;
  std::string config;
  std::unique_ptr<Served<Front>> front;
};

}  // namespace

TEST_CASE("A network check says of each pod what its plugins say") {
  const Sockets node;
  const Served<Netd> netd(node.root / "run/netd/blue.sock");
  const Ran all = node.Check({"--all"});
  INFO(all.err);
  CHECK(all.code == kFailed);
  const auto found = json::Parse(all.out);
  REQUIRE(found.ok());
  REQUIRE(found->size() == 4);
  CHECK((*found)[0] ==
        nlohmann::json({{"pod", "good"}, {"id", "good-id"}, {"network", "ok"}, {"message", ""}}));
  CHECK((*found)[1]["network"] == "unasked");
  CHECK((*found)[2]["network"] == "none");
  CHECK((*found)[3]["network"] == "failed");
  CHECK(std::string((*found)[3]["message"]).find("CHECK failed: no address") != std::string::npos);
  CHECK(node.Check({"good", "old-id", "host"}).code == kDone);
  CHECK(node.Check({"good", "damaged"}).code == kFailed);
  CHECK(node.Check({"nosuch"}).code == kFailed);
  CHECK(node.Check({}).err.find("which pods?") != std::string::npos);
  CHECK(node.Check({"--all", "good"}).code == kWrongUse);
}

TEST_CASE("Without a netd a network check says where it looked") {
  const Sockets node;
  const Ran ran = node.Check({"good"});
  CHECK(ran.code == kFailed);
  CHECK(ran.err.find(node.root / "run/netd/1.sock") != std::string::npos);
}

}  // namespace crisp::ctl
