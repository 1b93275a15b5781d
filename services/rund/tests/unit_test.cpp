#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <catch2/catch.hpp>

#include "libs/os/files.h"
#include "libs/os/proc_stat.h"
#include "libs/process/command.h"
#include "libs/sqlite/db.h"
#include "libs/testing/manual_clock.h"
#include "libs/testing/test_root.h"
#include "services/rund/core/log_limits.h"
#include "services/rund/core/log_path.h"
#include "services/rund/core/pod_files.h"
#include "services/rund/core/resources.h"
#include "services/rund/core/state.h"
#include "services/rund/core/status.h"
#include "services/rund/runtime/conmon.h"
#include "services/rund/runtime/exit_files.h"
#include "services/rund/runtime/runc.h"

using namespace crisp;        // NOLINT
using namespace crisp::rund;  // NOLINT
namespace cri = runtime::v1;

namespace {

PodRecord MakePod(const std::string& id, const std::string& name) {
  PodRecord pod;
  pod.set_id(id);
  pod.mutable_metadata()->set_name(name);
  pod.set_phase(v1::RESERVED);
  return pod;
}

std::unique_ptr<State> OpenState(const std::string& path, Clock& clock) {
  auto records = Records::Open(path);
  REQUIRE(records.ok());
  auto state = State::Open(*std::move(records), clock);
  REQUIRE(state.ok());
  return *std::move(state);
}

}  // namespace

TEST_CASE("A log path stays below its directory") {
  CHECK(*LogPathOf("/var/log/pods/p", "c/0.log") == "/var/log/pods/p/c/0.log");
  CHECK(LogPathOf("", "c/0.log")->empty());
  CHECK(LogPathOf("/var/log", "")->empty());
  CHECK(LogPathOf("var/log", "0.log").code() == Code::kInvalidArgument);
  CHECK(LogPathOf("/var/log", "/etc/passwd").code() == Code::kInvalidArgument);
  CHECK(LogPathOf("/var/log", "../passwd").code() == Code::kInvalidArgument);
  CHECK(LogPathOf("/var/log", "a/../../passwd").code() == Code::kInvalidArgument);
  CHECK(LogPathOf("/var/log/..", "a").code() == Code::kInvalidArgument);
  CHECK(LogPathOf("/var/log", "a\nb").code() == Code::kInvalidArgument);
  CHECK(LogPathOf("/var/log", "a:b").code() == Code::kInvalidArgument);
  CHECK(LogPathOf("/var/log:", "a").code() == Code::kInvalidArgument);
  CHECK(LogPathOf("/var/log", "..a/b..").ok());
}

TEST_CASE("An annotation says how fast a log may grow") {
  const LogLimits node{.burst = MiB(1)};
  const LogLimits plain = ParseLogRate("64KiB", node).value();
  CHECK(plain.rate == KiB(64));
  CHECK(plain.burst == MiB(1));
  CHECK_FALSE(plain.block);
  const LogLimits all = ParseLogRate("1Mi,burst=131072,block", node).value();
  CHECK(all.rate == MiB(1));
  CHECK(all.burst == KiB(128));
  CHECK(all.block);
  CHECK_FALSE(ParseLogRate("1GiB,drop", {.burst = MiB(1), .block = true})->block);
  for (const char* wrong : {"", "0", "1023", "fast", "-64KiB", "64KB", "64KiB,", ",64KiB",
                            "64KiB,wait", "64KiB burst=1MiB", "64KiB,burst=", "64KiB,burst=1KiB",
                            "17GiB", "99999999999999999999", "18014398509481984KiB"}) {
    INFO(wrong);
    CHECK(ParseLogRate(wrong, node).code() == Code::kInvalidArgument);
  }
}

TEST_CASE("The most special annotation limits a log, and none raises the node's limit") {
  cri::PodSandboxConfig pod;
  cri::ContainerConfig container;
  container.mutable_metadata()->set_name("web");
  LogLimits node{.burst = MiB(1), .max_size = GiB(1)};
  CHECK(LogLimitsOf(node, pod, container)->rate == Bytes(0));
  (*pod.mutable_annotations())["crisp.logs/rate"] = "1MiB";
  CHECK(LogLimitsOf(node, pod, container)->rate == MiB(1));
  CHECK(LogLimitsOf(node, pod, container)->max_size == GiB(1));
  (*pod.mutable_annotations())["rate.crisp.logs/web"] = "2MiB,burst=2MiB,block";
  (*pod.mutable_annotations())["rate.crisp.logs/other"] = "nonsense";
  CHECK(LogLimitsOf(node, pod, container)->rate == MiB(2));
  (*container.mutable_annotations())["crisp.logs/rate"] = "3MiB";
  CHECK(LogLimitsOf(node, pod, container)->rate == MiB(3));
  container.clear_annotations();

  node.rate = KiB(512);
  const LogLimits lower = LogLimitsOf(node, pod, container).value();
  CHECK(lower.rate == KiB(512));
  CHECK(lower.burst == MiB(1));
  CHECK(lower.block);

  (*pod.mutable_annotations())["rate.crisp.logs/web"] = "nonsense";
  const Status wrong = LogLimitsOf(node, pod, container).status();
  CHECK(wrong.code() == Code::kInvalidArgument);
  CHECK(wrong.message().starts_with("annotation rate.crisp.logs/web: "));
}

TEST_CASE("A log does not leave its directory through a symlink") {
  testing::TestRoot root;
  REQUIRE(os::MakeDirs(root / "logs").ok());
  REQUIRE(os::Symlink("/etc", root / "logs/out").ok());
  CHECK_FALSE(PrepareLog(root / "logs", "out/x.log").ok());
  CHECK(PrepareLog(root / "logs", "in/x.log").ok());
  CHECK(os::Exists(root / "logs/in/x.log"));
}

TEST_CASE("The runtime's words are the message of its last log line") {
  CHECK(RuntimeWords("time=\"x\" level=warning msg=\"a\"\ntime=\"x\" level=error "
                     "msg=\"exec: \\\"/no\\\": stat /no\"\n") == "exec: \"/no\": stat /no");
  CHECK(RuntimeWords("plain words\n") == "plain words");
  CHECK(RuntimeWords("") == "it gave no reason");
}

TEST_CASE("conmon's sync line is a pid or the runtime's error") {
  CHECK(*ParseSyncLine("{\"data\": 14637}\n") == 14637);
  const auto failed = ParseSyncLine("{\"data\": -1, \"message\": \"level=error msg=\\\"x\\\"\"}");
  CHECK(failed.code() == Code::kInternal);
  CHECK(failed.status().message() == "x");
  CHECK(ParseSyncLine("what").code() == Code::kInternal);
}

TEST_CASE("An exit file is a code; a broken one is an error") {
  testing::TestRoot root;
  const Layout layout = Layout::Make(root / "s", root / "r", "1");
  const ContainerId id(std::string(64, 'a'));
  REQUIRE(ReadExit(layout, id).ok());
  CHECK_FALSE(ReadExit(layout, id)->has_value());
  root.Write("r/rund/1/exits/" + id.str(), "137");
  root.Write("r/rund/1/containers/" + id.str() + "/oom", "");
  const auto exit = ReadExit(layout, id);
  REQUIRE(exit.ok());
  CHECK((*exit)->code == 137);
  CHECK((*exit)->oom);
  CHECK((*exit)->finished_at > 0);
  root.Write("r/rund/1/exits/" + id.str(), "");
  CHECK(ReadExit(layout, id).code() == Code::kDataLoss);
}

TEST_CASE("resolv.conf has searches, servers and options in this order") {
  cri::DNSConfig dns;
  CHECK(ResolvConfOf(dns).empty());
  dns.add_servers("10.0.0.1");
  dns.add_servers("10.0.0.2");
  dns.add_searches("a.b");
  dns.add_searches("c.d");
  dns.add_options("ndots:5");
  CHECK(ResolvConfOf(dns) ==
        "search a.b c.d\nnameserver 10.0.0.1\nnameserver 10.0.0.2\noptions ndots:5\n");
}

TEST_CASE("A key has one id, and outlives a restart") {
  testing::TestRoot root;
  testing::ManualClock clock;
  std::uint64_t seq = 0;
  {
    auto state = OpenState(root / "db", clock);
    const auto first = state->ReservePod(MakePod("a", "x"));
    REQUIRE(first.ok());
    seq = first->seq;
    CHECK(state->ReservePod(MakePod("b", "x"))->pod->id() == "a");
    CHECK(state->ReservePod(MakePod("c", "y"))->pod->id() == "c");
    CHECK(state->ReservePod(MakePod("a", "z")).code() == Code::kAlreadyExists);
  }
  clock.Advance(std::chrono::milliseconds(1));
  auto state = OpenState(root / "db", clock);
  CHECK(state->seq() > seq);
  CHECK(state->ReservePod(MakePod("b", "x"))->pod->id() == "a");
  REQUIRE(state->ErasePod(PodId("a")).ok());
  CHECK(state->ReservePod(MakePod("b", "x"))->pod->id() == "b");
}

TEST_CASE("A record that makes no sense is set aside, and its name is free") {
  testing::TestRoot root;
  testing::ManualClock clock;
  {
    auto state = OpenState(root / "db", clock);
    REQUIRE(state->ReservePod(MakePod("a", "x")).ok());
    REQUIRE(state->ReservePod(MakePod("b", "y")).ok());
  }
  {
    auto db = sqlite::Db::Open(root / "db");
    REQUIRE(db.ok());
    // A string that is not UTF-8.
    REQUIRE(db->Exec("UPDATE pods SET record=x'0a01ff' WHERE id='a'").ok());
  }
  auto state = OpenState(root / "db", clock);
  CHECK(state->unreadable() == 1);
  CHECK(state->FindPod(PodId("a")) == nullptr);
  CHECK(state->FindPod(PodId("b")) != nullptr);
  CHECK(state->ReservePod(MakePod("c", "x"))->pod->id() == "c");
  state.reset();
  state = OpenState(root / "db", clock);
  CHECK(state->unreadable() == 0);
  CHECK(state->FindPod(PodId("c")) != nullptr);
}

TEST_CASE("Each change is one event, in order, after the snapshot") {
  testing::TestRoot root;
  testing::ManualClock clock;
  auto state = OpenState(root / "db", clock);
  REQUIRE(state->ReservePod(MakePod("a", "x")).ok());
  std::vector<EventRef> events;
  state->SetListener([&](const EventRef& event) { events.push_back(event); });
  EventRef snapshot;
  state->WithSnapshot([&](const EventRef& event) { snapshot = event; });
  CHECK(snapshot->snapshot());
  REQUIRE(snapshot->pods_size() == 1);
  CHECK(snapshot->pods(0).list_item().empty());
  const auto seq = state->ChangePod(PodId("a"), [&](PodRecord& pod) {
    pod.set_phase(v1::LIVE);
    pod.set_created_at(state->NextTimestamp());
    return Status::Ok();
  });
  REQUIRE(seq.ok());
  REQUIRE(state->ErasePod(PodId("a")).ok());
  REQUIRE(events.size() == 2);
  CHECK(events[0]->seq() == *seq);
  cri::PodSandbox item;
  REQUIRE(item.ParseFromString(events[0]->pods(0).list_item()));
  CHECK(item.state() == cri::SANDBOX_READY);
  CHECK(events[1]->removed_pod_ids(0) == "a");
  CHECK(events[1]->seq() == *seq + 1);
}

TEST_CASE("A change that fails changes nothing") {
  testing::TestRoot root;
  testing::ManualClock clock;
  auto state = OpenState(root / "db", clock);
  REQUIRE(state->ReservePod(MakePod("a", "x")).ok());
  const auto changed = state->ChangePod(PodId("a"), [](PodRecord& pod) {
    pod.set_phase(v1::LIVE);
    return FailedPrecondition("no");
  });
  CHECK(changed.code() == Code::kFailedPrecondition);
  CHECK(state->FindPod(PodId("a"))->phase() == v1::RESERVED);
  CHECK(state->ChangePod(PodId("q"), [](PodRecord&) { return Status::Ok(); }).code() ==
        Code::kNotFound);
}

TEST_CASE("Timestamps never repeat") {
  testing::TestRoot root;
  testing::ManualClock clock;
  auto state = OpenState(root / "db", clock);
  const auto first = state->NextTimestamp();
  CHECK(state->NextTimestamp() > first);
}

TEST_CASE("A monitor that takes no connections any more is told as such, at once") {
  const testing::TestRoot root;
  CHECK(ConnectMonitor(root.path()).code() == Code::kNotFound);
  const os::UniqueFd monitor(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  (root / "attach").copy(address.sun_path, sizeof address.sun_path - 1);
  REQUIRE(bind(monitor.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  REQUIRE(listen(monitor.get(), 0) == 0);
  std::vector<Result<os::UniqueFd>> taken;
  do {
    taken.push_back(ConnectMonitor(root.path()));
  } while (taken.back().ok() && taken.size() < 100);
  CHECK(taken.size() > 1);
  CHECK(taken.back().code() == Code::kUnavailable);
}

TEST_CASE("A log that the monitor made anew before it ended counts as reopened") {
  const testing::TestRoot root;
  const std::string log = root / "log";
  REQUIRE(mkfifo((root / "ctl").c_str(), 0600) == 0);
  for (const bool makes : {true, false}) {
    process::Command monitor;
    monitor.program = "/bin/sh";
    monitor.args = {"-c",
                    makes ? "read line <>ctl; echo last >new; mv new log" : "read line <>ctl"};
    monitor.env = process::PlainEnvironment();
    monitor.cwd = root.path();
    auto child = process::Spawn(monitor).value();
    const auto process = os::ProcessId::Of(child.pid()).value();
    const auto cc = CallContext::Background(std::chrono::seconds(20));
    Status reopened;
    do {
      reopened = ReopenLog(cc, root.path(), log, process);  // until it listens
    } while (reopened.message().find("does not listen") != std::string::npos);
    CHECK(reopened.code() == (makes ? Code::kOk : Code::kFailedPrecondition));
    CHECK(os::Exists(log) == makes);
    REQUIRE(child.Wait(cc).ok());
    REQUIRE(os::RemoveFile(log).ok());
  }
}

TEST_CASE("The image that is shown of a container is a name, also where an id was asked for") {
  v1::ContainerRecord container;
  const std::string hex(64, 'a');
  container.set_image_id("sha256:" + hex);
  container.set_image_name("registry.test/app:1");
  const auto shown = [&container](const std::string& asked) {
    container.mutable_config()->mutable_image()->set_image(asked);
    CHECK(ListItemOf(container).image().image() == StatusOf(container).image().image());
    return StatusOf(container).image().image();
  };
  CHECK(shown("sha256:" + hex) == "registry.test/app:1");
  CHECK(shown(hex) == "registry.test/app:1");
  CHECK(shown("other.test/app:2") == "other.test/app:2");
  container.clear_image_name();
  CHECK(shown("sha256:" + hex) == "sha256:" + hex);
  CHECK(shown("") == "sha256:" + hex);
}

TEST_CASE("A pod's overhead adds CPU time and memory to its limits; anything else is refused") {
  cri::LinuxPodSandboxConfig pod;
  pod.mutable_resources()->set_cpu_quota(50'000);
  pod.mutable_resources()->set_cpu_period(100'000);
  pod.mutable_resources()->set_memory_limit_in_bytes(1000);
  cri::LinuxContainerResources& overhead = *pod.mutable_overhead();
  overhead.set_cpu_quota(5'000);
  overhead.set_cpu_period(10'000);
  overhead.set_memory_limit_in_bytes(24);
  overhead.add_hugepage_limits()->set_page_size("2MB");
  CHECK(CheckOverhead(overhead).ok());
  CHECK(ResourcesOf(pod).cpu_quota() == 100'000);
  CHECK(ResourcesOf(pod).memory_limit_in_bytes() == 1024);
  const auto refused = [&overhead](const auto& change) {
    cri::LinuxContainerResources changed = overhead;
    change(changed);
    return std::string(CheckOverhead(changed).message());
  };
  CHECK(refused([](auto& r) { r.set_cpuset_cpus("0"); }).starts_with("linux.overhead.cpuset_cpus"));
  CHECK(refused([](auto& r) { r.set_cpuset_mems("0"); }).starts_with("linux.overhead.cpuset_mems"));
  CHECK(refused([](auto& r) { r.set_oom_score_adj(1); }).starts_with("linux.overhead.oom_score"));
  CHECK(refused([](auto& r) {
          r.set_memory_swap_limit_in_bytes(1);
        }).starts_with("linux.overhead.memory_swap"));
  CHECK(refused([](auto& r) {
          r.mutable_hugepage_limits(0)->set_limit(1);
        }).starts_with("linux.overhead.hugepage_limits"));
}
