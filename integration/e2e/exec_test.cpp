#include "integration/e2e/shared_node.h"

namespace crisp::harness {
namespace {

TEST_CASE("ExecSync gives stdout, stderr and the exit code apart") {
  OnNode on;
  const std::string id = on.Sleeper("exec");
  const auto ran = on.cri.ExecSync(id, {"sh", "-c", "echo out; echo err >&2; exit 7"});
  REQUIRE_OK(ran);
  CHECK(ran->stdout() == "out\n");
  CHECK(ran->stderr() == "err\n");
  CHECK(ran->exit_code() == 7);
}

TEST_CASE("ExecSync runs in the container's own world") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("world", true);
  const std::string pod = on.Pod(pod_config);
  auto config = on.node.ContainerConfig("c", {"sleep", "1000"});
  config.set_working_dir("/tmp");
  auto* env = config.add_envs();
  env->set_key("COLOUR");
  env->set_value("blue");
  const std::string id = on.Running(pod, pod_config, config);
  CHECK(on.cri.ExecSync(id, {"pwd"})->stdout() == "/tmp\n");
  CHECK(on.cri.ExecSync(id, {"sh", "-c", "echo $COLOUR"})->stdout() == "blue\n");
  CHECK(on.cri.ExecSync(id, {"sh", "-c", "cat; echo end"})->stdout() == "end\n");
}

TEST_CASE("ExecSync that takes too long is killed and DEADLINE_EXCEEDED") {
  OnNode on;
  const std::string id = on.Sleeper("timeout");
  const auto start = std::chrono::steady_clock::now();
  const auto ran = on.cri.ExecSync(id, {"sh", "-c", "sleep 4712; true"}, 1);
  CHECK(ran.code() == grpc::StatusCode::DEADLINE_EXCEEDED);
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(8));
  const bool gone = Eventually([&] {
    return on.cri.ExecSync(id, {"ps"})->stdout().find("sleep 4712") == std::string::npos;
  });
  CHECK(gone);
  CHECK(on.StatusOf(id).state() == cri::ContainerState::CONTAINER_RUNNING);
}

TEST_CASE("ExecSync keeps 16 MiB of each stream and lets the command end") {
  OnNode on;
  const std::string id = on.Sleeper("flood");
  const auto ran = on.cri.ExecSync(id, {"sh", "-c", "head -c 20000000 /dev/zero; exit 3"}, 60);
  REQUIRE_OK(ran);
  CHECK(ran->exit_code() == 3);
  CHECK(ran->stdout().size() == std::size_t{16} << 20U);
}

TEST_CASE("ExecSync of what cannot run, in what does not run, or of nothing is an error") {
  OnNode on;
  const std::string id = on.Sleeper("wrong");
  const auto no_program = on.cri.ExecSync(id, {"/no/such/program"});
  CHECK((!no_program.ok() || no_program->exit_code() != 0));
  CHECK(on.cri.ExecSync(id, {}).code() == grpc::StatusCode::INVALID_ARGUMENT);
  CHECK(on.cri.ExecSync(std::string(64, 'b'), {"true"}).code() == grpc::StatusCode::NOT_FOUND);
  REQUIRE_OK(on.cri.Stop(id, 0));
  CHECK_FALSE(on.cri.ExecSync(id, {"true"}).ok());
}

}  // namespace
}  // namespace crisp::harness
