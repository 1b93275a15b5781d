#include <future>
#include <regex>
#include <set>

#include "integration/e2e/shared_node.h"
#include "libs/os/files.h"

namespace crisp::harness {
namespace {

using std::chrono::seconds;
using Runtime = cri::RuntimeService::StubInterface;

TEST_CASE("A container goes from CREATED over RUNNING to EXITED with its exit code") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("life", true);
  const std::string pod = on.Pod(pod_config);
  auto config = on.node.ContainerConfig(
      "c", {"sh", "-c", "while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 42"});
  (*config.mutable_labels())["l"] = "1";
  (*config.mutable_annotations())["a"] = "2";
  const std::string id = on.Created(pod, pod_config, config);
  CHECK(id.size() == 64);

  auto status = on.StatusOf(id);
  CHECK(status.state() == cri::ContainerState::CONTAINER_CREATED);
  CHECK(status.created_at() > 0);
  CHECK(status.started_at() == 0);
  CHECK(status.finished_at() == 0);
  CHECK(status.log_path() == Node::LogPath(pod_config, config));
  CHECK(status.image().image() == on.node.Busybox());
  CHECK_FALSE(status.image_ref().empty());
  CHECK(status.labels().at("l") == "1");
  CHECK(status.annotations().at("a") == "2");

  REQUIRE_OK(on.cri.Start(id));
  status = on.StatusOf(id);
  CHECK(status.state() == cri::ContainerState::CONTAINER_RUNNING);
  CHECK(status.started_at() >= status.created_at());
  CHECK(os::Exists(status.log_path()));

  CHECK(on.cri.ExecSync(id, {"touch", "/tmp/go"}).ok());
  status = on.Exited(id);
  CHECK(status.exit_code() == 42);
  CHECK(status.reason() == "Error");
  CHECK(status.finished_at() >= status.started_at());

  CHECK_FALSE(on.cri.Start(id).ok());
  REQUIRE_OK(on.cri.Remove(id));
  CHECK(on.cri.ContainerStatus(id).code() == grpc::StatusCode::NOT_FOUND);
  CHECK(os::Exists(Node::LogPath(pod_config, config)));
}

TEST_CASE("A container that ends well is Completed; one killed by a signal has 128 + n") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("codes", true);
  const std::string pod = on.Pod(pod_config);
  const std::string fine = on.Running(pod, pod_config, on.node.ContainerConfig("fine", {"true"}));
  const std::string segv = on.Running(
      pod, pod_config,
      on.node.ContainerConfig("segv", {"sh", "-c", R"(sh -c "kill -SEGV \$\$"; exit $?)"}));
  auto status = on.Exited(fine);
  CHECK(status.exit_code() == 0);
  CHECK(status.reason() == "Completed");
  CHECK(on.Exited(segv).exit_code() == 139);
}

TEST_CASE("The log has a line for each line, with time, stream and tag") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("logs", true);
  const std::string pod = on.Pod(pod_config);
  const auto config = on.node.ContainerConfig(
      "c", {"sh", "-c", "echo one; echo two >&2; printf three; sleep 0.1; echo"});
  const std::string id = on.Running(pod, pod_config, config);
  on.Exited(id);
  const std::string log = on.Log(pod_config, config, "three");
  const std::regex line(
      R"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(Z|[+-]\d\d:\d\d) (stdout|stderr) (P|F) .*)");
  std::size_t start = 0;
  int lines = 0;
  while (start < log.size()) {
    const std::size_t end = log.find('\n', start);
    REQUIRE(end != std::string::npos);
    INFO(log.substr(start, end - start));
    CHECK(std::regex_match(log.substr(start, end - start), line));
    start = end + 1;
    ++lines;
  }
  CHECK(lines >= 3);
  CHECK(log.find(" stdout F one\n") != std::string::npos);
  CHECK(log.find(" stderr F two\n") != std::string::npos);
  CHECK(log.find(" stdout P three\n") != std::string::npos);
}

TEST_CASE("ReopenContainerLog makes a new file at the old path") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("rotate", true);
  const std::string pod = on.Pod(pod_config);
  const auto config = on.node.ContainerConfig(
      "c", {"sh", "-c",
            "echo before; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo after; sleep 1000"});
  const std::string id = on.Running(pod, pod_config, config);
  on.Log(pod_config, config, "before");
  const std::string path = Node::LogPath(pod_config, config);
  REQUIRE(os::Rename(path, path + ".1").ok());
  cri::ReopenContainerLogRequest request;
  request.set_container_id(id);
  REQUIRE_OK(on.cri.Call(&Runtime::ReopenContainerLog, request));
  CHECK(os::Exists(path));
  REQUIRE_OK(on.cri.ExecSync(id, {"touch", "/tmp/go"}));
  const std::string log = on.Log(pod_config, config, "after");
  CHECK(log.find("after") != std::string::npos);
  CHECK(log.find("before") == std::string::npos);

  REQUIRE_OK(on.cri.Stop(id, 0));
  CHECK_FALSE(on.cri.Call(&Runtime::ReopenContainerLog, request).ok());
  request.set_container_id(std::string(64, 'c'));
  CHECK(on.cri.Call(&Runtime::ReopenContainerLog, request).code() == grpc::StatusCode::NOT_FOUND);
}

TEST_CASE("Stop sends the stop signal, then after the grace SIGKILL") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("stop", true);
  const std::string pod = on.Pod(pod_config);
  const auto polite =
      on.Running(pod, pod_config,
                 on.node.ContainerConfig(
                     "polite", {"sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.05; done"}));
  const auto deaf = on.Running(
      pod, pod_config,
      on.node.ContainerConfig("deaf", {"sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"}));
  on.cri.ExecSync(polite, {"sleep", "0.2"});  // until the traps are set

  REQUIRE_OK(on.cri.Stop(polite, 30));
  CHECK(on.StatusOf(polite).exit_code() == 5);
  const auto start = std::chrono::steady_clock::now();
  REQUIRE_OK(on.cri.Stop(deaf, 1));
  const auto took = std::chrono::steady_clock::now() - start;
  CHECK(took > std::chrono::milliseconds(900));
  CHECK(took < seconds(10));
  CHECK(on.StatusOf(deaf).exit_code() == 137);
  CHECK(on.cri.Stop(deaf, 1).ok());
}

TEST_CASE("The stop signal of the config wins over the image's") {
  OnNode on;
  const auto image = on.node.MakeImage("signal:1", {"--stop-signal", "SIGUSR2"});
  REQUIRE_OK(on.cri.Pull(image["ref"]));
  const auto pod_config = on.node.PodConfig("signals", true);
  const std::string pod = on.Pod(pod_config);
  const char* script = "trap 'exit 11' USR1; trap 'exit 12' USR2; while :; do sleep 0.05; done";
  auto config = on.node.ContainerConfig("image", {"sh", "-c", script});
  config.mutable_image()->set_image(image["ref"]);
  const std::string by_image = on.Running(pod, pod_config, config);
  config.mutable_metadata()->set_name("config");
  config.set_stop_signal(cri::Signal::SIGNAL_SIGUSR1);
  const std::string by_config = on.Running(pod, pod_config, config);
  on.cri.ExecSync(by_config, {"sleep", "0.2"});
  REQUIRE_OK(on.cri.Stop(by_image, 10));
  REQUIRE_OK(on.cri.Stop(by_config, 10));
  CHECK(on.StatusOf(by_image).exit_code() == 12);
  CHECK(on.StatusOf(by_config).exit_code() == 11);
}

TEST_CASE("Unknown containers: Stop and Remove succeed, the rest is NOT_FOUND") {
  OnNode on;
  const std::string unknown(64, 'd');
  CHECK(on.cri.Stop(unknown, 0).ok());
  CHECK(on.cri.Remove(unknown).ok());
  CHECK(on.cri.Start(unknown).code() == grpc::StatusCode::NOT_FOUND);
  CHECK(on.cri.ContainerStatus(unknown).code() == grpc::StatusCode::NOT_FOUND);
  const auto pod_config = on.node.PodConfig("none", true);
  const auto created = on.cri.Create(unknown, on.node.ContainerConfig("c", {"true"}), pod_config);
  CHECK_FALSE(created.ok());
}

TEST_CASE("Remove takes running, created and exited containers, twice as well") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("remove", true);
  const std::string pod = on.Pod(pod_config);
  const std::string running =
      on.Running(pod, pod_config, on.node.ContainerConfig("running", {"sleep", "1000"}));
  const std::string created =
      on.Created(pod, pod_config, on.node.ContainerConfig("created", {"true"}));
  const std::string exited =
      on.Running(pod, pod_config, on.node.ContainerConfig("exited", {"true"}));
  on.Exited(exited);
  for (const std::string& id : {running, created, exited}) {
    CHECK(on.cri.Remove(id).ok());
    CHECK(on.cri.Remove(id).ok());
    CHECK(on.cri.ContainerStatus(id).code() == grpc::StatusCode::NOT_FOUND);
  }
  CHECK(on.cri.ListContainers()->containers().empty());
}

TEST_CASE("Container filters are combined, ids are found by prefix") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("filters", true);
  const std::string pod = on.Pod(pod_config);
  auto config = on.node.ContainerConfig("first", {"sleep", "1000"});
  (*config.mutable_labels())["role"] = "x";
  const std::string first = on.Running(pod, pod_config, config);
  const std::string second =
      on.Created(pod, pod_config, on.node.ContainerConfig("second", {"sleep", "1000"}));
  const auto ids = [&](const cri::ContainerFilter& filter) {
    std::set<std::string> found;
    const auto answer = on.cri.ListContainers(filter);
    REQUIRE_OK(answer);
    for (const auto& container : answer->containers()) found.insert(container.id());
    return found;
  };
  CHECK(ids({}) == std::set{first, second});
  cri::ContainerFilter filter;
  filter.mutable_state()->set_state(cri::ContainerState::CONTAINER_RUNNING);
  CHECK(ids(filter) == std::set{first});
  filter.set_pod_sandbox_id(pod.substr(0, 13));
  (*filter.mutable_label_selector())["role"] = "x";
  CHECK(ids(filter) == std::set{first});
  filter.set_id(second);
  CHECK(ids(filter).empty());
  filter.Clear();
  filter.set_id(second.substr(0, 13));
  CHECK(ids(filter) == std::set{second});
  CHECK(on.StatusOf(first.substr(0, 13)).id() == first);
}

TEST_CASE("Creating the same container again gives the same id") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("again", true);
  const std::string pod = on.Pod(pod_config);
  auto config = on.node.ContainerConfig("c", {"sleep", "1000"});
  std::vector<std::future<Answer<cri::CreateContainerResponse>>> calls;
  for (int i = 0; i < 5; ++i) {
    calls.push_back(
        std::async(std::launch::async, [&] { return on.cri.Create(pod, config, pod_config); }));
  }
  std::set<std::string> ids;
  for (auto& call : calls) {
    const auto answer = call.get();
    REQUIRE_OK(answer);
    ids.insert(answer->container_id());
  }
  CHECK(ids.size() == 1);
  config.mutable_metadata()->set_attempt(1);
  CHECK_FALSE(ids.contains(on.Created(pod, pod_config, config)));
}

TEST_CASE("Mounts: read-write, read-only, and what the status says of them") {
  OnNode on;
  const std::string shared = on.node.dir() + "/logs/shared";
  REQUIRE(os::MakeDirs(shared).ok());
  REQUIRE(os::WriteFile(shared + "/file", "from the host\n").ok());
  const auto pod_config = on.node.PodConfig("mounts", true);
  const std::string pod = on.Pod(pod_config);
  auto config = on.node.ContainerConfig("c", {"sleep", "1000"});
  auto* read_write = config.add_mounts();
  read_write->set_host_path(shared);
  read_write->set_container_path("/rw");
  auto* read_only = config.add_mounts();
  read_only->set_host_path(shared);
  read_only->set_container_path("/ro");
  read_only->set_readonly(true);
  const std::string id = on.Running(pod, pod_config, config);
  CHECK(on.cri.ExecSync(id, {"cat", "/ro/file"})->stdout() == "from the host\n");
  CHECK(on.cri.ExecSync(id, {"sh", "-c", "echo from the container > /rw/new"})->exit_code() == 0);
  CHECK(on.cri.ExecSync(id, {"touch", "/ro/other"})->exit_code() != 0);
  CHECK(os::ReadFile(shared + "/new").value_or("") == "from the container\n");
  const auto status = on.StatusOf(id);
  REQUIRE(status.mounts_size() == 2);
  CHECK(status.mounts(0).host_path() == shared);
}

TEST_CASE(
    "User, groups, working directory, environment and arguments follow the request and the image") {
  OnNode on;
  const auto image = on.node.MakeImage(
      "config:1", {"--user", "www-data", "--workdir", "/made/up", "--env", "FROM=image", "--env",
                   "BOTH=image", "--entrypoint", R"(["sh","-c"])", "--cmd",
                   R"(["id -u; id -g; pwd; echo $FROM $BOTH $HOSTNAME"])"});
  REQUIRE_OK(on.cri.Pull(image["ref"]));
  const auto pod_config = on.node.PodConfig("words", true);
  const std::string pod = on.Pod(pod_config);
  auto config = on.node.ContainerConfig("image", {});
  config.mutable_image()->set_image(image["ref"]);
  auto* env = config.add_envs();
  env->set_key("BOTH");
  env->set_value("request");
  on.Exited(on.Running(pod, pod_config, config));
  const std::string log = on.Log(pod_config, config, "request");
  CHECK(log.find(" F 33\n") != std::string::npos);
  CHECK(log.find(" F /made/up\n") != std::string::npos);
  CHECK(log.find("image request") != std::string::npos);

  auto other = on.node.ContainerConfig("request", {});
  other.mutable_image()->set_image(image["ref"]);
  other.add_args("id -u; id -G");
  auto* security = other.mutable_linux()->mutable_security_context();
  security->mutable_run_as_user()->set_value(1234);
  security->mutable_run_as_group()->set_value(5678);
  security->add_supplemental_groups(99);
  const std::string id = on.Running(pod, pod_config, other);
  on.Exited(id);
  const std::string other_log = on.Log(pod_config, other, "99");
  CHECK(other_log.find(" F 1234\n") != std::string::npos);
  CHECK(other_log.find("5678") != std::string::npos);
  CHECK(other_log.find("99") != std::string::npos);
}

TEST_CASE("Resource limits are those of the cgroup") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("limits", true);
  const std::string pod = on.Pod(pod_config);
  auto config = on.node.ContainerConfig("c", {"sleep", "1000"});
  auto* resources = config.mutable_linux()->mutable_resources();
  resources->set_memory_limit_in_bytes(64 << 20);
  resources->set_cpu_shares(512);
  resources->set_cpu_period(100000);
  resources->set_cpu_quota(50000);
  resources->set_oom_score_adj(-997);  // clamped where we may not lower it
  const std::string id = on.Running(pod, pod_config, config);
  const std::string v1 =
      on.cri
          .ExecSync(id, {"sh", "-c",
                         "cat /sys/fs/cgroup/memory/memory.limit_in_bytes || cat "
                         "/sys/fs/cgroup/memory.max"})
          ->stdout();
  CHECK(v1 == "67108864\n");
}

TEST_CASE("A container over its memory limit is OOMKilled with 137") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("oom", true);
  const std::string pod = on.Pod(pod_config);
  auto config = on.node.ContainerConfig(
      "c", {"sh", "-c", "exec dd if=/dev/zero of=/dev/null bs=200M count=1"});
  config.mutable_linux()->mutable_resources()->set_memory_limit_in_bytes(16 << 20);
  config.mutable_linux()->mutable_resources()->set_memory_swap_limit_in_bytes(16 << 20);
  const std::string id = on.Running(pod, pod_config, config);
  const auto status = on.Exited(id);
  CHECK(status.exit_code() == 137);
  CHECK(status.reason() == "OOMKilled");
}

TEST_CASE("A terminal's output is one stream") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("tty", true);
  const std::string pod = on.Pod(pod_config);
  auto config = on.node.ContainerConfig("c", {"sh", "-c", "tty; echo err >&2; echo $TERM"});
  config.set_tty(true);
  on.Exited(on.Running(pod, pod_config, config));
  const std::string log = on.Log(pod_config, config, "xterm");
  CHECK(log.find("stdout F err\r\n") != std::string::npos);
  CHECK(log.find("/dev/pts/") != std::string::npos);
  CHECK(log.find("xterm") != std::string::npos);
}

TEST_CASE("A created container survives its client's timeout: the retry gets it") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("impatient", true);
  const std::string pod = on.Pod(pod_config);
  const auto config = on.node.ContainerConfig("c", {"sleep", "1000"});
  const auto given_up = on.cri.Create(pod, config, pod_config, std::chrono::milliseconds(3));
  if (!given_up.ok()) CHECK(given_up.code() == grpc::StatusCode::DEADLINE_EXCEEDED);
  const std::string id = on.Created(pod, pod_config, config);
  CHECK(on.cri.ListContainers()->containers_size() == 1);
  REQUIRE_OK(on.cri.Start(id));
}

TEST_CASE("A privileged pod's container sees devices and may mount") {
  OnNode on;
  auto pod_config = on.node.PodConfig("privileged", true);
  pod_config.mutable_linux()->mutable_security_context()->set_privileged(true);
  const std::string pod = on.Pod(pod_config);
  auto config = on.node.ContainerConfig("c", {"sleep", "1000"});
  config.mutable_linux()->mutable_security_context()->set_privileged(true);
  const std::string id = on.Running(pod, pod_config, config);
  const auto mounted =
      on.cri.ExecSync(id, {"sh", "-c", "mkdir /m && mount -t tmpfs x /m && echo yes"});
  CHECK(mounted->stdout() == "yes\n");
}

}  // namespace
}  // namespace crisp::harness
