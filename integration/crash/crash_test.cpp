#define CATCH_CONFIG_EXTERNAL_INTERFACES
#include "integration/crash/fire.h"
#include "libs/os/files.h"

namespace crisp::harness {
namespace {

// kill -9 of each daemon, at rest and in the middle of RunPodSandbox, CreateContainer,
// StartContainer, PullImage and StopContainer. After the restart: running containers run on, lists
// are right, the retry of the interrupted call succeeds, an exit that happened meanwhile has its
// code, and once all is removed nothing is left.

constexpr const char* kDaemons[] = {"crid", "imaged", "netd", "rund"};

struct TakeDown final : Catch::TestEventListenerBase {
  using TestEventListenerBase::TestEventListenerBase;
  void testRunEnded(const Catch::TestRunStats& stats) override {
    if (stats.totals.assertions.failed > 0 && Slot() != nullptr) {
      Catch::cout() << "last words of the daemons\n" << Slot()->Logs() << "\n";
    }
    Catch::cout() << UnderFireSoFar().cut << " of " << UnderFireSoFar().calls
                  << " calls under fire failed\n";
    Slot().reset();
  }
};

}  // namespace

CATCH_REGISTER_LISTENER(TakeDown)

namespace {

TEST_CASE("kill -9 at rest: everything is there again, exits keep their codes") {
  Node& node = TheNode();
  {
    const Witness witness(node);
    for (const char* daemon : kDaemons) {
      INFO(daemon);
      // Exits while the daemon is dead.
      const auto config = node.ContainerConfig(
          std::string("dies-") + daemon,
          {"sh", "-c", "while [ ! -e /tmp/go ]; do sleep 0.02; done; exit 33"});
      const auto created = node.cri().Create(witness.pod, config, witness.pod_config);
      INFO(Describe(created.status));
      REQUIRE(created.ok());
      const std::string dying = created->container_id();
      node.Remember(dying);
      REQUIRE(node.cri().Start(dying).ok());
      const auto before = ContainerIds(node);
      REQUIRE(node.cri().ExecSync(dying, {"touch", "/tmp/go"}).ok());
      node.KillDaemon(daemon);
      node.WaitReady();
      CHECK(ContainerIds(node) == before);
      CHECK(PodIds(node) == std::set{witness.pod});
      cri::ContainerStatus status;
      CHECK(Eventually([&] {
        status = node.cri().ContainerStatus(dying)->status();
        return status.state() == cri::ContainerState::CONTAINER_EXITED;
      }));
      CHECK(status.exit_code() == 33);
      witness.CheckAlive();
    }
  }
  CheckNothingLeft(node);
}

TEST_CASE("kill -9 in the middle of RunPodSandbox") {
  Node& node = TheNode();
  {
    const Witness witness(node);
    const auto typical = Took([&] { return node.cri().RunPod(node.PodConfig("typical")); });
    for (const char* daemon : kDaemons) {
      for (int round = 0; round < Rounds(); ++round) {
        INFO(daemon << ", round " << round);
        const auto config = node.PodConfig("fire");
        const auto before = PodIds(node);
        const auto call = [&] { return node.cri().RunPod(config); };
        const auto first = UnderFire(node, daemon, call, typical, Part(round));
        const auto retry = Retried(call);
        INFO("first: " << Describe(first.status) << "; retry: " << Describe(retry.status));
        REQUIRE(retry.ok());
        const std::string id = retry->pod_sandbox_id();
        node.Remember(id);
        if (first.ok()) CHECK(first->pod_sandbox_id() == id);
        auto expected = before;
        expected.insert(id);
        CHECK(PodIds(node) == expected);
        const auto status = Retried([&] { return node.cri().PodStatus(id); });
        CHECK(status->status().state() == cri::PodSandboxState::SANDBOX_READY);
        CHECK_FALSE(status->status().network().ip().empty());
      }
      witness.CheckAlive();
    }
  }
  CheckNothingLeft(node);
}

TEST_CASE("kill -9 in the middle of CreateContainer") {
  Node& node = TheNode();
  {
    const Witness witness(node);
    const auto create = [&](const cri::ContainerConfig& config) {
      return node.cri().Create(witness.pod, config, witness.pod_config);
    };
    const auto typical = Took([&] {
      return create(node.ContainerConfig("typical", {"sleep", "1000"}));
    });
    int number = 0;
    for (const char* daemon : kDaemons) {
      for (int round = 0; round < Rounds(); ++round) {
        INFO(daemon << ", round " << round);
        const auto config =
            node.ContainerConfig("fire" + std::to_string(++number), {"sleep", "1000"});
        const auto before = ContainerIds(node);
        const auto call = [&] { return create(config); };
        const auto first = UnderFire(node, daemon, call, typical, Part(round));
        const auto retry = Retried(call);
        INFO("first: " << Describe(first.status) << "; retry: " << Describe(retry.status));
        REQUIRE(retry.ok());
        const std::string id = retry->container_id();
        node.Remember(id);
        if (first.ok()) CHECK(first->container_id() == id);
        auto expected = before;
        expected.insert(id);
        CHECK(ContainerIds(node) == expected);
        const auto started = Retried([&] { return node.cri().Start(id); });
        INFO(Describe(started.status));
        CHECK(started.ok());
        CHECK(Retried([&] { return node.cri().ExecSync(id, {"echo", "up"}); })->stdout() == "up\n");
        CHECK(Retried([&] { return node.cri().Remove(id); }).ok());
      }
      witness.CheckAlive();
    }
  }
  CheckNothingLeft(node);
}

TEST_CASE("kill -9 in the middle of StartContainer") {
  Node& node = TheNode();
  {
    const Witness witness(node);
    const auto created = [&](const std::string& name) {
      const auto answer = Retried([&] {
        return node.cri().Create(
            witness.pod,
            node.ContainerConfig(name, {"sh", "-c", "echo started; sleep 0.3; exit 9"}),
            witness.pod_config);
      });
      INFO(Describe(answer.status));
      REQUIRE(answer.ok());
      node.Remember(answer->container_id());
      return answer->container_id();
    };
    const std::string sample = created("typical");
    const auto typical = Took([&] { return node.cri().Start(sample); });
    int number = 0;
    for (const char* daemon : kDaemons) {
      for (int round = 0; round < Rounds(); ++round) {
        INFO(daemon << ", round " << round);
        const std::string id = created("fire" + std::to_string(++number));
        const auto first = UnderFire(
            node, daemon, [&] { return node.cri().Start(id); }, typical, Part(round));
        if (!first.ok()) {
          const auto retry = Retried([&] { return node.cri().Start(id); });
          INFO("first: " << Describe(first.status) << "; retry: " << Describe(retry.status));
          CHECK(retry.ok());
        }
        const auto state = [&] {
          const auto status = Retried([&] { return node.cri().ContainerStatus(id); });
          INFO(Describe(status.status));
          REQUIRE(status.ok());
          return status->status();
        };
        CHECK(Eventually([&] { return state().state() == cri::ContainerState::CONTAINER_EXITED; }));
        CHECK(state().exit_code() == 9);
        CHECK(Retried([&] { return node.cri().Remove(id); }).ok());
      }
      witness.CheckAlive();
    }
  }
  CheckNothingLeft(node);
}

TEST_CASE("kill -9 in the middle of StopContainer") {
  Node& node = TheNode();
  {
    const Witness witness(node);
    const auto running = [&](const std::string& name) {
      const auto answer = Retried([&] {
        return node.cri().Create(
            witness.pod,
            node.ContainerConfig(
                name, {"sh", "-c",
                       "trap 'sleep 0.1; exit 7' TERM; echo set; while :; do sleep 0.01; done"}),
            witness.pod_config);
      });
      INFO(Describe(answer.status));
      REQUIRE(answer.ok());
      const std::string id = answer->container_id();
      node.Remember(id);
      const auto started = Retried([&] { return node.cri().Start(id); });
      INFO(Describe(started.status));
      REQUIRE(started.ok());
      CHECK(Eventually([&] {
        return os::ReadFile(witness.pod_config.log_directory() + "/" + name + "/0.log")
                   .value_or("")
                   .find("set") != std::string::npos;
      }));
      return id;
    };
    const std::string sample = running("typical");
    const auto typical = Took([&] { return node.cri().Stop(sample, 10); });
    int number = 0;
    for (const char* daemon : kDaemons) {
      for (int round = 0; round < Rounds(); ++round) {
        INFO(daemon << ", round " << round);
        const std::string id = running("fire" + std::to_string(++number));
        const auto call = [&] { return node.cri().Stop(id, 10); };
        const auto first = UnderFire(node, daemon, call, typical, Part(round));
        const auto retry = Retried(call);
        INFO("first: " << Describe(first.status) << "; retry: " << Describe(retry.status));
        REQUIRE(retry.ok());
        const auto status = Retried([&] { return node.cri().ContainerStatus(id); });
        CHECK(status->status().state() == cri::ContainerState::CONTAINER_EXITED);
        CHECK(status->status().exit_code() == 7);
        CHECK(Retried([&] { return node.cri().Remove(id); }).ok());
      }
      witness.CheckAlive();
    }
  }
  CheckNothingLeft(node);
}

TEST_CASE("kill -9 in the middle of PullImage") {
  Node& node = TheNode();
  {
    const Witness witness(node);
    const auto make = [&](int number) {
      return node.MakeImage(
          "fire" + std::to_string(number) + ":1",
          {"--layer-file", "made/file=number " + std::to_string(number), "--layer-random", "20M",
           "--layer-small", "500", "--level", "1", "--cmd", R"(["cat","/made/file"])"});
    };
    const auto sample = make(0);
    const auto typical = Took([&] { return node.cri().Pull(std::string(sample["ref"])); });
    int number = 0;
    for (const char* daemon : kDaemons) {
      for (int round = 0; round < Rounds(); ++round) {
        INFO(daemon << ", round " << round);
        const auto made = make(++number);
        const std::string ref = made["ref"];
        const auto call = [&] { return node.cri().Pull(ref); };
        const auto first = UnderFire(node, daemon, call, typical, Part(round));
        const auto retry = Retried(call);
        INFO("first: " << Describe(first.status) << "; retry: " << Describe(retry.status));
        REQUIRE(retry.ok());
        CHECK(retry->image_ref() == made["image_id"]);
        auto config = node.ContainerConfig("image" + std::to_string(number), {});
        config.mutable_image()->set_image(ref);
        const auto created =
            Retried([&] { return node.cri().Create(witness.pod, config, witness.pod_config); });
        INFO(Describe(created.status));
        REQUIRE(created.ok());
        node.Remember(created->container_id());
        CHECK(Retried([&] { return node.cri().Start(created->container_id()); }).ok());
        CHECK(Eventually([&] {
          return os::ReadFile(Node::LogPath(witness.pod_config, config))
                     .value_or("")
                     .find("number " + std::to_string(number)) != std::string::npos;
        }));
        CHECK(Retried([&] { return node.cri().Remove(created->container_id()); }).ok());
        CHECK(Retried([&] { return node.cri().RemoveImage(ref); }).ok());
      }
      witness.CheckAlive();
    }
  }
  CheckNothingLeft(node);
}

// The last one: without it a run that never hit a call would show nothing.
TEST_CASE("Some of the calls under fire were cut") {
  constexpr int kEnoughToTell = 20;
  if (UnderFireSoFar().calls >= kEnoughToTell) CHECK(UnderFireSoFar().cut > 0);
}

}  // namespace
}  // namespace crisp::harness
