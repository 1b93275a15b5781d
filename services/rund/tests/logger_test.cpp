#include <catch2/catch.hpp>
#include <csignal>
#include <sstream>

#include "libs/os/files.h"
#include "libs/os/pidfd.h"
#include "services/rund/logger/control.h"
#include "services/rund/runtime/logger.h"
#include "services/rund/tests/test_node.h"

// Limited logs: crisp-log between conmon and the file.

using namespace crisp;        // NOLINT
using namespace crisp::rund;  // NOLINT
namespace cri = runtime::v1;
using std::chrono::seconds;

namespace {

void Limit(cri::ContainerConfig& config, const std::string& limit) {
  (*config.mutable_annotations())["crisp.logs/rate"] = limit;
}

TestNode::ContainerOptions Ticking(const std::string& limit) {
  return {.command = {"sh", "-c", "while :; do echo tick; sleep 0.02; done"},
          .change = [limit](cri::ContainerConfig& config) { Limit(config, limit); }};
}

/// The crisp-log of a bundle; 0 = there is none.
pid_t LoggerOf(const std::string& bundle) {
  for (const std::string& name : os::ListDir("/proc").value_or({})) {
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const std::string command = os::ReadFile("/proc/" + name + "/cmdline").value_or("");
    if (command.find("crisp-log") != std::string::npos &&
        command.find(bundle) != std::string::npos) {
      return std::stoi(name);
    }
  }
  return 0;
}

void AwaitMore(const std::string& path) {
  const std::size_t before = os::ReadFile(path).value_or("").size();
  TestNode::Await([&] { return os::ReadFile(path).value_or("").size() > before; });
}

}  // namespace

TEST_CASE("crisp-log runs for containers with a limit only, and ends with their monitor") {
  TestNode node;
  const PodId pod = node.Pod();
  TestNode::ContainerOptions free = Ticking("");
  free.change = nullptr;
  const ContainerId without = node.Run(pod, free);
  CHECK(LoggerOf(node.layout().Bundle(without)) == 0);
  free = Ticking("1MiB");
  free.name = "limited";
  free.log_path = "limited/0.log";
  const ContainerId with = node.Run(pod, free);
  const std::string bundle = node.layout().Bundle(with);
  CHECK(LoggerOf(bundle) != 0);
  kill(node.state().FindContainer(with)->monitor().pid(), SIGKILL);
  CHECK(node.Exited(with).exit_code() == 255);
  TestNode::Await([&] { return LoggerOf(bundle) == 0; });
  REQUIRE(node.pods().Remove(TestNode::Call(), pod).ok());
  CHECK(IsEmpty(node.Leftovers()));
}

TEST_CASE("A crisp-log that was killed is started again at once, and what comes meanwhile waits") {
  TestNode node;
  node.pool_options().stream.cap = 1;
  node.Restart();
  const ContainerId id = node.Run(
      node.Pod(), {.command = {"sh", "-c",
                               "echo 0; while [ ! -e /go ]; do sleep 0.01; done; i=1; while [ $i "
                               "-lt 500 ]; do echo $i; i=$((i+1)); done; : > /done; sleep 1000"},
                   .change = [](cri::ContainerConfig& config) { Limit(config, "1GiB"); }});
  const std::string bundle = node.layout().Bundle(id);
  TestNode::Await([&] { return node.Log().ends_with(" F 0\n"); });
  // Until this is over nobody looks after it.
  std::promise<void> gate;
  const std::shared_future<void> open = gate.get_future().share();
  REQUIRE(node.pool().Submit(work::Lane::kStream, TestNode::Call(), [open] { open.wait(); }).ok());
  const pid_t logger = LoggerOf(bundle);
  REQUIRE(logger != 0);
  REQUIRE(kill(logger, SIGKILL) == 0);
  TestNode::Await([&] { return LoggerOf(bundle) == 0; });
  REQUIRE(os::WriteFile(node.root() / "rootfs/go", "").ok());
  TestNode::Await([&] { return os::Exists(node.root() / "rootfs/done"); });
  gate.set_value();
  TestNode::Await([&] { return node.Log().ends_with(" F 499\n"); });
  CHECK(LoggerOf(bundle) != 0);
  std::istringstream lines(node.Log());
  int next = 0;
  int notes = 0;
  for (std::string line; std::getline(lines, line);) {
    INFO(line);
    const std::size_t text = line.find(" stdout F ");
    REQUIRE(text == 35);
    if (line.find("[crisp: crisp-log was lost", text) != std::string::npos) {
      ++notes;
    } else {
      REQUIRE(line.substr(text + 10) == std::to_string(next));
      ++next;
    }
  }
  CHECK(notes == 1);
}

TEST_CASE("A crisp-log that was killed is no hindrance to a reopen") {
  TestNode node;
  const ContainerId id = node.Run(node.Pod(), Ticking("1MiB"));
  const std::string bundle = node.layout().Bundle(id);
  const std::string path = node.StatusOf(id).log_path();
  AwaitMore(path);
  const pid_t first = LoggerOf(bundle);
  REQUIRE(first != 0);
  REQUIRE(os::Rename(path, path + ".old").ok());
  REQUIRE(kill(first, SIGKILL) == 0);
  const Status reopened = node.containers().ReopenLog(TestNode::Call(), id);
  INFO(reopened.ToString());
  REQUIRE(reopened.ok());
  REQUIRE(os::Exists(path));
  AwaitMore(path);
  const pid_t second = LoggerOf(bundle);
  CHECK(second != 0);
  CHECK(second != first);
  node.engine().lifecycle().CheckAll(TestNode::Call());
  CHECK(LoggerOf(bundle) == second);
  CHECK(node.StatusOf(id).state() == cri::CONTAINER_RUNNING);
}

TEST_CASE("A crisp-log that ends with its container is not started again") {
  TestNode node;
  const PodId pod = node.Pod();
  for (int i = 0; i < 20; ++i) {
    const std::string log = std::to_string(i) + ".log";
    const ContainerId id =
        node.Run(pod, {.command = {"echo", "hello"},
                       .name = std::to_string(i),
                       .log_path = log,
                       .change = [](cri::ContainerConfig& config) { Limit(config, "1MiB"); }});
    CHECK(node.Exited(id).exit_code() == 0);
    TestNode::Await([&] { return LoggerOf(node.layout().Bundle(id)) == 0; });
    CHECK(node.Log(log).find("crisp") == std::string::npos);
    CHECK(node.Log(log).ends_with(" stdout F hello\n"));
  }
}

TEST_CASE("Where the settings want it crisp-log writes the logs without limits, too") {
  TestNode node;
  node.config().log_limits.guarded = true;
  node.Restart();
  TestNode::ContainerOptions free = Ticking("");
  free.change = nullptr;
  const ContainerId id = node.Run(node.Pod(), free);
  CHECK(LoggerOf(node.layout().Bundle(id)) != 0);
  AwaitMore(node.StatusOf(id).log_path());
}

TEST_CASE("A limited log is written while rund is away, and the next one finds its crisp-log") {
  TestNode node;
  const ContainerId id = node.Run(node.Pod(), Ticking("1MiB,block"));
  const std::string path = node.StatusOf(id).log_path();
  const pid_t logger = LoggerOf(node.layout().Bundle(id));
  node.Stop();
  AwaitMore(path);
  const bool killed = GENERATE(false, true);
  if (killed) REQUIRE(kill(logger, SIGKILL) == 0);
  node.StartEngine();
  AwaitMore(path);
  CHECK((LoggerOf(node.layout().Bundle(id)) == logger) == !killed);
  REQUIRE(os::Rename(path, path + ".old").ok());
  REQUIRE(node.containers().ReopenLog(TestNode::Call(), id).ok());
  AwaitMore(path);
}

TEST_CASE("SIGKILL around the create of a limited container leaves no crisp-log") {
  const bool after = GENERATE(false, true);
  TestNode node;
  const PodId pod = node.Pod();
  const ContainerId id = node.Reserve(pod, "c");
  node.KillAt("create", after);
  REQUIRE(node.RunAndDie([&](TestNode& daemon) {
    daemon.containers()
        .Create(TestNode::Call(), daemon.CreateRequest(pod, id, Ticking("1MiB")))
        .ok();
  }));
  TestNode::Await([&] { return LoggerOf(node.layout().Bundle(id)) == 0; });
  const auto created =
      node.containers().Create(TestNode::Call(), node.CreateRequest(pod, id, Ticking("1MiB")));
  INFO(created.status().ToString());
  REQUIRE(created.ok());
  REQUIRE(node.pods().Remove(TestNode::Call(), pod).ok());
  CHECK(IsEmpty(node.Leftovers()));
}

TEST_CASE("A create that fails takes its crisp-log along") {
  TestNode node;
  const PodId pod = node.Pod();
  const ContainerId id = node.Reserve(pod, "c");
  node.FailAt("create", "no such luck");
  node.Restart();
  CHECK_FALSE(node.containers()
                  .Create(TestNode::Call(), node.CreateRequest(pod, id, Ticking("1MiB")))
                  .ok());
  TestNode::Await([&] { return LoggerOf(node.layout().Bundle(id)) == 0; });
}

TEST_CASE("Without crisp-log a limited container is refused, others are made") {
  TestNode node;
  node.config().log_helper.clear();
  node.Restart();
  const PodId pod = node.Pod();
  const ContainerId id = node.Reserve(pod, "c");
  const auto created =
      node.containers().Create(TestNode::Call(), node.CreateRequest(pod, id, Ticking("1MiB")));
  CHECK(created.code() == Code::kUnavailable);
  CHECK(created.status().message().find("crisp-log") != std::string::npos);
  node.Run(pod, {.name = "free"});
}

TEST_CASE("What was left out of logs is counted") {
  TestNode node;
  const ContainerId id = node.Run(
      node.Pod(),
      {.command = {"sh", "-c", "i=0; while [ $i -lt 5000 ]; do echo $i; i=$((i+1)); done"},
       .change = [](cri::ContainerConfig& config) { Limit(config, "16KiB,burst=16KiB"); }});
  CHECK(node.Exited(id).exit_code() == 0);
  const std::string log = node.Log();
  const auto at = log.find("[crisp: ");
  REQUIRE(at != std::string::npos);
  const auto counted = [&node](const char* what) {
    return node.metrics()
        .AddCounter(fmt::format("crisp_rund_log_{}_dropped_total", what), "")
        .Value();
  };
  // crisp-log tells of it after the container's end.
  TestNode::Await([&] { return counted("lines") > 0 && counted("bytes") > counted("lines"); });
  CHECK(counted("lines") < 5000);
}

TEST_CASE("A log that grows too large begins anew") {
  TestNode node;
  node.config().log_limits.max_size = KiB(64);
  node.Restart();
  const ContainerId id = node.Run(
      node.Pod(),
      {.command = {"sh", "-c", "i=0; while [ $i -lt 5000 ]; do echo $i; i=$((i+1)); done"}});
  CHECK(node.Exited(id).exit_code() == 0);
  const std::string log = node.Log();
  CHECK(log.size() <= KiB(64).count());
  CHECK(log.ends_with("4999\n"));
}

TEST_CASE("A node whose settings want the journal does not start without one") {
  TestNode node;
  node.Stop();
  Config config = node.config();
  config.log_to_journal = true;
  work::Pool pool;
  metrics::Registry metrics;
  const auto engine = Engine::Open(config, pool, Clock::System(), metrics);
  const bool journal = os::Exists("/run/systemd/journal/socket");
  CHECK(engine.ok() == journal);
  if (!journal) {
    CHECK(engine.code() == Code::kFailedPrecondition);
    CHECK(engine.status().message().starts_with("rund.log_journald: "));
  }
}
