#include <algorithm>
#include <catch2/catch.hpp>
#include <csignal>
#include <future>
#include <limits>

#include "libs/json/json.h"
#include "libs/os/files.h"
#include "libs/os/namespaces.h"
#include "services/rund/core/exec.h"
#include "services/rund/core/pod_files.h"
#include "services/rund/runtime/conmon.h"
#include "services/rund/tests/test_node.h"

using namespace crisp;        // NOLINT
using namespace crisp::rund;  // NOLINT
namespace cri = runtime::v1;

TEST_CASE("A container runs, is logged, keeps its exit code and leaves nothing") {
  TestNode node;
  const PodId pod = node.Pod();
  const ContainerId id =
      node.Create(pod, {.command = {"sh", "-c", "echo out; echo err >&2; exit 3"}});
  CHECK(node.StatusOf(id).state() == cri::CONTAINER_CREATED);
  CHECK(node.StatusOf(id).started_at() == 0);
  REQUIRE(node.containers().Start(TestNode::Call(), id).ok());
  const auto status = node.Exited(id);
  CHECK(status.exit_code() == 3);
  CHECK(status.reason() == "Error");
  CHECK(status.started_at() > status.created_at());
  CHECK(status.finished_at() >= status.started_at());
  CHECK(status.image().image() == "busybox");
  CHECK(node.Log().find(" stdout F out\n") != std::string::npos);
  CHECK(node.Log().find(" stderr F err\n") != std::string::npos);
  CHECK_FALSE(node.containers().Start(TestNode::Call(), id).ok());
  // A retry whose first answer was lost, with this front or with one that was killed since.
  const std::int64_t started = status.started_at();
  constexpr std::int64_t kMinute = 60'000'000'000;
  const auto retried = [&](const StartAsked& asked) {
    return node.containers().Start(TestNode::Call(), id, asked).code();
  };
  CHECK(retried({.at = started - 1}) == Code::kOk);
  CHECK(retried({.at = started + 1}) == Code::kFailedPrecondition);
  CHECK(retried({.at = started + 1, .caller_began = started + 1}) == Code::kOk);
  CHECK(retried({.at = started + 2 * kMinute, .caller_began = started + 2 * kMinute}) ==
        Code::kFailedPrecondition);
  CHECK(retried({.at = started + 1, .caller_began = started - 1}) == Code::kFailedPrecondition);
  REQUIRE(node.containers().Remove(TestNode::Call(), id).ok());
  REQUIRE(node.containers().Remove(TestNode::Call(), id).ok());
  CHECK(node.containers().GetStatus(id, false).code() == Code::kNotFound);
  RemovePod(node, pod);
  CHECK(IsEmpty(node.Leftovers()));
  CHECK_FALSE(node.Log().empty());
}

TEST_CASE("The verbose status names pid and spec") {
  TestNode node;
  const PodId pod = node.Pod();
  const ContainerId id = node.Run(pod, {});
  const auto response = node.containers().GetStatus(id, true);
  REQUIRE(response.ok());
  const auto info = json::Parse(response->info().at("info"));
  REQUIRE(info.ok());
  CHECK(info->at("sandboxID") == pod.str());
  CHECK(info->at("pid").get<int>() > 0);
  CHECK(info->at("runtimeSpec").is_object());
  const auto of_pod = node.pods().GetStatus(pod, true);
  CHECK(of_pod->status().state() == cri::SANDBOX_READY);
  // A process by which tools enter the pod: without one of its own, its first container's.
  const auto pid_in_pod = [&] {
    const auto status = node.pods().GetStatus(pod, true);
    return json::Parse(status->info().at("info")).value().at("pid").get<int>();
  };
  CHECK(pid_in_pod() == info->at("pid").get<int>());
  node.Run(pod, {.name = "second"});
  CHECK(pid_in_pod() == info->at("pid").get<int>());
  REQUIRE(node.containers().Remove(TestNode::Call(), id).ok());
  CHECK(pid_in_pod() != info->at("pid").get<int>());
  CHECK(pid_in_pod() > 0);
  REQUIRE(node.pods().Stop(TestNode::Call(), pod).ok());
  CHECK(pid_in_pod() == 0);
}

TEST_CASE("A command that does not exist is one clear error, and nothing is left of it") {
  TestNode node;
  const PodId pod = node.Pod();
  const ContainerId id = node.Reserve(pod, "c");
  const auto created = node.containers().Create(
      TestNode::Call(), node.CreateRequest(pod, id, {.command = {"/no/such/program"}}));
  REQUIRE_FALSE(created.ok());
  INFO(created.status().ToString());
  CHECK(created.status().message().find("/no/such/program") != std::string::npos);
  CHECK(node.containers().GetStatus(id, false).code() == Code::kNotFound);
  // The name is still free for a better command.
  CHECK(node.containers().Create(TestNode::Call(), node.CreateRequest(pod, id, {})).ok());
  RemovePod(node, pod);
  CHECK(IsEmpty(node.Leftovers()));
}

TEST_CASE("A start that fails is told in the runtime's words, and kept as StartError") {
  TestNode node;
  node.FailAt("start", "level=error msg=\"no luck today\"");
  node.Restart();
  const PodId pod = node.Pod();
  const ContainerId id = node.Create(pod, {});
  const auto started = node.containers().Start(TestNode::Call(), id);
  REQUIRE_FALSE(started.ok());
  CHECK(started.status().message().find("no luck today") != std::string::npos);
  const auto status = node.StatusOf(id);
  CHECK(status.state() == cri::CONTAINER_EXITED);
  CHECK(status.exit_code() == 128);
  CHECK(status.reason() == "StartError");
  CHECK(status.finished_at() >= status.started_at());
  CHECK(status.started_at() >= status.created_at());
  RemovePod(node, pod);
  CHECK(IsEmpty(node.Leftovers()));
}

TEST_CASE("Reservations that nobody comes back for are removed, and nothing else") {
  TestNode node;
  node.AbandonAtOnce();
  node.Restart();
  const PodId pod = node.Pod();
  const ContainerId kept = node.Create(pod, {});
  const ContainerId left = node.Reserve(pod, "left");
  node.pods().RemoveAbandoned(TestNode::Call());
  CHECK(node.state().FindPod(pod) != nullptr);
  CHECK(node.state().FindContainer(kept) != nullptr);
  CHECK(node.state().FindContainer(left) == nullptr);
}

TEST_CASE("What has come alive meanwhile is not removed as abandoned") {
  TestNode node;
  const PodId pod = node.Pod();
  const ContainerId id = node.Reserve(pod, "c");
  const auto reserved_at = [&] { return node.state().FindContainer(id)->touched_at(); };
  const std::int64_t seen = reserved_at();
  const auto is_as_seen = [seen](const ContainerRecord& record) {
    return record.phase() == v1::RESERVED && record.touched_at() == seen;
  };
  REQUIRE(node.Reserve(pod, "c") == id);  // somebody comes back
  CHECK(node.containers().RemoveIf(TestNode::Call(), id, is_as_seen).code() == Code::kAborted);
  REQUIRE(node.containers().Create(TestNode::Call(), node.CreateRequest(pod, id, {})).ok());
  CHECK(node.containers().RemoveIf(TestNode::Call(), id, is_as_seen).code() == Code::kAborted);
  CHECK(node.StatusOf(id).state() == cri::CONTAINER_CREATED);
  CHECK(node.pods().RemoveIf(TestNode::Call(), pod, &IsHalfMade).code() == Code::kAborted);
  CHECK(node.pods().GetStatus(pod, false)->status().state() == cri::SANDBOX_READY);
}

TEST_CASE("What a pod may is what it was made with, not what a container's request says") {
  TestNode node;
  const PodId pod = node.Pod();
  const ContainerId id = node.Reserve(pod, "c");
  auto request = node.CreateRequest(pod, id, {});
  request.mutable_config()->mutable_linux()->mutable_security_context()->set_privileged(true);
  auto& claimed = *request.mutable_sandbox_config();
  claimed.mutable_linux()->mutable_security_context()->set_privileged(true);
  claimed.set_log_directory(node.root() / "elsewhere");
  const auto refused = node.containers().Create(TestNode::Call(), request);
  CHECK(refused.code() == Code::kInvalidArgument);
  CHECK(refused.status().message().find("privileged") != std::string::npos);
  request.mutable_config()->mutable_linux()->mutable_security_context()->set_privileged(false);
  REQUIRE(node.containers().Create(TestNode::Call(), request).ok());
  CHECK_FALSE(os::Exists(node.root() / "elsewhere"));
}

TEST_CASE("A directory and a single file of an image are volumes") {
  TestNode node;
  const PodId pod = node.Pod();
  const ContainerId id = node.Reserve(pod, "c");
  const auto add = [](cri::ContainerConfig& config) {
    for (const char* part : {"etc", "etc/passwd"}) {
      cri::Mount& mount = *config.add_mounts();
      mount.set_container_path(std::string("/volumes/") + part + ".of");
      mount.mutable_image()->set_image("sha256:1");
      mount.set_image_sub_path(part);
      mount.set_readonly(true);
    }
  };
  auto request = node.CreateRequest(
      pod, id,
      {.command = {"cat", "/volumes/etc.of/group", "/volumes/etc/passwd.of"}, .change = add});
  for (int i = 0; i < 2; ++i) {
    v1::ImageVolume& volume = *request.add_image_volumes();
    volume.set_mount_index(i);
    *volume.mutable_image()->mutable_mounts() = request.image().mounts();
  }
  const auto created = node.containers().Create(TestNode::Call(), request);
  INFO(created.status().ToString());
  REQUIRE(created.ok());
  REQUIRE(node.containers().Start(TestNode::Call(), id).ok());
  CHECK(node.Exited(id).exit_code() == 0);
  CHECK(node.Log().find("root:x:0:\n") != std::string::npos);
  CHECK(node.Log().find("/root:/bin/sh") != std::string::npos);
  RemovePod(node, pod);
  CHECK(IsEmpty(node.Leftovers()));
}

TEST_CASE("A command after an update asks for the oom_score_adj of the update") {
  TestNode node;
  const ContainerId id =
      node.Run(node.Pod(), {.change = [](cri::ContainerConfig& config) {
                 config.mutable_linux()->mutable_resources()->set_oom_score_adj(100);
               }});
  cri::UpdateContainerResourcesRequest update;
  update.set_container_id(id.str());
  update.mutable_linux()->set_oom_score_adj(300);
  REQUIRE(node.engine().resources().UpdateContainer(TestNode::Call(), update).ok());
  // What comes of it is the runtime's matter: runc 1.1 takes what the container was created with.
  cri::ExecSyncRequest request;
  request.add_cmd("true");
  const auto plan = PlanExec(node.engine().parts(), id, request.cmd(), false, node.root().path());
  REQUIRE(plan.ok());
  CHECK(json::Parse(plan->process_json)->at("oomScoreAdj") == 300);
}

TEST_CASE("An annotation that an update of resources comes with is refused by name") {
  TestNode node;
  const ContainerId id = node.Run(node.Pod(), {});
  cri::UpdateContainerResourcesRequest update;
  update.set_container_id(id.str());
  update.mutable_linux()->set_oom_score_adj(300);
  (*update.mutable_annotations())["a"] = "b";
  const Status refused = node.engine().resources().UpdateContainer(TestNode::Call(), update);
  CHECK(refused.code() == Code::kInvalidArgument);
  CHECK(refused.message().starts_with("annotations"));
}

TEST_CASE("A file that an update could not undo is refused by name") {
  TestNode node;
  if (node.engine().parts().cgroups.mode() != os::CgroupMode::kV2) return;
  const ContainerId id = node.Run(node.Pod(), {});
  cri::UpdateContainerResourcesRequest update;
  update.set_container_id(id.str());
  (*update.mutable_linux()->mutable_unified())["io.max"] = "8:0 rbps=1000000";
  const Status refused = node.engine().resources().UpdateContainer(TestNode::Call(), update);
  CHECK(refused.code() == Code::kInvalidArgument);
  CHECK(refused.message().find("io.max") != std::string::npos);
}

TEST_CASE("The PID namespace of another container is joined only while that lives") {
  TestNode node;
  const PodId pod = node.Pod();
  const ContainerId target = node.Run(pod, {.name = "target", .log_path = ""});
  const auto into = [&target](cri::ContainerConfig& config) {
    auto& namespaces =
        *config.mutable_linux()->mutable_security_context()->mutable_namespace_options();
    namespaces.set_pid(cri::TARGET);
    namespaces.set_target_id(target.str());
  };
  const ContainerId guest = node.Run(pod, {.command = {"ps"}, .name = "guest", .change = into});
  CHECK(node.Exited(guest).exit_code() == 0);
  CHECK(node.Log().find("sleep 1000") != std::string::npos);
  // Another process has its number by now.
  REQUIRE(node.state()
              .ChangeContainer(target,
                               [](ContainerRecord& record) {
                                 record.mutable_init()->set_start_time(1);
                                 return Status::Ok();
                               })
              .ok());
  const ContainerId late = node.Reserve(pod, "late");
  const auto refused = node.containers().Create(
      TestNode::Call(), node.CreateRequest(pod, late, {.name = "late", .change = into}));
  CHECK(refused.code() == Code::kFailedPrecondition);
  CHECK(refused.status().message().find("target_id") != std::string::npos);
}

TEST_CASE("Containers of a pod with a shared PID namespace see each other and its pause") {
  TestNode node;
  const PodId pod = node.Pod("shared", [](cri::PodSandboxConfig& config) {
    config.mutable_linux()->mutable_security_context()->mutable_namespace_options()->set_pid(
        cri::POD);
  });
  CHECK(PodFilesOf(node.layout(), *node.state().FindPod(pod)).pid_ns_path ==
        node.layout().PidPath(pod));
  CHECK(os::IsPinnedNamespace(node.layout().PidPath(pod)).value());
  const ContainerId one = node.Run(pod, {.name = "one", .log_path = ""});
  const ContainerId two = node.Run(pod, {.command = {"ps"}, .name = "two"});
  CHECK(node.Exited(two).exit_code() == 0);
  CHECK(node.Log().find("crisp-pause") != std::string::npos);
  CHECK(node.Log().find("sleep 1000") != std::string::npos);
  RemovePod(node, pod);
  CHECK(IsEmpty(node.Leftovers()));
}

TEST_CASE("A shared PID namespace that is gone makes its pod not ready") {
  TestNode node;
  const PodId pod = node.Pod("shared", [](cri::PodSandboxConfig& config) {
    config.mutable_linux()->mutable_security_context()->mutable_namespace_options()->set_pid(
        cri::POD);
  });
  const ContainerId id = node.Run(pod, {});
  kill(node.state().FindPod(pod)->pause().pid(), SIGKILL);
  CHECK(node.Exited(id).exit_code() == 137);
  TestNode::Await(
      [&] { return node.pods().GetStatus(pod, false)->status().state() == cri::SANDBOX_NOTREADY; });
  RemovePod(node, pod);
  CHECK(IsEmpty(node.Leftovers()));
}

TEST_CASE("A container that runs out of memory says so") {
  TestNode node;
  const ContainerId id =
      node.Run(node.Pod(), {.command = {"dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"},
                            .change = [](cri::ContainerConfig& config) {
                              auto* resources = config.mutable_linux()->mutable_resources();
                              resources->set_memory_limit_in_bytes(32 << 20);
                              resources->set_memory_swap_limit_in_bytes(32 << 20);
                            }});
  const auto status = node.Exited(id);
  CHECK(status.exit_code() == 137);
  CHECK(status.reason() == "OOMKilled");
}

TEST_CASE("A log is reopened at its path, and only while its container runs") {
  TestNode node;
  const PodId pod = node.Pod();
  const ContainerId id =
      node.Run(pod, {.command = {"sh", "-c", "while :; do echo tick; sleep 0.02; done"}});
  const std::string path = node.StatusOf(id).log_path();
  REQUIRE(os::Rename(path, path + ".old").ok());
  const Status reopened = node.containers().ReopenLog(TestNode::Call(), id);
  INFO(reopened.ToString());
  REQUIRE(reopened.ok());
  CHECK(os::Exists(path));
  TestNode::Await([&] { return node.Log().find("tick") != std::string::npos; });
  REQUIRE(node.End(id, std::chrono::seconds(0)).ok());
  REQUIRE(os::Rename(path, path + ".older").ok());
  CHECK(node.containers().ReopenLog(TestNode::Call(), id).code() == Code::kFailedPrecondition);
  CHECK_FALSE(os::Exists(path));
}

TEST_CASE("ExecSync answers output and exit code") {
  TestNode node;
  const ContainerId id = node.Run(node.Pod(), {});
  cri::ExecSyncRequest request;
  request.set_container_id(id.str());
  for (const char* word : {"sh", "-c", "echo yes; echo no >&2; exit 4"}) request.add_cmd(word);
  const auto response = node.containers().ExecSync(TestNode::Call(), request);
  REQUIRE(response.ok());
  CHECK(response->exit_code() == 4);
  CHECK(response->stdout() == "yes\n");
  CHECK(response->stderr() == "no\n");
}

TEST_CASE("A command whose time was over before its turn came is not begun") {
  TestNode node;
  const ContainerId id = node.Run(node.Pod(), {});
  cri::ExecSyncRequest request;
  request.set_container_id(id.str());
  request.set_timeout(1);
  for (const char* word : {"sh", "-c", "echo begun > /tmp/begun"}) request.add_cmd(word);
  const auto long_ago = std::chrono::steady_clock::now() - std::chrono::seconds(2);
  const auto late = node.containers().ExecSync(TestNode::Call(), request, long_ago);
  CHECK(late.code() == Code::kDeadlineExceeded);
  CHECK_FALSE(os::Exists(node.layout().Rootfs(id) + "/tmp/begun"));
  request.set_timeout(std::numeric_limits<std::int64_t>::max());
  CHECK(node.containers().ExecSync(TestNode::Call(), request, long_ago).ok());
  CHECK(os::Exists(node.layout().Rootfs(id) + "/tmp/begun"));
}

TEST_CASE("Commands that hang in one container leave the others their turn") {
  TestNode node;
  const std::string go = node.root() / "go";
  node.Instead("exec", "while [ ! -e " + go + " ]; do sleep 0.2; done; exit 1");
  node.Restart();
  const PodId pod = node.Pod();
  const ContainerId hung = node.Run(pod, {.name = "hung", .log_path = ""});
  const ContainerId other = node.Run(pod, {.name = "other", .log_path = ""});
  const auto exec = [&node](const ContainerId& id) {
    return std::async(std::launch::async, [&node, id] {
      cri::ExecSyncRequest request;
      request.set_container_id(id.str());
      request.add_cmd("true");
      return node.containers().ExecSync(TestNode::Call(), request).code();
    });
  };
  std::vector<std::future<Code>> calls;
  for (int i = 0; i < Containers::kMaxExecs + 1; ++i) calls.push_back(exec(hung));
  const auto refused = [&calls] {
    return std::any_of(calls.begin(), calls.end(), [](std::future<Code>& call) {
      return call.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
    });
  };
  TestNode::Await(refused);
  auto beside = exec(other);
  REQUIRE(os::WriteFile(go, "").ok());
  CHECK(beside.get() == Code::kUnknown);  // its runtime failed
  int exhausted = 0;
  for (std::future<Code>& call : calls) exhausted += call.get() == Code::kResourceExhausted ? 1 : 0;
  CHECK(exhausted == 1);
}

TEST_CASE("Only monitors are killed as such, not containers that call themselves so") {
  TestNode node;
  const PodId pod = node.Pod();
  const ContainerId real = node.Run(pod, {.name = "real", .log_path = ""});
  const std::string bundle = node.layout().Bundle(real);
  const ContainerId liar = node.Run(
      pod,
      {.command = {"sh", "-c", "sleep 1000; true", "-b", bundle}, .name = "liar", .log_path = ""});
  KillMonitors(bundle);
  CHECK(node.Exited(real).exit_code() == 255);
  CHECK(node.StatusOf(liar).state() == cri::CONTAINER_RUNNING);
  CHECK(os::Alive(ProcessOf(node.state().FindContainer(liar)->init())));
  RemovePod(node, pod);
  CHECK(IsEmpty(node.Leftovers()));
}

TEST_CASE("The status of a pod tells of its containers as well, all of one moment") {
  TestNode node;
  const PodId pod = node.Pod(
      "p", [](cri::PodSandboxConfig& config) { (*config.mutable_annotations())["note"] = "x"; });
  const ContainerId one = node.Run(pod, {.name = "one", .log_path = ""});
  const ContainerId two = node.Create(pod, {.name = "two", .log_path = ""});
  node.Reserve(pod, "three");  // not there yet
  const auto response = node.pods().GetStatus(pod, true);
  REQUIRE(response.ok());
  REQUIRE(response->containers_statuses_size() == 2);
  CHECK(response->containers_statuses(0).id() == one.str());
  CHECK(response->containers_statuses(0).state() == cri::CONTAINER_RUNNING);
  CHECK(response->containers_statuses(1).id() == two.str());
  CHECK(response->timestamp() >= response->containers_statuses(1).created_at());
  // For tools that look for a sandbox's namespaces.
  const auto info = json::Parse(response->info().at("info"));
  REQUIRE(info.ok());
  const nlohmann::json& spec = info->at("runtimeSpec");
  CHECK(spec.at("annotations").at("note") == "x");
  CHECK(spec.at("hostname").is_string());
  CHECK(spec.at("linux").at("cgroupsPath") == node.state().FindPod(pod)->cgroup_parent());
  const nlohmann::json ipc = {{"type", "ipc"}, {"path", node.layout().IpcPath(pod)}};
  const nlohmann::json& namespaces = spec.at("linux").at("namespaces");
  CHECK(std::find(namespaces.begin(), namespaces.end(), ipc) != namespaces.end());
}

TEST_CASE("A monitor that is killed takes its container along, with code 255") {
  TestNode node;
  const PodId pod = node.Pod();
  const ContainerId id = node.Run(pod, {});
  const pid_t init = node.state().FindContainer(id)->init().pid();
  kill(node.state().FindContainer(id)->monitor().pid(), SIGKILL);
  const auto status = node.Exited(id);
  CHECK(status.exit_code() == 255);
  CHECK(status.message().starts_with("ContainerMonitorDied"));
  TestNode::Await([&] { return kill(init, 0) != 0; });
  RemovePod(node, pod);
  CHECK(IsEmpty(node.Leftovers()));
}

TEST_CASE("The same key is the same pod, and a container is created once") {
  TestNode node;
  const PodId pod = node.Pod("same");
  v1::ReservePodRequest again;
  again.set_pod_id(std::string(64, 'c'));
  *again.mutable_metadata() = node.state().FindPod(pod)->metadata();
  const auto found = node.pods().Reserve(again);
  REQUIRE(found.ok());
  CHECK(found->pod_id() == pod.str());
  CHECK(found->phase() == v1::LIVE);
  const ContainerId id = node.Create(pod, {});
  CHECK(node.Reserve(pod, "c") == id);
  CHECK(node.containers().Create(TestNode::Call(), node.CreateRequest(pod, id, {})).ok());
  again.set_runtime_handler("nonesuch");
  again.mutable_metadata()->set_attempt(1);
  const auto unknown = node.pods().Reserve(again);
  CHECK(unknown.code() == Code::kInvalidArgument);
  CHECK(unknown.status().message().find("runc") != std::string::npos);
}

TEST_CASE("What cannot be honoured is refused by name, and leaves nothing") {
  TestNode node;
  v1::ReservePodRequest reserve;
  reserve.set_pod_id(std::string(64, 'd'));
  reserve.mutable_metadata()->set_name("p");
  reserve.mutable_metadata()->set_namespace_("n");
  reserve.mutable_metadata()->set_uid("u");
  REQUIRE(node.pods().Reserve(reserve).ok());
  v1::PreparePodRequest prepare;
  prepare.set_pod_id(reserve.pod_id());
  (*prepare.mutable_config()->mutable_linux()->mutable_sysctls())["vm.swappiness"] = "1";
  const auto refused = node.pods().Prepare(TestNode::Call(), prepare);
  CHECK(refused.code() == Code::kInvalidArgument);
  CHECK(refused.status().message().find("vm.swappiness") != std::string::npos);
  CHECK(node.pods().Remove(TestNode::Call(), PodId(reserve.pod_id())).ok());
  CHECK(IsEmpty(node.Leftovers()));
}
