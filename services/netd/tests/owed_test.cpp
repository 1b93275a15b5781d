#include <catch2/catch.hpp>

#include "libs/sqlite/db.h"
#include "libs/testing/manual_clock.h"
#include "services/netd/core/host_ports.h"
#include "services/netd/tests/test_net.h"

using namespace std::chrono_literals;

namespace crisp::netd {
namespace {

/// An attachment on record whose network knows no plugin to ask.
Attachment Recorded(const PodId& pod, Phase phase = Phase::kAttached) {
  return {.pod = pod,
          .phase = phase,
          .boot_id = "boot-1",
          .instance = "1",
          .network = "net",
          .conf = R"({"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "none"}]})",
          .cni_args = "A=b",
          .capability_args = "{}",
          .result = R"({"ips": [{"address": "10.9.8.7/24"}]})",
          .created = WallTime(1s)};
}

CallContext Over() { return {std::chrono::steady_clock::now() - 1s, {}, "over"}; }

}  // namespace

TEST_CASE("Reconcile runs no plugin: what is nobody's is owed from then on, and once") {
  TestNet net;
  REQUIRE(net.store->Put(Recorded(kPod)).ok());
  REQUIRE(net.store->Put(Recorded(kOtherPod)).ok());
  CHECK(net.networks->Reconcile(net.Call(), {kOtherPod}).value() == std::vector<PodId>{kPod});
  CHECK(net.store->Get(kPod).value()->phase == Phase::kDetaching);
  CHECK(net.store->Get(kOtherPod).value()->phase == Phase::kAttached);
  CHECK(net.networks->Owed() == 1);
  CHECK(net.networks->Reconcile(net.Call(), {kOtherPod}).value().empty());
  CHECK(net.networks->TakeDue() == std::vector<PodId>{kPod});
  // It is under work now: not owed a second time.
  CHECK(net.networks->Reconcile(net.Call(), {kOtherPod}).value().empty());
  CHECK(net.networks->TakeDue().empty());
}

TEST_CASE("A detachment that fails again and again is told with the reason") {
  TestNet net;
  testing::ManualClock clock;
  Networks networks(net.config, "boot-1", *net.readiness, *net.plugins, *net.store, net.metrics,
                    clock);
  REQUIRE(net.store->Put(Recorded(kPod, Phase::kDetaching)).ok());
  REQUIRE(networks.Recover(TestNet::Call()).ok());
  for (int attempt = 0; attempt < 3; ++attempt) {
    CHECK(networks.OwedForLong().empty());
    CHECK_FALSE(networks.RollBack(TestNet::Call(), kPod).ok());
  }
  const auto owed = networks.OwedForLong();
  REQUIRE(owed.size() == 1);
  CHECK(owed[0].pod == kPod);
  CHECK(owed[0].failures == 3);
  CHECK(owed[0].why.message().find("network plugin 'none' is not in") != std::string::npos);
  // Put back without a new attempt, it has the same reason.
  networks.PutBack(kPod);
  CHECK(networks.OwedForLong()[0].why.message() == owed[0].why.message());

  const std::string page = net.registry.Render();
  CHECK(page.find("crisp_netd_cni_operations_total{code=\"UNAVAILABLE\",plugin=\"none\","
                  "verb=\"DEL\"} 3") != std::string::npos);
  CHECK(page.find("crisp_netd_cni_operation_seconds_count{plugin=\"none\",verb=\"DEL\"} 3") !=
        std::string::npos);
}

TEST_CASE("Plugins of more names than a node has share one metric") {
  metrics::Registry registry;
  Metrics metrics(registry);
  for (int i = 0; i < 40; ++i) metrics.PluginDone(fmt::format("p{}", i), "ADD", Code::kOk, 1ms);
  metrics.PluginDone("p0", "ADD", Code::kOk, 1ms);
  const std::string page = registry.Render();
  const auto has = [&page](const char* line) { return page.find(line) != page.npos; };
  CHECK(has("crisp_netd_cni_operations_total{code=\"OK\",plugin=\"p0\",verb=\"ADD\"} 2"));
  CHECK(has("crisp_netd_cni_operations_total{code=\"OK\",plugin=\"other\",verb=\"ADD\"} 8"));
}

TEST_CASE("What is owed comes again when its record cannot be read") {
  TestNet net;
  testing::ManualClock clock;
  Networks networks(net.config, "boot-1", *net.readiness, *net.plugins, *net.store, net.metrics,
                    clock);
  REQUIRE(net.store->Put(Recorded(kPod, Phase::kDetaching)).ok());
  REQUIRE(networks.Recover(TestNet::Call()).ok());
  REQUIRE(networks.TakeDue() == std::vector<PodId>{kPod});
  auto db = sqlite::Db::Open(net.config.layout.Database());
  REQUIRE(db.ok());
  REQUIRE(db->Exec("DROP TABLE attachments").ok());
  CHECK_FALSE(networks.RollBack(net.Call(), kPod).ok());
  clock.Advance(1s);
  CHECK(networks.TakeDue() == std::vector<PodId>{kPod});
}

TEST_CASE("Two instances do not work on one pod at once") {
  TestNet net;
  const std::string lock = net.config.layout.PodsLock();
  auto other = os::FileLock::TryLockAt(lock, 0xaaaaaaaaaaaaaaa);  // the other one's, on kPod
  REQUIRE(other.ok());
  CHECK(net.networks->Detach(Over(), kPod).code() == Code::kDeadlineExceeded);
  CHECK(net.networks->Attach(Over(), kPod, PodConfig()).code() == Code::kDeadlineExceeded);
  REQUIRE(net.store->Put(Recorded(kPod)).ok());
  CHECK(net.networks->Reconcile(net.Call(), {}).value().empty());
  CHECK(net.networks->Detach(net.Call(), kOtherPod).ok());
  other = Unavailable("given back");
  CHECK(net.networks->Reconcile(net.Call(), {}).value() == std::vector<PodId>{kPod});
}

TEST_CASE("The table of host ports has those of this boot only") {
  TestNet net;
  Attachment mapped = Recorded(kPod);
  mapped.capability_args =
      R"({"crisp.hostports": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""}]})";
  Attachment old = mapped;
  old.pod = kOtherPod;
  old.boot_id = "boot-0";
  old.capability_args.replace(old.capability_args.find("8080"), 4, "9090");
  REQUIRE(net.store->Put(mapped).ok());
  REQUIRE(net.store->Put(old).ok());
  const std::string nft = net.root.Script("nft", "cat > " + (net.root / "table"));
  HostPorts ports(nft, net.config.layout, "boot-1", *net.store);
  REQUIRE(ports.Sync(net.Call()).ok());
  const std::string table = net.root.Read("table");
  CHECK(table.find("tcp . 8080") != std::string::npos);
  CHECK(table.find("tcp . 9090") == std::string::npos);
}

}  // namespace crisp::netd
