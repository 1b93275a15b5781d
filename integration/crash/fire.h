#pragma once

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <set>
#include <string>
#include <thread>

#include <catch2/catch.hpp>

#include "integration/harness/node.h"

namespace crisp::harness {

// What the tests with kill -9 share: one node, a pod that must not notice, and calls in the middle
// of which a daemon is killed.
//
// Where inside the call the kill falls is random: CRISP_CRASH_ROUNDS (default 6) kills for each
// daemon and call, spread evenly over the time that the call takes. The seed is printed;
// CRISP_CRASH_SEED repeats it.

int Rounds();
/// Where in the call the kill of this round falls: 0 to 1.
double Part(int round);
/// The node of all tests; made by the first that asks.
std::unique_ptr<Node>& Slot();
Node& TheNode();
/// Removes everything, and fails for what is left.
void CheckNothingLeft(Node& node);

/// How many calls the kills met, and how many of these failed for it (the others were waited for,
/// or done).
struct Fire {
  int calls = 0;
  int cut = 0;
};
Fire& UnderFireSoFar();

/// The retry as the kubelet does it: again after a failure, for as long as a restart may take.
template <typename Call>
auto Retried(const Call& call) {
  auto answer = call();
  for (int i = 0; i < 100 && !answer.ok(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    answer = call();
  }
  return answer;
}

/// Runs `call` and kills `daemon` in the middle of it, `part` (0 to 1) of `typical` after its
/// start.
template <typename Call>
auto UnderFire(Node& node, const std::string& daemon, const Call& call,
               std::chrono::steady_clock::duration typical, double part) {
  using std::chrono::microseconds;
  const std::string victim = node.DaemonPid(daemon);
  auto running = std::async(std::launch::async, call);
  std::this_thread::sleep_for(
      microseconds(static_cast<std::int64_t>(part * double(typical / microseconds(1)))));
  node.KillDaemon(daemon);
  auto answer = running.get();
  ++UnderFireSoFar().calls;
  if (!answer.ok()) ++UnderFireSoFar().cut;
  Eventually([&] { return !node.DaemonPid(daemon).empty() && node.DaemonPid(daemon) != victim; });
  return answer;
}

template <typename Call>
std::chrono::steady_clock::duration Took(const Call& call) {
  const auto start = std::chrono::steady_clock::now();
  const auto answer = call();
  INFO(Describe(answer.status));
  REQUIRE(answer.ok());
  return std::chrono::steady_clock::now() - start;
}

/// A pod with a container that ticks into its log all along.
struct Witness {
  explicit Witness(Node& the_node);
  std::size_t LogSize() const;
  /// The same container runs, logs and can be looked at.
  void CheckAlive() const;

  Node& node;
  cri::PodSandboxConfig pod_config;
  cri::ContainerConfig config;
  std::string pod;
  std::string container;
  cri::ContainerStatus status;
  std::string ip;
};

std::set<std::string> PodIds(const Node& node);
std::set<std::string> ContainerIds(const Node& node);

}  // namespace crisp::harness
