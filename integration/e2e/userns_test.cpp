#include <sys/stat.h>

#include "integration/e2e/shared_node.h"
#include "libs/os/files.h"

namespace crisp::harness {
namespace {

using cri::NamespaceMode;

constexpr std::uint32_t kHost = 200'000;
constexpr std::uint32_t kLength = 65'536;

cri::UserNamespace* UsersOf(cri::PodSandboxConfig& config) {
  return config.mutable_linux()
      ->mutable_security_context()
      ->mutable_namespace_options()
      ->mutable_userns_options();
}

void Map(google::protobuf::RepeatedPtrField<cri::IDMapping>* ids, std::uint32_t host,
         std::uint32_t inside = 0, std::uint32_t length = kLength) {
  auto* mapping = ids->Add();
  mapping->set_host_id(host);
  mapping->set_container_id(inside);
  mapping->set_length(length);
}

cri::PodSandboxConfig UserPod(Node& node, const std::string& name) {
  auto config = node.PodConfig(name, false);
  auto* users = UsersOf(config);
  users->set_mode(NamespaceMode::POD);
  Map(users->mutable_uids(), kHost);
  Map(users->mutable_gids(), kHost);
  return config;
}

std::string Said(const Cri& cri, const std::string& id, const std::string& script) {
  const auto answer = cri.ExecSync(id, {"sh", "-c", script});
  INFO(Describe(answer.status) << answer->stderr());
  CHECK(answer->exit_code() == 0);
  std::string text = answer->stdout();
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

/// A pod with a user namespace as its containers and the host see it.
void CheckUserPod(Node& node, const std::string& handler) {
  const Cri& cri = node.cri();
  auto pod_config = UserPod(node, "users");
  (*pod_config.mutable_linux()->mutable_sysctls())["kernel.shm_rmid_forced"] = "1";
  const auto pod = cri.RunPod(pod_config, handler);
  REQUIRE_OK(pod);
  const std::string pod_id = pod->pod_sandbox_id();
  node.Remember(pod_id);
  const auto pod_status = cri.PodStatus(pod_id)->status();
  CHECK(pod_status.linux().namespaces().options().userns_options().uids(0).host_id() == kHost);

  auto config = node.ContainerConfig("c", {"sleep", "1000"});
  *config.mutable_linux()->mutable_security_context()->mutable_namespace_options() =
      pod_config.linux().security_context().namespace_options();
  config.set_working_dir("/made/here");
  const auto created = cri.Create(pod_id, config, pod_config);
  REQUIRE_OK(created);
  const std::string id = created->container_id();
  node.Remember(id);
  REQUIRE_OK(cri.Start(id));

  CHECK(Said(cri, id, "awk '{print $1, $2, $3}' /proc/self/uid_map") == "0 200000 65536");
  CHECK(Said(cri, id, "awk '{print $1, $2, $3}' /proc/self/gid_map") == "0 200000 65536");
  CHECK(Said(cri, id, "id -u; id -g") == "0\n0");
  // The image's files, what is made in the rootfs and what the pod has: all its root's.
  CHECK(Said(cri, id,
             "touch /new /etc/new; for f in / /bin/busybox /new /etc/new /etc/resolv.conf "
             "/etc/hosts /made/here; do stat -c %u:%g $f; done | sort -u") == "0:0");
  CHECK(Said(cri, id, "echo more >> /etc/hosts; chown 1000:1000 /new; stat -c %u /new") == "1000");
  CHECK(Said(cri, id, "touch /dev/shm/x && stat -c %u /dev/shm /dev/shm/x | sort -u") == "0");
  CHECK(Said(cri, id, "hostname") == pod_config.hostname());
  CHECK(Said(cri, id, "cat /proc/sys/kernel/shm_rmid_forced") == "1");
  CHECK(Said(cri, id, "ls /sys/class/net | grep -c lo") == "1");
  CHECK(cri.ExecSync(id, {"sh", "-c", "echo 1 > /proc/sys/kernel/panic"})->exit_code() != 0);

  // A second container sees the same ids, and a user of its own has its place.
  auto second = config;
  second.mutable_metadata()->set_name("second");
  second.set_log_path("second/0.log");
  second.mutable_linux()->mutable_security_context()->mutable_run_as_user()->set_value(1234);
  const auto other = cri.Create(pod_id, second, pod_config);
  REQUIRE_OK(other);
  node.Remember(other->container_id());
  REQUIRE_OK(cri.Start(other->container_id()));
  // Where the rootfs is ID-mapped as a whole, the runtime alone can make its place, as root.
  const char* driver = std::getenv("CRISP_TEST_DRIVER");
  const bool whole =
      driver != nullptr && (driver == std::string("btrfs") || driver == std::string("vfs"));
  CHECK(Said(cri, other->container_id(), "id -u; stat -c %u .") ==
        (whole ? "1234\n0" : "1234\n1234"));
  CHECK(Said(cri, other->container_id(), "readlink /proc/self/ns/user") ==
        Said(cri, id, "readlink /proc/self/ns/user"));

  // The host sees other ids.
  const auto info = nlohmann::json::parse(cri.ContainerStatus(id, true)->info().at("info"));
  const std::string pid = std::to_string(info.at("pid").get<int>());
  CHECK(node.Inside({"stat", "-c", "%u", "/proc/" + pid}).out == "200000\n");

  auto foreign = node.ContainerConfig("foreign", {"true"});
  foreign.mutable_linux()
      ->mutable_security_context()
      ->mutable_namespace_options()
      ->mutable_userns_options()
      ->set_mode(NamespaceMode::NODE);
  CHECK(cri.Create(pod_id, foreign, pod_config).code() == grpc::StatusCode::INVALID_ARGUMENT);

  REQUIRE_OK(cri.Stop(id, 0));
  CHECK(cri.ContainerStatus(id)->status().exit_code() == 137);
}

TEST_CASE("A pod with a user namespace, under runc") {
  OnNode on;
  CheckUserPod(on.node, "runc");
}

/// As the kubelet has every mount of such a pod.
cri::Mount& AddMapped(cri::ContainerConfig& config, const std::string& path,
                      const std::string& host_path) {
  cri::Mount& mount = *config.add_mounts();
  mount.set_container_path(path);
  mount.set_host_path(host_path);
  Map(mount.mutable_uidmappings(), kHost);
  Map(mount.mutable_gidmappings(), kHost);
  return mount;
}

/// A host's directory, a single file and an image belong to the pod's root inside, to the host's
/// outside.
void CheckUserMounts(Node& node, const std::string& handler) {
  const Cri& cri = node.cri();
  const std::string host = node.dir() + "/host-user-mounts";
  REQUIRE(os::MakeDirs(host + "/dir").ok());
  REQUIRE(os::WriteFile(host + "/dir/file", "there").ok());
  REQUIRE(os::WriteFile(host + "/hosts", "127.0.0.1 here\n").ok());
  const auto image = node.MakeImage("users:1", {"--scratch", "--layer-file", "a/b=image"});
  REQUIRE_OK(cri.Pull(image["ref"]));
  const auto pod_config = UserPod(node, "user-mounts");
  const auto pod = cri.RunPod(pod_config, handler);
  REQUIRE_OK(pod);
  node.Remember(pod->pod_sandbox_id());
  auto config = node.ContainerConfig("c", {"sleep", "1000"});
  *config.mutable_linux()->mutable_security_context()->mutable_namespace_options() =
      pod_config.linux().security_context().namespace_options();
  AddMapped(config, "/dir", host + "/dir");
  AddMapped(config, "/etc/hosts", host + "/hosts");
  for (const char* part : {"", "a/b"}) {
    cri::Mount& mount = AddMapped(config, *part == 0 ? "/image" : "/part", "");
    mount.mutable_image()->set_image(cri.ImageStatus(image["ref"])->image().id());
    mount.set_image_sub_path(part);
    mount.set_readonly(true);
  }
  const auto created = cri.Create(pod->pod_sandbox_id(), config, pod_config);
  REQUIRE_OK(created);
  const std::string id = created->container_id();
  node.Remember(id);
  REQUIRE_OK(cri.Start(id));
  CHECK(Said(cri, id,
             "for f in /dir /dir/file /etc/hosts /image /image/a/b /part; do stat -c %u:%g $f; "
             "done | sort -u") == "0:0");
  CHECK(Said(cri, id, "cat /dir/file /image/a/b /part") == "thereimageimage");
  CHECK(Said(cri, id, "echo more >> /etc/hosts; touch /dir/new; chown 7:7 /dir/new; ls /dir") ==
        "file\nnew");
  struct stat facts {};
  REQUIRE(stat((host + "/dir/new").c_str(), &facts) == 0);
  CHECK(facts.st_uid == 7);
}

TEST_CASE("Under a runtime without ID-mapped mounts a mapped volume is refused by name") {
  OnNode on;
  const auto pod_config = UserPod(on.node, "unmapped");
  const std::string pod = on.Pod(pod_config);
  auto config = on.node.ContainerConfig("c", {"true"});
  *config.mutable_linux()->mutable_security_context()->mutable_namespace_options() =
      pod_config.linux().security_context().namespace_options();
  AddMapped(config, "/dir", "/tmp");
  const auto refused = on.cri.Create(pod, config, pod_config);
  CHECK(refused.code() == grpc::StatusCode::FAILED_PRECONDITION);
  INFO(refused.message());
  CHECK(refused.message().find("mounts[0].uidMappings") != std::string::npos);
}

TEST_CASE("A pod with a user namespace, under crun") {
  Node node({.yaml = "", .without_unified = true});
  CheckUserPod(node, "crun");
  CheckUserMounts(node, "crun");
  const std::vector<std::string> left = node.CleanUp();
  for (const std::string& line : left) UNSCOPED_INFO(line);
  CHECK(left.empty());
}

TEST_CASE("A user namespace and a shared PID namespace go together") {
  OnNode on;
  auto pod_config = UserPod(on.node, "users-pids");
  auto* namespaces =
      pod_config.mutable_linux()->mutable_security_context()->mutable_namespace_options();
  namespaces->set_pid(NamespaceMode::POD);
  const std::string pod = on.Pod(pod_config);
  auto config = on.node.ContainerConfig("c", {"sleep", "1000"});
  *config.mutable_linux()->mutable_security_context()->mutable_namespace_options() = *namespaces;
  const std::string id = on.Running(pod, pod_config, config);
  CHECK(Said(on.cri, id, "cat /proc/1/comm") == "crisp-pause");
  CHECK(Said(on.cri, id, "cat /proc/self/uid_map | awk '{print $2}'") == "200000");
}

TEST_CASE("User namespaces that cannot be are refused by name") {
  OnNode on;
  const auto refused = [&](const std::function<void(cri::PodSandboxConfig&)>& change) {
    auto config = UserPod(on.node, "bad-users");
    change(config);
    const auto answer = on.cri.RunPod(config);
    INFO(answer.message());
    CHECK(answer.message().find("userns_options") != std::string::npos);
    return answer.code() == grpc::StatusCode::INVALID_ARGUMENT;
  };
  using Config = cri::PodSandboxConfig;
  CHECK(refused([](Config& config) { Map(UsersOf(config)->mutable_uids(), 400'000, 65'536); }));
  CHECK(refused([](Config& config) { UsersOf(config)->clear_gids(); }));
  CHECK(refused(
      [](Config& config) { UsersOf(config)->clear_uids(), UsersOf(config)->clear_gids(); }));
  CHECK(refused([](Config& config) { UsersOf(config)->mutable_uids(0)->set_container_id(1); }));
  CHECK(refused([](Config& config) { UsersOf(config)->mutable_gids(0)->set_length(100); }));
  CHECK(refused([](Config& config) { UsersOf(config)->set_mode(NamespaceMode::CONTAINER); }));
  CHECK(refused([](Config& config) { UsersOf(config)->set_mode(NamespaceMode::TARGET); }));
  CHECK(refused([](Config& config) {
    config.mutable_linux()->mutable_security_context()->mutable_namespace_options()->set_network(
        NamespaceMode::NODE);
  }));
}

}  // namespace
}  // namespace crisp::harness
