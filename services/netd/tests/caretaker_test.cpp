// What nobody asks netd for. Needs root: the namespaces are real.
#include <signal.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <thread>

#include "libs/loop/loop.h"
#include "libs/os/pidfd.h"
#include "libs/os/proc_stat.h"
#include "libs/process/command.h"
#include "libs/work/pool.h"
#include "services/netd/core/caretaker.h"
#include "services/netd/tests/fake_plugins.h"
#include "services/netd/tests/test_net.h"

namespace crisp::netd {
namespace {

using namespace std::chrono_literals;

/// GC is counted; what it does besides is shell.
void GcDoes(const TestNet& net, const std::string& what) {
  Healthy(net);
  Chain(net, "1.1.0");
  Plugin(net, "one", kAddress, ":",
         fmt::format("test $CNI_COMMAND != GC || {{ echo x >> {}; {}; }}", net.root / "gc", what));
}

TEST_CASE("A garbage collection that hangs holds pods up for its own deadline only") {
  TestNet net;
  net.config.attach_timeout = 15s;
  net.config.gc_timeout = 100ms;
  GcDoes(net, "sleep 100");
  net.Restart();
  REQUIRE(net.readiness->Look(net.Call()).ok());
  std::jthread gc([&net] {
    CHECK(net.networks->CollectGarbage(net.Call()).code() == Code::kDeadlineExceeded);
  });
  AwaitFile(net.root / "gc");
  const auto attached = net.networks->Attach(net.Call(), kPod, PodConfig());
  INFO(attached.status().ToString());
  CHECK(attached.ok());
  gc.join();
  CHECK(net.networks->Detach(net.Call(), kPod).ok());
}

TEST_CASE("No ADD runs beside a garbage collection, whatever the pod's own plugins know of it") {
  TestNet net;
  net.config.attach_timeout = 300ms;
  Healthy(net);  // CNI 1.0
  net.Restart();
  REQUIRE(net.readiness->Look(net.Call()).ok());
  const auto turn = os::FileLock::TryLock(net.config.layout.GcTurnLock());
  const auto gc = os::FileLock::TryLock(net.config.layout.GcLock());
  REQUIRE(turn.ok());
  REQUIRE(gc.ok());
  CHECK(net.networks->Attach(net.Call(), kPod, PodConfig()).code() == Code::kDeadlineExceeded);
  CHECK(Calls(net).empty());
}

/// A GC plugin whose netd, of whichever instance, was killed: it has the lock, and goes on.
process::Child OrphanedGc(const TestNet& net) {
  const auto lock = os::FileLock::TryLock(net.config.layout.GcLock());
  REQUIRE(lock.ok());
  auto orphan = process::Spawn({.program = "/bin/sleep",
                                .args = {"100"},
                                .env = {"CRISP_NETD_GC=" + net.config.layout.StateDir()},
                                .fds = {{3, lock->fd()}}});
  REQUIRE(orphan.ok());
  return std::move(orphan).value();
}

TEST_CASE("A garbage collection whose netd died is ended by whoever comes first") {
  TestNet net;
  net.config.instance = "2";
  Healthy(net);
  Chain(net, "1.1.0");
  net.Restart();
  {
    auto orphan = OrphanedGc(net);
    const auto attached = net.networks->Attach(net.Call(), kPod, PodConfig());
    INFO(attached.status().ToString());
    CHECK(attached.ok());
    CHECK(orphan.Wait(net.Call()).value() == 137);
  }
  {
    auto orphan = OrphanedGc(net);
    CHECK(net.networks->CollectGarbage(net.Call()).ok());
    CHECK(orphan.Wait(net.Call()).value() == 137);
  }
  {
    auto orphan = OrphanedGc(net);
    CHECK(net.networks->Recover(net.Call()).ok());
    CHECK(orphan.Wait(net.Call()).value() == 137);
  }
  auto orphan = OrphanedGc(net);
  CHECK(net.networks->Detach(net.Call(), kPod).ok());
  CHECK(orphan.Wait(net.Call()).value() == 137);
}

TEST_CASE("What a good garbage collection has started to stay holds nobody up") {
  TestNet net;
  GcDoes(net, "setsid sleep 100 > /dev/null 2>&1 & echo $! > " + (net.root / "pid"));
  REQUIRE(net.readiness->Look(net.Call()).ok());
  REQUIRE(net.networks->CollectGarbage(net.Call()).ok());
  const auto helper = os::ProcessId::Of(std::stoi(net.root.Read("pid")));
  REQUIRE(helper.ok());
  CHECK(net.networks->Attach(net.Call(), kPod, PodConfig()).ok());
  CHECK(net.networks->Detach(net.Call(), kPod).ok());
  CHECK(os::Alive(*helper));
  CHECK(os::PidFd::Open(*helper)->Signal(SIGKILL).ok());
}

TEST_CASE("Pods that come all the time do not keep a garbage collection out") {
  TestNet net;
  net.config.gc_patience = 10s;
  GcDoes(net, ":");
  Plugin(net, "two", "sleep 0.1; " + kAddress);
  net.Restart();
  REQUIRE(net.readiness->Look(net.Call()).ok());
  std::atomic<bool> over = false;
  std::atomic<int> begun = 0;
  std::atomic<int> failed = 0;
  std::vector<std::jthread> pods;
  constexpr int kThreads = 4;
  for (int i = 0; i < kThreads; ++i) {
    pods.emplace_back([&net, &over, &begun, &failed, i] {
      const PodId pod(std::string(64, static_cast<char>('a' + i)));
      while (!over) {
        ++begun;
        if (!net.networks->Attach(net.Call(), pod, PodConfig()).ok()) ++failed;
        if (!net.networks->Detach(net.Call(), pod).ok()) ++failed;
      }
    });
  }
  while (begun < 2 * kThreads) std::this_thread::yield();
  const Status collected = net.networks->CollectGarbage(net.Call());
  over = true;
  pods.clear();
  INFO(collected.ToString());
  CHECK(collected.ok());
  CHECK(failed == 0);
}

TEST_CASE("A pod whose plugin hangs keeps a garbage collection out, but that nobody else") {
  TestNet net;
  net.config.gc_patience = 100ms;
  GcDoes(net, ":");
  Plugin(net, "two",
         fmt::format("test $CNI_CONTAINERID != {1} || {{ touch {0}/in; "
                     "while test ! -e {0}/go; do sleep 0.01; done; }}; {2}",
                     net.root.path(), kPod.str(), kAddress));
  net.Restart();
  REQUIRE(net.readiness->Look(net.Call()).ok());
  std::jthread slow([&net] { CHECK(net.networks->Attach(net.Call(), kPod, PodConfig()).ok()); });
  AwaitFile(net.root / "in");
  CHECK(net.networks->CollectGarbage(net.Call()).code() == Code::kUnavailable);
  CHECK(net.networks->Attach(net.Call(), kOtherPod, PodConfig()).ok());
  net.root.Write("go", "");
  slow.join();
  CHECK(net.networks->CollectGarbage(net.Call()).ok());
  CHECK(net.networks->Detach(net.Call(), kPod).ok());
  CHECK(net.networks->Detach(net.Call(), kOtherPod).ok());
}

TEST_CASE("A garbage collection that failed is tried again soon") {
  TestNet net;
  net.config.gc_interval = 1h;
  net.config.gc_retry = 1ms;
  net.config.status_interval = 1h;
  GcDoes(net, "exit 1");
  net.Restart();
  REQUIRE(net.networks->Reconcile(net.Call(), {}).ok());
  loop::Loop loop;
  loop.Start();
  work::Pool pool;
  const auto caretaker =
      std::make_shared<Caretaker>(net.config, loop, pool, *net.readiness, *net.networks);
  caretaker->Start();
  const auto end = std::chrono::steady_clock::now() + 20s;
  while (net.root.Read("gc").size() < 4 && std::chrono::steady_clock::now() < end) {
    std::this_thread::yield();
  }
  CHECK(net.root.Read("gc").starts_with("x\nx\n"));
  caretaker->Stop();
  pool.Stop();
  loop.Stop();
}

TEST_CASE("Who asks during the first look gets its outcome") {
  TestNet net;
  Healthy(net);
  Chain(net, "1.1.0");
  Plugin(net, "one", kAddress, ":",
         fmt::format("touch {0}/in; while test ! -e {0}/go; do sleep 0.01; done", net.root.path()));
  std::jthread first([&net] { CHECK(net.readiness->Look(net.Call()).ok()); });
  AwaitFile(net.root / "in");
  const NetworkState hasty = net.readiness->State(CallContext::Background(20ms));
  CHECK_FALSE(hasty.ready);
  CHECK(hasty.message == "the network is being looked at");
  std::jthread asks([&net] { CHECK(net.readiness->State(net.Call()).ready); });
  net.root.Write("go", "");
  asks.join();
}

}  // namespace
}  // namespace crisp::netd
