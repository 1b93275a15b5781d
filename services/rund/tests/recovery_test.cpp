#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <cstdlib>
#include <string>
#include <thread>
#include <utility>

#include "libs/os/files.h"
#include "libs/sqlite/db.h"
#include "services/rund/core/parts.h"
#include "services/rund/tests/test_node.h"

using namespace crisp;        // NOLINT
using namespace crisp::rund;  // NOLINT
namespace cri = runtime::v1;
using std::chrono::seconds;

namespace {

bool Ok(const auto& result) {
  if (!result.ok()) UNSCOPED_INFO(result.status().ToString());
  return result.ok();
}

void SharedPids(cri::PodSandboxConfig& config) {
  config.mutable_linux()->mutable_security_context()->mutable_namespace_options()->set_pid(
      cri::POD);
}

void CheckRemovable(TestNode& node, const PodId& pod) {
  REQUIRE(Ok(node.pods().Remove(TestNode::Call(), pod)));
  CHECK(IsEmpty(node.Leftovers()));
}

/// An update's write to the file of CPU shares in the cgroup `path`, as a daemon leaves it that
/// does not live to end it: noted in the record by `note`, and made. Answers the file's path and
/// value.
template <typename Note>
std::pair<std::string, std::string> InterruptUpdate(TestNode& node, const std::string& path,
                                                    const Note& note) {
  const os::Cgroups& cgroups = node.engine().parts().cgroups;
  const bool v2 = cgroups.mode() == os::CgroupMode::kV2;
  const std::string file =
      cgroups.DirFor("cpu", path).value() + (v2 ? "/cpu.weight" : "/cpu.shares");
  const std::string before = os::ReadFile(file).value();
  const auto add_undo = [&](auto& record) {
    v1::CgroupWrite& undo = *record.mutable_update()->add_undo();
    undo.set_path(file);
    undo.set_value(before.substr(0, before.find('\n')));
    return Status::Ok();
  };
  REQUIRE(note(add_undo).ok());
  REQUIRE(os::WriteExisting(file, "77").ok());
  return {file, before};
}

}  // namespace

TEST_CASE("Containers run on while rund is away, and their exits are found") {
  TestNode node;
  const PodId pod = node.Pod();
  const ContainerId runs = node.Run(pod, {.name = "runs", .log_path = ""});
  const ContainerId ends =
      node.Run(pod, {.command = {"sh", "-c", "sleep 0.3; exit 9"}, .name = "ends"});
  const pid_t pid = node.state().FindContainer(runs)->init().pid();
  node.Stop();
  TestNode::Await([&] { return os::Exists(node.layout().ExitPath(ends)); });
  node.StartEngine();
  CHECK(node.Exited(ends).exit_code() == 9);
  CHECK(node.StatusOf(runs).state() == cri::CONTAINER_RUNNING);
  CHECK(node.state().FindContainer(runs)->init().pid() == pid);
  REQUIRE(node.End(runs, seconds(0)).ok());
  CHECK(node.StatusOf(runs).exit_code() == 137);
  CheckRemovable(node, pod);
}

TEST_CASE("A monitor that was killed while rund was away is noticed") {
  TestNode node;
  const PodId pod = node.Pod();
  const ContainerId id = node.Run(pod, {});
  const pid_t monitor = node.state().FindContainer(id)->monitor().pid();
  node.Stop();
  kill(monitor, SIGKILL);
  node.StartEngine();
  CHECK(node.Exited(id).exit_code() == 255);
  CheckRemovable(node, pod);
}

TEST_CASE("SIGKILL around the runtime's create: undone, and the retry succeeds") {
  const bool after = GENERATE(false, true);
  TestNode node;
  const PodId pod = node.Pod();
  const ContainerId id = node.Reserve(pod, "c");
  node.KillAt("create", after);
  REQUIRE(node.RunAndDie([&](TestNode& daemon) {
    daemon.containers().Create(TestNode::Call(), daemon.CreateRequest(pod, id, {})).ok();
  }));
  REQUIRE(node.Reserve(pod, "c") == id);
  REQUIRE(Ok(node.containers().Create(TestNode::Call(), node.CreateRequest(pod, id, {}))));
  REQUIRE(Ok(node.containers().Start(TestNode::Call(), id)));
  CHECK(node.StatusOf(id).state() == cri::CONTAINER_RUNNING);
  CheckRemovable(node, pod);
}

TEST_CASE("SIGKILL around the runtime's start: the retry succeeds, and the container runs") {
  const bool after = GENERATE(false, true);
  TestNode node;
  const PodId pod = node.Pod();
  const ContainerId id = node.Create(pod, {});
  node.KillAt("start", after);
  REQUIRE(node.RunAndDie(
      [&](TestNode& daemon) { daemon.containers().Start(TestNode::Call(), id).ok(); }));
  REQUIRE(Ok(node.containers().Start(TestNode::Call(), id)));
  CHECK(node.StatusOf(id).state() == cri::CONTAINER_RUNNING);
  CHECK(node.StatusOf(id).started_at() > 0);
  CHECK(node.containers().Start(TestNode::Call(), id).code() == Code::kFailedPrecondition);
  CheckRemovable(node, pod);
}

TEST_CASE(
    "A start that was stored before the end of rund, and perhaps not answered, may be retried") {
  TestNode node;
  const PodId pod = node.Pod();
  const ContainerId id = node.Run(pod, {});
  node.Restart();
  REQUIRE(Ok(node.containers().Start(TestNode::Call(), id)));
  CHECK(node.containers().Start(TestNode::Call(), id).code() == Code::kFailedPrecondition);
  CheckRemovable(node, pod);
}

TEST_CASE("SIGKILL around a start whose container ends at once: its code is kept") {
  TestNode node;
  const PodId pod = node.Pod();
  const ContainerId id = node.Create(pod, {.command = {"sh", "-c", "exit 5"}});
  node.KillAt("start", true);
  REQUIRE(node.RunAndDie(
      [&](TestNode& daemon) { daemon.containers().Start(TestNode::Call(), id).ok(); }));
  CHECK(node.Exited(id).exit_code() == 5);
  REQUIRE(Ok(node.containers().Start(TestNode::Call(), id)));
  CheckRemovable(node, pod);
}

TEST_CASE("SIGKILL around the runtime's delete: the remove is finished") {
  const bool after = GENERATE(false, true);
  TestNode node;
  const PodId pod = node.Pod();
  const ContainerId id = node.Run(pod, {});
  node.KillAt("delete", after);
  REQUIRE(node.RunAndDie(
      [&](TestNode& daemon) { daemon.containers().Remove(TestNode::Call(), id).ok(); }));
  REQUIRE(Ok(node.containers().Remove(TestNode::Call(), id)));
  CheckRemovable(node, pod);
}

TEST_CASE("SIGKILL while a pod's pause process is started: it ends, and the retry has one") {
  const bool after = GENERATE(false, true);
  TestNode node;
  const std::string real = node.config().pause;
  const std::string pid_file = node.root() / "pause.pid";
  const std::string kill_it = "kill -9 $(cat " + (node.root() / "daemon.pid") + ")\n";
  const std::string run = "pid=$(" + real + " \"$@\"); echo $pid > " + pid_file + "; echo $pid\n";
  node.config().pause =
      node.root().Script("pause", "[ \"$1\" = --hold ] && exec " + real + " \"$@\"\n" +
                                      (after ? run + kill_it : kill_it + run));
  REQUIRE(node.RunAndDie([](TestNode& daemon) { daemon.Pod("shared", SharedPids); }));
  pid_t orphan = 0;
  TestNode::Await([&] {
    orphan = std::atoi(os::ReadFile(pid_file).value_or("").c_str());
    return orphan > 0;
  });
  TestNode::Await([&] { return !os::ProcessId::Of(orphan).ok(); });

  node.config().pause = real;
  node.Restart();
  const PodId pod(node.state().Pods().at(0)->id());
  v1::StartPodRequest start;
  start.set_pod_id(pod.str());
  REQUIRE(Ok(node.pods().Start(TestNode::Call(), start)));
  CHECK(os::Alive(ProcessOf(node.state().FindPod(pod)->pause())));
  CheckRemovable(node, pod);
}

TEST_CASE("SIGKILL while a command runs: it ends, and all that descends from it") {
  TestNode node;
  const PodId pod = node.Pod();
  const ContainerId id = node.Run(pod, {});
  const auto runs = [](const std::string& mark) {
    for (const std::string& pid : os::ListDir("/proc").value_or({})) {
      const std::string command = os::ReadFile("/proc/" + pid + "/cmdline").value_or("");
      if (command.starts_with("sleep") && command.find(mark) != std::string::npos) return true;
    }
    return false;
  };
  const std::string first = std::to_string(getpid()) + "001";
  const std::string second = std::to_string(getpid()) + "002";
  node.RunAndDie([&](TestNode& daemon) {
    std::thread([&] {
      cri::ExecSyncRequest exec;
      exec.set_container_id(id.str());
      for (const std::string& word : {std::string("sh"), std::string("-c"),
                                      "sleep " + first + " & sleep " + second + "; :"}) {
        exec.add_cmd(word);
      }
      daemon.containers().ExecSync(TestNode::Call(), exec).ok();
    }).detach();
    TestNode::Await([&] { return runs(first) && runs(second); });
  });
  TestNode::Await([&] { return !runs(first) && !runs(second); });
  CHECK(node.StatusOf(id).state() == cri::CONTAINER_RUNNING);
  CheckRemovable(node, pod);
}

TEST_CASE("SIGKILL while a pod with containers is removed: it goes all the same") {
  TestNode node;
  const PodId pod = node.Pod();
  node.Run(pod, {});
  node.KillAt("delete", false);
  REQUIRE(
      node.RunAndDie([&](TestNode& daemon) { daemon.pods().Remove(TestNode::Call(), pod).ok(); }));
  TestNode::Await([&] { return node.state().FindPod(pod) == nullptr; });
  CHECK(IsEmpty(node.Leftovers()));
}

TEST_CASE("SIGKILL while a pod is stopped: its stop is finished, and the reason stays ours") {
  TestNode node;
  const PodId pod = node.Pod();
  const ContainerId id = node.Run(pod, {});
  const os::ProcessId monitor = ProcessOf(node.state().FindContainer(id)->monitor());
  const os::ProcessId init = ProcessOf(node.state().FindContainer(id)->init());
  // It tells of the end only to the next run of the daemon.
  kill(monitor.pid, SIGSTOP);
  node.RunAndDie([&](TestNode& daemon) {
    std::thread([&] { daemon.pods().Stop(TestNode::Call(), pod).ok(); }).detach();
    TestNode::Await([&] { return !os::Alive(init); });
  });
  REQUIRE(os::WriteFile(node.layout().Bundle(id) + "/oom", "").ok());
  kill(monitor.pid, SIGCONT);
  CHECK(node.Exited(id).exit_code() == 137);
  CHECK(node.StatusOf(id).reason() == "Error");
  TestNode::Await([&] { return node.state().FindPod(pod)->torn_down(); });
  CHECK(node.pods().GetStatus(pod, false)->status().state() == cri::SANDBOX_NOTREADY);
  CheckRemovable(node, pod);
}

TEST_CASE("A stop that was waiting is taken up again") {
  TestNode node;
  const PodId pod = node.Pod();
  const ContainerId id =
      node.Run(pod, {.command = {"sh", "-c", "trap '' TERM; while :; do sleep 1; done"}});
  node.RunAndDie([&](TestNode& daemon) {
    daemon.BeginEnd(id, seconds(1));
    TestNode::Await([&] { return daemon.state().FindContainer(id)->stop_asked_at() != 0; });
  });
  CHECK(node.Exited(id).exit_code() == 137);
  CheckRemovable(node, pod);
}

TEST_CASE("A stop is taken up again also where the start was interrupted") {
  TestNode node;
  const PodId pod = node.Pod();
  const ContainerId id = node.Create(pod, {});
  node.KillAt("start", true);
  REQUIRE(node.RunAndDie([&](TestNode& daemon) {
    // As a stop leaves it whose SIGKILL the daemon does not live to send.
    const auto asked = daemon.state().ChangeContainer(id, [](ContainerRecord& record) {
      record.set_stop_asked_at(1);
      record.set_stop_kill_at(1);
      record.set_stop_kill_at_steady(1);
      return Status::Ok();
    });
    if (asked.ok()) daemon.containers().Start(TestNode::Call(), id).ok();
  }));
  CHECK(node.Exited(id).exit_code() == 137);
  CheckRemovable(node, pod);
}

TEST_CASE("An update that was interrupted is taken back") {
  TestNode node;
  const PodId pod = node.Pod();
  const ContainerId id =
      node.Run(pod, {.change = [](cri::ContainerConfig& config) {
                 config.mutable_linux()->mutable_resources()->set_cpu_shares(512);
               }});
  const auto [file, before] =
      InterruptUpdate(node, node.state().FindContainer(id)->cgroup_path(),
                      [&](const auto& undo) { return node.state().ChangeContainer(id, undo); });
  node.Restart();
  TestNode::Await([&] { return !node.state().FindContainer(id)->has_update(); });
  CHECK(os::ReadFile(file).value() == before);

  cri::UpdateContainerResourcesRequest update;
  update.set_container_id(id.str());
  update.mutable_linux()->set_cpu_shares(1024);
  REQUIRE(node.engine().resources().UpdateContainer(TestNode::Call(), update).ok());
  CHECK(os::ReadFile(file).value() != before);
  CHECK_FALSE(node.state().FindContainer(id)->has_update());
  CheckRemovable(node, pod);
}

TEST_CASE("An update of a pod that was interrupted is taken back") {
  TestNode node;
  const PodId pod = node.Pod("p", [](cri::PodSandboxConfig& config) {
    config.mutable_linux()->mutable_resources()->set_cpu_shares(512);
  });
  const auto [file, before] =
      InterruptUpdate(node, node.state().FindPod(pod)->cgroup_parent(),
                      [&](const auto& undo) { return node.state().ChangePod(pod, undo); });
  node.Restart();
  TestNode::Await([&] { return !node.state().FindPod(pod)->has_update(); });
  CHECK(os::ReadFile(file).value() == before);

  cri::UpdatePodSandboxResourcesRequest update;
  update.set_pod_sandbox_id(pod.str());
  update.mutable_resources()->set_cpu_shares(1024);
  REQUIRE(node.engine().resources().UpdatePod(TestNode::Call(), update).ok());
  CHECK(os::ReadFile(file).value() != before);
  CHECK_FALSE(node.state().FindPod(pod)->has_update());
  CheckRemovable(node, pod);
}

TEST_CASE("An end that could not be stored is stored later, with its code") {
  TestNode node;
  const PodId pod = node.Pod();
  const ContainerId id = node.Run(pod, {});
  auto db = sqlite::Db::Open(node.layout().DatabasePath());
  REQUIRE(db.ok());
  REQUIRE(db->Exec("ALTER TABLE containers RENAME TO away").ok());
  const os::ProcessId monitor = ProcessOf(node.state().FindContainer(id)->monitor());
  kill(node.state().FindContainer(id)->init().pid(), SIGKILL);
  TestNode::Await([&] { return !os::Alive(monitor); });
  node.engine().lifecycle().OnMonitorGone(id);
  CHECK(node.StatusOf(id).state() == cri::CONTAINER_RUNNING);
  REQUIRE(db->Exec("ALTER TABLE away RENAME TO containers").ok());
  node.engine().lifecycle().CheckAll(TestNode::Call());
  CHECK(node.Exited(id).exit_code() == 137);
  CHECK(node.StatusOf(id).message().empty());
  CheckRemovable(node, pod);
}

TEST_CASE("After a reboot pods are not ready and containers have ended with 255") {
  TestNode node;
  const PodId pod = node.Pod();
  const ContainerId id = node.Run(pod, {});
  node.Reboot();
  CHECK(node.StatusOf(id).state() == cri::CONTAINER_EXITED);
  CHECK(node.StatusOf(id).exit_code() == 255);
  CHECK(node.pods().GetStatus(pod, false)->status().state() == cri::SANDBOX_NOTREADY);
  CheckRemovable(node, pod);
}

TEST_CASE("A container that no record knows is taken down") {
  TestNode node;
  const PodId pod = node.Pod();
  const ContainerId id = node.Run(pod, {});
  node.Stop();
  {
    auto records = Records::Open(node.layout().DatabasePath());
    REQUIRE(records.ok());
    REQUIRE(records->EraseContainer(id.str()).ok());
  }
  node.StartEngine();
  TestNode::Await([&] { return !os::Exists(node.layout().Bundle(id)); });
  CheckRemovable(node, pod);
}

TEST_CASE(
    "What a record stood for that cannot be read is taken down: a pod with its pause and cgroup") {
  TestNode node;
  const PodId pod = node.Pod("shared", SharedPids);
  const ContainerId id = node.Run(pod, {});
  const os::ProcessId pause = ProcessOf(node.state().FindPod(pod)->pause());
  const std::string cgroup = node.state().FindPod(pod)->cgroup_parent();
  node.Stop();
  {
    auto db = sqlite::Db::Open(node.layout().DatabasePath());
    REQUIRE(db.ok());
    REQUIRE(db->Exec("UPDATE pods SET record = x'ff'").ok());
  }
  node.StartEngine();
  TestNode::Await([&] { return !os::Exists(node.layout().PodDir(pod)); });
  CHECK_FALSE(os::Alive(pause));
  CHECK(node.state().FindContainer(id) == nullptr);
  CHECK_FALSE(node.engine().parts().cgroups.Exists(cgroup).value());
  CHECK(IsEmpty(node.Leftovers()));
}

TEST_CASE("A second instance on the same state directory is refused") {
  TestNode node;
  work::Pool pool;
  metrics::Registry metrics;
  Config config = node.engine().parts().config;
  CHECK(Engine::Open(config, pool, Clock::System(), metrics).code() == Code::kUnavailable);
}
