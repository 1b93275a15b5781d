#include <atomic>
#include <cstdlib>
#include <future>
#include <random>
#include <set>
#include <thread>

#define CATCH_CONFIG_EXTERNAL_INTERFACES
#include <catch2/catch.hpp>

#include "integration/harness/node.h"
#include "libs/os/files.h"

namespace crisp::harness {
namespace {

// kill -9 of each daemon, at rest and in the middle of RunPodSandbox, CreateContainer,
// StartContainer, PullImage and StopContainer. After the restart: running containers run on, lists
// are right, the retry of the interrupted call succeeds, an exit that happened meanwhile has its
// code, and once all is removed nothing is left.
//
// Where inside the call the kill falls is random: CRISP_CRASH_ROUNDS (default 6) kills for each
// daemon and call, spread evenly over the time that the call takes. The seed is printed;
// CRISP_CRASH_SEED repeats it.

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr const char* kDaemons[] = {"crid", "imaged", "netd", "rund"};

int Rounds() {
  const char* text = std::getenv("CRISP_CRASH_ROUNDS");
  return text == nullptr ? 6 : std::atoi(text);
}

std::mt19937& Dice() {
  static std::mt19937 dice = [] {
    const char* text = std::getenv("CRISP_CRASH_SEED");
    const unsigned seed = text == nullptr ? std::random_device()() : unsigned(std::atol(text));
    Catch::cout() << "CRISP_CRASH_SEED=" << seed << "\n";
    return std::mt19937(seed);
  }();
  return dice;
}

std::unique_ptr<Node>& Slot() {
  static std::unique_ptr<Node> node;
  return node;
}

Node& TheNode() {
  if (Slot() == nullptr) {
    // Short graces: what a crash orphaned is to be gone within the test's patience.
    Slot() = std::make_unique<Node>(NodeOptions{
        .yaml = "imaged:\n  orphan_grace_seconds: 1\nrund:\n  abandoned_grace_seconds: 2\n",
        .without_unified = false});
  }
  return *Slot();
}

// How many calls the kills met, and how many of these failed for it (the others were waited for, or
// done).
int calls_under_fire = 0;
int calls_cut = 0;

struct TakeDown final : Catch::TestEventListenerBase {
  using TestEventListenerBase::TestEventListenerBase;
  void testRunEnded(const Catch::TestRunStats& stats) override {
    if (stats.totals.assertions.failed > 0 && Slot() != nullptr) {
      Catch::cout() << "last words of the daemons\n" << Slot()->Logs() << "\n";
    }
    Catch::cout() << calls_cut << " of " << calls_under_fire << " calls under fire failed\n";
    Slot().reset();
  }
};

/// The retry as the kubelet does it: again after a failure, for as long as a restart may take.
template <typename Call>
auto Retried(const Call& call) {
  auto answer = call();
  for (int i = 0; i < 100 && !answer.ok(); ++i) {
    std::this_thread::sleep_for(milliseconds(50));
    answer = call();
  }
  return answer;
}

/// Runs `call` and kills `daemon` in the middle of it, `part` (0 to 1) of `typical` after its
/// start.
template <typename Call>
auto UnderFire(Node& node, const std::string& daemon, const Call& call,
               steady_clock::duration typical, double part) {
  const std::string victim = node.DaemonPid(daemon);
  auto running = std::async(std::launch::async, call);
  std::this_thread::sleep_for(
      microseconds(static_cast<std::int64_t>(part * double(typical / microseconds(1)))));
  node.KillDaemon(daemon);
  auto answer = running.get();
  ++calls_under_fire;
  if (!answer.ok()) ++calls_cut;
  Eventually([&] { return !node.DaemonPid(daemon).empty() && node.DaemonPid(daemon) != victim; });
  return answer;
}

template <typename Call>
steady_clock::duration Took(const Call& call) {
  const auto start = steady_clock::now();
  const auto answer = call();
  INFO(Describe(answer.status));
  REQUIRE(answer.ok());
  return steady_clock::now() - start;
}

double Part(int round) {
  std::uniform_real_distribution<double> within(0, 1);
  return (round + within(Dice())) / Rounds();
}

/// A pod with a container that ticks into its log all along.
struct Witness {
  explicit Witness(Node& the_node) : node(the_node) {
    pod_config = node.PodConfig("witness");
    config = node.ContainerConfig(
        "ticker", {"sh", "-c", "i=0; while :; do echo tick $((i=i+1)); sleep 0.02; done"});
    const auto ran = node.cri().RunPod(pod_config);
    INFO(Describe(ran.status));
    REQUIRE(ran.ok());
    pod = ran->pod_sandbox_id();
    const auto created = node.cri().Create(pod, config, pod_config);
    INFO(Describe(created.status));
    REQUIRE(created.ok());
    container = created->container_id();
    const auto started = node.cri().Start(container);
    INFO(Describe(started.status));
    REQUIRE(started.ok());
    status = node.cri().ContainerStatus(container)->status();
    ip = node.cri().PodStatus(pod)->status().network().ip();
    node.Remember(pod);
    node.Remember(container);
  }

  std::size_t LogSize() const {
    return os::ReadFile(Node::LogPath(pod_config, config), MiB(64)).value_or("").size();
  }

  /// The same container runs, logs and can be looked at.
  void CheckAlive() const {
    const auto now = Retried([&] { return node.cri().ContainerStatus(container); });
    INFO(Describe(now.status));
    REQUIRE(now.ok());
    CHECK(now->status().state() == cri::ContainerState::CONTAINER_RUNNING);
    CHECK(now->status().started_at() == status.started_at());
    CHECK(now->status().created_at() == status.created_at());
    const auto pod_now = node.cri().PodStatus(pod);
    CHECK(pod_now->status().state() == cri::PodSandboxState::SANDBOX_READY);
    CHECK(pod_now->status().network().ip() == ip);
    const std::size_t before = LogSize();
    CHECK(Eventually([&] { return LogSize() > before; }));
    const auto ran = Retried([&] { return node.cri().ExecSync(container, {"echo", "here"}); });
    CHECK(ran->stdout() == "here\n");
  }

  Node& node;
  cri::PodSandboxConfig pod_config;
  cri::ContainerConfig config;
  std::string pod;
  std::string container;
  cri::ContainerStatus status;
  std::string ip;
};

void CheckNothingLeft(Node& node) {
  node.WaitReady();
  // Removing is what makes orphans visible to crid's reconciliation; its pace is the daemons'.
  const std::vector<std::string> left = node.CleanUp(seconds(30));
  for (const std::string& line : left) UNSCOPED_INFO(line);
  CHECK(left.empty());
}

std::set<std::string> PodIds(const Node& node) {
  std::set<std::string> ids;
  const auto pods = Retried([&] { return node.cri().ListPods(); });
  for (const auto& pod : pods->items()) ids.insert(pod.id());
  return ids;
}

std::set<std::string> ContainerIds(const Node& node) {
  std::set<std::string> ids;
  const auto containers = Retried([&] { return node.cri().ListContainers(); });
  for (const auto& container : containers->containers()) ids.insert(container.id());
  return ids;
}

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
        // It runs, or ran, or is still CREATED; a second start of one that runs is an error by
        // contract.
        const auto state = [&] {
          const auto status = Retried([&] { return node.cri().ContainerStatus(id); });
          INFO(Describe(status.status));
          REQUIRE(status.ok());
          return status->status();
        };
        if (state().state() == cri::ContainerState::CONTAINER_CREATED) {
          CHECK_FALSE(first.ok());
          const auto retry = Retried([&] { return node.cri().Start(id); });
          INFO("first: " << Describe(first.status) << "; retry: " << Describe(retry.status));
          CHECK((retry.ok() || state().state() != cri::ContainerState::CONTAINER_CREATED));
        }
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

}  // namespace
}  // namespace crisp::harness
