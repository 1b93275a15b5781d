#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "integration/harness/cri.h"

namespace crisp::harness {

/// A program's outcome; it ran to its end or was killed at its time limit (code 128 + n).
struct Ran {
  int code = 0;
  std::string out;
  std::string err;
};

/// Runs a program (found in PATH) to its end. Throws when it cannot be started.
Ran RunProgram(const std::vector<std::string>& argv,
               std::chrono::seconds timeout = std::chrono::seconds(60));

/// Asks every few milliseconds until `done` says yes or the time is over; the last answer.
bool Eventually(const std::function<bool()>& done,
                std::chrono::milliseconds timeout = std::chrono::seconds(10));

struct NodeOptions {
  /// More of crisp.yaml, put behind what run-local writes.
  std::string yaml;
  /// Takes the v2 hierarchy out of the node's own mount namespace, so that crun, which refuses
  /// hybrid cgroups, runs; the machine's mounts stay as they are.
  bool without_unified = false;
  /// false: the daemons are started later, by StartDaemons().
  bool start = true;
};

/// A node of its own: a registry and the four daemons (scripts/run-local) under one directory, in
/// private pid, mount and network namespaces. So nothing of it reaches the machine but cgroups, and
/// when the test dies in whatever way, the kernel takes all processes, mounts and interfaces with
/// it. Throws std::runtime_error with the daemons' last words when something does not start.
class Node {
 public:
  explicit Node(NodeOptions options = {});
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;
  ~Node();

  const std::string& dir() const { return dir_; }
  const Cri& cri() const { return *cri_; }
  std::string socket() const { return dir_ + "/run/crisp.sock"; }
  /// A second client with a connection of its own.
  std::unique_ptr<Cri> NewClient() const { return std::make_unique<Cri>(socket()); }

  /// "127.0.0.1:PORT" of the registry.
  const std::string& registry() const { return registry_; }
  std::string registry_data() const { return dir_ + "/registry/data"; }
  /// scripts/make-image with these options, pushed as `name` ("demo:1"); what it printed, and
  /// "ref" = "127.0.0.1:PORT/demo:1".
  nlohmann::json MakeImage(const std::string& name, const std::vector<std::string>& options) const;
  /// The busybox image that most tests use; pushed once, pulled once.
  const std::string& Busybox();

  // The daemons.
  void StartDaemons();
  /// SIGTERM to run-local; returns when all four have ended. Their common exit code.
  int StopDaemons();
  /// kill -SIGNAL of one daemon; run-local starts it again at once.
  void Signal(const std::string& service, const std::string& signal) const;
  void KillDaemon(const std::string& service) const { Signal(service, "KILL"); }
  /// The daemon is killed and stays away until the returned guard goes.
  std::shared_ptr<void> Away(const std::string& service);
  /// Its process id as the node sees it; empty when there is none.
  std::string DaemonPid(const std::string& service) const;
  /// Waits until crid answers and Status has all conditions true.
  void WaitReady(std::chrono::seconds timeout = std::chrono::seconds(30)) const;

  /// In the node's namespaces.
  Ran Inside(const std::vector<std::string>& argv,
             std::chrono::seconds timeout = std::chrono::seconds(60)) const;

  /// The network namespace of its daemons: for setns(2).
  std::string NetnsPath() const { return "/proc/" + std::to_string(holder_) + "/ns/net"; }

  // Configurations with unique names.
  cri::PodSandboxConfig PodConfig(const std::string& name, bool host_network = false);
  cri::ContainerConfig ContainerConfig(const std::string& name,
                                       const std::vector<std::string>& command);
  /// Where a container's log lands on disk.
  static std::string LogPath(const cri::PodSandboxConfig& pod, const cri::ContainerConfig& config);

  /// Ids that tests made; Leftovers looks for them.
  void Remember(const std::string& id) { ids_.insert(id); }
  /// Removes every pod, then waits until nothing of them is left; what is still there after
  /// `patience`, one line each.
  std::vector<std::string> CleanUp(std::chrono::seconds patience = std::chrono::seconds(15));
  /// Mounts, processes, cgroups, interfaces, IPs, firewall rules, netd's records, and files with
  /// the ids of pods and containers.
  std::vector<std::string> Leftovers() const;
  /// The last lines of every daemon's log.
  std::string Logs(int lines = 15) const;

 private:
  void StartHolder();
  void StartRegistry();
  void Configure() const;
  void CreateCgroup() const;
  std::vector<std::string> Mounts() const;
  void AddNetworkLeftovers(std::vector<std::string>& found) const;

  NodeOptions options_;
  std::string dir_;
  std::string cgroup_;
  std::string registry_;
  std::string busybox_;
  pid_t unshare_ = 0;
  pid_t holder_ = 0;
  std::unique_ptr<Cri> cri_;
  std::set<std::string> ids_;
  std::set<std::string> base_mounts_;
  int counter_ = 0;
};

}  // namespace crisp::harness
