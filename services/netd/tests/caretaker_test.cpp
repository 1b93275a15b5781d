// What nobody asks netd for. Needs root: the namespaces are real.
#include <catch2/catch.hpp>
#include <thread>

#include "libs/loop/loop.h"
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
  auto gc = os::FileLock::TryLock(net.config.layout.GcLock());
  REQUIRE(gc.ok());
  CHECK(net.networks->Attach(net.Call(), kPod, PodConfig()).code() == Code::kDeadlineExceeded);
  CHECK(Calls(net).empty());
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
