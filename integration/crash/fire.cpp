#include "integration/crash/fire.h"

#include <cstdlib>
#include <random>

#include "libs/os/files.h"

namespace crisp::harness {

using std::chrono::seconds;

int Rounds() {
  const char* text = std::getenv("CRISP_CRASH_ROUNDS");
  return text == nullptr ? 6 : std::atoi(text);
}

namespace {

std::mt19937& Dice() {
  static std::mt19937 dice = [] {
    const char* text = std::getenv("CRISP_CRASH_SEED");
    const unsigned seed = text == nullptr ? std::random_device()() : unsigned(std::atol(text));
    Catch::cout() << "CRISP_CRASH_SEED=" << seed << "\n";
    return std::mt19937(seed);
  }();
  return dice;
}

}  // namespace

std::unique_ptr<Node>& Slot() {
  static std::unique_ptr<Node> node;
  return node;
}

Node& TheNode() {
  if (Slot() == nullptr) {
    // Short graces: what a crash orphaned is to be gone within the test's patience.
    Slot() = std::make_unique<Node>(
        NodeOptions{.yaml = "imaged:\n  orphan_grace_seconds: 1\nnetd:\n  orphan_grace_seconds: 2\n"
                            "rund:\n  abandoned_grace_seconds: 2\n",
                    .without_unified = false});
  }
  return *Slot();
}

double Part(int round) {
  std::uniform_real_distribution<double> within(0, 1);
  return (round + within(Dice())) / Rounds();
}

Fire& UnderFireSoFar() {
  static Fire fire;
  return fire;
}

Witness::Witness(Node& the_node) : node(the_node) {
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

std::size_t Witness::LogSize() const {
  return os::ReadFile(Node::LogPath(pod_config, config), MiB(64)).value_or("").size();
}

void Witness::CheckAlive() const {
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

}  // namespace crisp::harness
