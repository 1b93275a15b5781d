#include <algorithm>
#include <filesystem>
#include <regex>

#include "integration/e2e/shared_node.h"
#include "libs/os/files.h"

namespace crisp::harness {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

// Bad input gives one clear error and leaves nothing behind: OnNode's end checks the latter.

bool Mentions(const grpc::Status& status, const std::string& text) {
  INFO(Describe(status));
  CHECK(status.error_message().find(text) != std::string::npos);
  return status.error_message().find(text) != std::string::npos;
}

/// The data file of a blob in the registry's own storage.
std::string BlobFile(const Node& node, const std::string& digest) {
  const std::string hex = digest.substr(7);
  return node.registry_data() + "/docker/registry/v2/blobs/sha256/" + hex.substr(0, 2) + "/" + hex +
         "/data";
}

/// Nothing half-made may stay in imaged's store: every entry counted before and after. What is in
/// the trash is on its way: it is deleted slowly, by design.
std::size_t StoreEntries(const Node& node) {
  std::size_t count = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator walk(node.dir() + "/state/imaged", error);
       !error && walk != fs::recursive_directory_iterator(); walk.increment(error)) {
    const std::string name = walk->path().filename().string();
    if (name == "trash") walk.disable_recursion_pending();
    if (name.find(".db") == std::string::npos) ++count;
  }
  return count;
}

TEST_CASE("A config with a wrong type or an unknown key does not start, and says where") {
  const std::string dir = "/tmp/crisp-t-conf";
  REQUIRE(os::MakeDirs(dir).ok());
  const auto check = [&](const std::string& yaml, const std::string& key) {
    REQUIRE(os::WriteFile(dir + "/crisp.yaml", yaml).ok());
    for (const char* service : {"crid", "imaged", "netd", "rund"}) {
      const Ran ran = RunProgram({CRISP_BUILD_DIR "/bin/crisp-" + std::string(service), "--config",
                                  dir + "/crisp.yaml", "--instance", "1"},
                                 std::chrono::seconds(10));
      INFO(service << ": " << ran.err << ran.out);
      CHECK(ran.code != 0);
      CHECK(ran.code < 128);
      CHECK((ran.err + ran.out).find("crisp.yaml:") != std::string::npos);
      CHECK((ran.err + ran.out).find(key) != std::string::npos);
    }
  };
  const std::string roots = "state_root: " + dir + "/s\nrun_root: " + dir + "/r\n";
  check(roots + "imaged:\n  parallel_layers: many\n", "parallel_layers");
  check(roots + "rund:\n  no_such_key: 1\n", "no_such_key");
  REQUIRE(os::RemoveTree(dir).ok());
}

TEST_CASE("An image that does not exist is NOT_FOUND") {
  OnNode on;
  on.node.Busybox();
  const auto no_tag = on.cri.Pull(on.node.registry() + "/busybox:nope");
  CHECK(no_tag.code() == grpc::StatusCode::NOT_FOUND);
  Mentions(no_tag.status, "busybox:nope");
  CHECK(on.cri.Pull(on.node.registry() + "/nothing/here:1").code() == grpc::StatusCode::NOT_FOUND);

  const auto pod_config = on.node.PodConfig("absent", true);
  const std::string pod = on.Pod(pod_config);
  auto config = on.node.ContainerConfig("c", {"true"});
  config.mutable_image()->set_image(on.node.registry() + "/busybox:nope");
  const auto created = on.cri.Create(pod, config, pod_config);
  CHECK(created.code() == grpc::StatusCode::NOT_FOUND);
  CHECK(on.cri.ListContainers()->containers().empty());
}

TEST_CASE("A reference that is none is INVALID_ARGUMENT") {
  OnNode on;
  for (const char* bad :
       {"", "docker.io/UPPER/case:1", "a b", "x@sha256:zz", "http://example.org/x"}) {
    INFO(bad);
    CHECK(on.cri.Pull(bad).code() == grpc::StatusCode::INVALID_ARGUMENT);
  }
}

TEST_CASE("A registry that is down is named") {
  OnNode on;
  const auto pulled = on.cri.Pull("127.0.0.1:1/x:1");
  // Only of an UNKNOWN does the kubelet look at the first word.
  CHECK(pulled.code() == grpc::StatusCode::UNKNOWN);
  CHECK(pulled.status.error_message().starts_with("RegistryUnavailable: "));
  Mentions(pulled.status, "127.0.0.1:1");
}

TEST_CASE("A layer that does not match its digest is refused and nothing of it stays") {
  OnNode on;
  on.node.Busybox();
  const std::size_t before = StoreEntries(on.node);
  const Json made = on.node.MakeImage("tampered:1", {"--scratch", "--layer-random", "3M"});
  const std::string digest = made["layers"][0]["digest"];
  const std::string file = BlobFile(on.node, digest);
  std::string bytes = os::ReadFile(file, MiB(64)).value_or("");
  REQUIRE(bytes.size() > 1000);
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  REQUIRE(os::WriteFile(file, bytes).ok());
  const auto pulled = on.cri.Pull(made["ref"]);
  CHECK_FALSE(pulled.ok());
  CHECK(pulled.code() != grpc::StatusCode::UNAVAILABLE);
  Mentions(pulled.status, digest.substr(7, 12));
  CHECK_FALSE(on.cri.ImageStatus(made["ref"])->has_image());
  CHECK(Eventually([&] { return StoreEntries(on.node) == before; }, std::chrono::seconds(5)));
}

TEST_CASE("A layer that ends early is refused") {
  OnNode on;
  const Json made = on.node.MakeImage("short:1", {"--scratch", "--layer-random", "2M"});
  const std::string file = BlobFile(on.node, made["layers"][0]["digest"]);
  std::string bytes = os::ReadFile(file, MiB(64)).value_or("");
  bytes.resize(bytes.size() / 2);
  REQUIRE(os::WriteFile(file, bytes).ok());
  CHECK_FALSE(on.cri.Pull(made["ref"]).ok());
  CHECK_FALSE(on.cri.ImageStatus(made["ref"])->has_image());
}

TEST_CASE("A layer with a path that leads out of it does not write there") {
  OnNode on;
  const std::string escape = "../../../../../../../../../../.." + on.node.dir() + "/escaped";
  const Json made = on.node.MakeImage("evil:1", {"--layer-evil", escape});
  on.cri.Pull(made["ref"]);  // refused, or kept inside the layer
  CHECK_FALSE(os::Exists(on.node.dir() + "/escaped"));
}

TEST_CASE("A command that does not exist fails with its name") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("nocommand", true);
  const std::string pod = on.Pod(pod_config);
  const auto config = on.node.ContainerConfig("c", {"/no/such/command"});
  const auto created = on.cri.Create(pod, config, pod_config);
  if (created.ok()) {
    const auto started = on.cri.Start(created->container_id());
    CHECK_FALSE(started.ok());
    Mentions(started.status, "/no/such/command");
    REQUIRE_OK(on.cri.Remove(created->container_id()));
  } else {
    Mentions(created.status, "/no/such/command");
  }
  CHECK(on.cri.ListContainers()->containers().empty());
}

TEST_CASE("A log path that leads out of the log directory is INVALID_ARGUMENT") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("logpath", true);
  const std::string pod = on.Pod(pod_config);
  auto config = on.node.ContainerConfig("c", {"true"});
  config.set_log_path("../../out.log");
  const auto created = on.cri.Create(pod, config, pod_config);
  CHECK(created.code() == grpc::StatusCode::INVALID_ARGUMENT);
  Mentions(created.status, "log_path");
  auto relative = on.node.PodConfig("logdir", true);
  relative.set_log_directory("relative/directory");
  CHECK(on.cri.RunPod(relative).code() == grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_CASE("An id with a slash reaches no path") {
  OnNode on;
  for (const std::string id : {"../../etc", "a/b", "/", "..", "%2e%2e"}) {
    INFO(id);
    for (const auto code : {on.cri.PodStatus(id).code(), on.cri.ContainerStatus(id).code(),
                            on.cri.Start(id).code(), on.cri.ExecSync(id, {"true"}).code()}) {
      CHECK((code == grpc::StatusCode::INVALID_ARGUMENT || code == grpc::StatusCode::NOT_FOUND));
    }
    for (const auto code : {on.cri.StopPod(id).code(), on.cri.RemovePod(id).code(),
                            on.cri.Stop(id, 0).code(), on.cri.Remove(id).code()}) {
      CHECK((code == grpc::StatusCode::INVALID_ARGUMENT || code == grpc::StatusCode::OK));
    }
  }
}

TEST_CASE("An unknown runtime handler is named") {
  OnNode on;
  const auto answer = on.cri.RunPod(on.node.PodConfig("handler"), "no-such-handler");
  CHECK(answer.code() == grpc::StatusCode::INVALID_ARGUMENT);
  Mentions(answer.status, "no-such-handler");
  CHECK(on.cri.ListPods()->items().empty());
}

TEST_CASE("A pod without metadata is INVALID_ARGUMENT") {
  OnNode on;
  auto config = on.node.PodConfig("nometa", true);
  config.clear_metadata();
  CHECK(on.cri.RunPod(config).code() == grpc::StatusCode::INVALID_ARGUMENT);
  CHECK(on.cri.RunPod({}).code() == grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_CASE("run_as_group without a user is INVALID_ARGUMENT; an unknown user name fails") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("users", true);
  const std::string pod = on.Pod(pod_config);
  auto config = on.node.ContainerConfig("group", {"true"});
  config.mutable_linux()->mutable_security_context()->mutable_run_as_group()->set_value(5);
  CHECK(on.cri.Create(pod, config, pod_config).code() == grpc::StatusCode::INVALID_ARGUMENT);
  auto named = on.node.ContainerConfig("named", {"true"});
  named.mutable_linux()->mutable_security_context()->set_run_as_username("nobody-knows");
  const auto created = on.cri.Create(pod, named, pod_config);
  CHECK_FALSE(created.ok());
  Mentions(created.status, "nobody-knows");
}

TEST_CASE("CNI plugins that fail undo the pod and give their own words") {
  OnNode on;
  const std::string conf = on.node.dir() + "/cni/10-crisp.conflist";
  const std::string good = os::ReadFile(conf).value_or("");
  REQUIRE_FALSE(good.empty());
  // A network with room for one pod. The new configuration is noticed by itself.
  std::string small =
      std::regex_replace(good, std::regex(R"("subnet": "[^"]*")"), R"("subnet": "10.99.0.0/30")");
  small = std::regex_replace(small, std::regex(R"("bridge": "crisp)"), R"("bridge": "small)");
  REQUIRE(os::WriteFile(conf, small).ok());
  Answer<cri::RunPodSandboxResponse> answer;
  CHECK(Eventually([&] {
    answer = on.cri.RunPod(on.node.PodConfig("crowded"));
    return !answer.ok();
  }));
  Mentions(answer.status, "no IP addresses available");
  const auto pods = on.cri.ListPods();
  CHECK(std::none_of(pods->items().begin(), pods->items().end(), [](const auto& pod) {
    return pod.state() != cri::PodSandboxState::SANDBOX_READY;
  }));
  REQUIRE(os::WriteFile(conf, good).ok());
  CHECK(Eventually([&] { return on.cri.RunPod(on.node.PodConfig("mended")).ok(); }));
}

}  // namespace
}  // namespace crisp::harness
