#pragma once

#include <sys/types.h>

#include <functional>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "libs/base/clock.h"
#include "libs/base/ids.h"
#include "libs/metrics/registry.h"
#include "libs/testing/test_root.h"
#include "libs/work/pool.h"
#include "services/rund/core/engine.h"

namespace crisp::rund {

/// rund without its RPC in a directory of its own, on the real conmon and runc, with a root file
/// system made of busybox. What a failed test leaves is taken down in the destructor.
class TestNode {
 public:
  TestNode();
  ~TestNode();

  Engine& engine() { return *engine_; }
  Containers& containers() { return engine_->containers(); }
  Pods& pods() { return engine_->pods(); }
  State& state() { return engine_->state(); }
  metrics::Registry& metrics() { return metrics_; }
  const Layout& layout() const { return config_.layout; }
  static CallContext Call() { return CallContext::Background(std::chrono::seconds(60), "test"); }

  /// What an orderly stop and a new start would do.
  void Stop();
  void StartEngine();
  void Restart();
  /// A new start on a node that was rebooted.
  void Reboot();
  /// Runs `fn` with an Engine in a child process, which something kills (see KillAt) or which ends
  /// without any clean-up. The engine of this process is stopped before; a new one is started
  /// afterwards. True: killed.
  bool RunAndDie(const std::function<void(TestNode&)>& fn);
  /// Puts a wrapper in the place of runc that kills the daemon of RunAndDie before or after the
  /// real runc has run `command`; "" takes it away.
  void KillAt(const std::string& command, bool after);

  /// The program in the place of runc from now on, also below the wrappers. Restart() to use it.
  void UseRuntime(const std::string& path);
  /// A wrapper that fails at `command` with these words on stderr. Restart() to use it.
  void FailAt(const std::string& command, const std::string& words);
  /// A wrapper that does `script` in place of `command`, and all else as runc does.
  void Instead(const std::string& command, const std::string& script);
  /// Of one call of the runtime, or of a create. Restart() to use it.
  void SetRuntimeTimeout(std::chrono::seconds timeout) { config_.runtime_timeout = timeout; }
  Config& config() { return config_; }
  /// Restart() to use them.
  work::PoolOptions& pool_options() { return pool_options_; }
  work::Pool& pool() { return *pool_; }
  const testing::TestRoot& root() const { return root_; }
  /// Without a grace for reservations that nobody comes back for. Restart() to use it.
  void AbandonAtOnce() { config_.abandoned_grace = std::chrono::seconds(0); }

  struct ContainerOptions {
    std::vector<std::string> command = {"sleep", "1000"};
    std::string name = "c";
    std::string log_path = "c/0.log";
    std::function<void(runtime::v1::ContainerConfig&)> change;
  };
  /// A ready pod on the host's network.
  PodId Pod(const std::string& name = "p",
            const std::function<void(runtime::v1::PodSandboxConfig&)>& change = nullptr);
  ContainerId Reserve(const PodId& pod, const std::string& name);
  v1::CreateContainerRequest CreateRequest(const PodId& pod, const ContainerId& id,
                                           const ContainerOptions& options);
  ContainerId Create(const PodId& pod, const ContainerOptions& options);
  ContainerId Run(const PodId& pod, const ContainerOptions& options);

  /// Containers::Stop, and its end.
  std::future<Status> BeginEnd(const ContainerId& id, std::chrono::seconds grace);
  Status End(const ContainerId& id, std::chrono::seconds grace);

  runtime::v1::ContainerStatus StatusOf(const ContainerId& id);
  /// Waits for it; the status then.
  runtime::v1::ContainerStatus Exited(const ContainerId& id);
  /// Waits until `done`; dies loudly after ten seconds.
  static void Await(const std::function<bool()>& done);
  std::string Log(const std::string& log_path = "c/0.log") const;

  /// What is left of pods and containers on this machine that has our directory or our ids in its
  /// name: mounts, cgroups, processes, directories. Empty after everything was removed.
  std::vector<std::string> Leftovers() const;

 private:
  runtime::v1::PodSandboxConfig SandboxConfig(const PodId& pod) const;

  testing::TestRoot root_;
  RandomIds ids_;
  Config config_;
  work::PoolOptions pool_options_;
  std::string runc_ = "/usr/sbin/runc";
  metrics::Registry metrics_;
  std::unique_ptr<work::Pool> pool_;
  std::unique_ptr<Engine> engine_;
  std::vector<std::string> all_ids_;
};

/// False: a failing test says what there is.
bool IsEmpty(const std::vector<std::string>& leftovers);
/// Must succeed.
void RemovePod(TestNode& node, const PodId& pod);

}  // namespace crisp::rund
