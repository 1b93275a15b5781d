#include <sys/stat.h>

#include "integration/e2e/shared_node.h"
#include "libs/os/files.h"

namespace crisp::harness {
namespace {

using Words = std::vector<std::string>;

/// A directory of the node for mounts; it goes with the node.
std::string HostDir(const Node& node, const std::string& name) {
  std::string path = node.dir() + "/host-" + name;
  REQUIRE(os::MakeDirs(path).ok());
  return path;
}

cri::Mount& AddMount(cri::ContainerConfig& config, const std::string& to, const std::string& from) {
  cri::Mount& mount = *config.add_mounts();
  mount.set_container_path(to);
  mount.set_host_path(from);
  return mount;
}

struct MountTest : OnNode {
  explicit MountTest(const std::string& name) : pod_config(node.PodConfig(name, true)) {
    pod = Pod(pod_config);
  }
  cri::ContainerConfig Sleep(const std::string& name) {
    return node.ContainerConfig(name, {"sleep", "1000"});
  }
  std::string Run(const cri::ContainerConfig& config) { return Running(pod, pod_config, config); }
  std::string Out(const std::string& id, const std::string& script) const {
    const auto ran = cri.ExecSync(id, {"sh", "-c", script});
    REQUIRE_OK(ran);
    return ran->stdout() + ran->stderr();
  }
  std::string Error(const cri::ContainerConfig& config) const {
    const auto answer = cri.Create(pod, config, pod_config);
    CHECK_FALSE(answer.ok());
    return answer.message();
  }

  cri::PodSandboxConfig pod_config;
  std::string pod;
};

TEST_CASE("Propagation: private sees nothing new, slave what the host mounts, shared both ways") {
  MountTest test("propagation");
  const std::string shared = HostDir(test.node, "shared");
  // A shared mount of its own: the machine's root is private.
  REQUIRE(test.node
              .Inside({"sh", "-c",
                       "mount --bind " + shared + " " + shared + " && mount --make-shared " +
                           shared + " && mkdir -p " + shared + "/late " + shared + "/back"})
              .code == 0);
  const std::string plain = HostDir(test.node, "plain");
  std::vector<std::string> ids;
  for (const auto& [name, mode] :
       {std::pair{"private", cri::MountPropagation::PROPAGATION_PRIVATE},
        std::pair{"slave", cri::MountPropagation::PROPAGATION_HOST_TO_CONTAINER},
        std::pair{"shared", cri::MountPropagation::PROPAGATION_BIDIRECTIONAL}}) {
    auto config = test.Sleep(name);
    if (mode == cri::MountPropagation::PROPAGATION_BIDIRECTIONAL) {
      config.mutable_linux()
          ->mutable_security_context()
          ->mutable_capabilities()
          ->add_add_capabilities("SYS_ADMIN");
    }
    AddMount(config, "/mnt", shared).set_propagation(mode);
    ids.push_back(test.Run(config));
    if (mode == cri::MountPropagation::PROPAGATION_PRIVATE) continue;
    auto refused = test.Sleep(name + std::string("-refused"));
    AddMount(refused, "/mnt", plain).set_propagation(mode);
    CHECK(test.Error(refused).find("mounts[0].propagation") != std::string::npos);
  }
  REQUIRE(test.node
              .Inside({"sh", "-c",
                       "mount -t tmpfs late " + shared + "/late && touch " + shared + "/late/seen"})
              .code == 0);
  CHECK(test.Out(ids[0], "ls /mnt/late").empty());
  CHECK(test.Out(ids[1], "ls /mnt/late") == "seen\n");
  CHECK(test.Out(ids[2], "ls /mnt/late") == "seen\n");
  CHECK(test.Out(ids[2], "mount -t tmpfs back /mnt/back && touch /mnt/back/hello").empty());
  CHECK(test.node.Inside({"ls", shared + "/back"}).out == "hello\n");
  CHECK(test.Out(ids[1], "ls /mnt/back") == "hello\n");
  for (const std::string& id : ids) REQUIRE_OK(test.cri.Remove(id));
  test.node.Inside(
      {"sh", "-c", "umount " + shared + "/back; umount " + shared + "/late; umount " + shared});
}

TEST_CASE("Mount options hold; recursive read-only that the runtime cannot do is RROUnsupported") {
  MountTest test("options");
  const std::string host = HostDir(test.node, "options");
  REQUIRE(os::WriteFile(host + "/run", "#!/bin/sh\necho ran\n", 0755).ok());
  auto config = test.Sleep("c");
  cri::Mount& mount = AddMount(config, "/mnt", host);
  mount.add_mount_options("noexec");
  mount.add_mount_options("nosuid");
  const std::string id = test.Run(config);
  CHECK(test.Out(id, "/mnt/run; true").find("ran") == std::string::npos);
  CHECK(test.Out(id, "sh /mnt/run") == "ran\n");
  CHECK(test.Out(id, "grep ' /mnt ' /proc/mounts").find("nosuid") != std::string::npos);

  auto rro = test.Sleep("rro");
  cri::Mount& recursive = AddMount(rro, "/mnt", host);
  recursive.set_recursive_read_only(true);
  CHECK(test.Error(rro).find("recursive_read_only") != std::string::npos);
  recursive.set_readonly(true);
  const auto answer = test.cri.Create(test.pod, rro, test.pod_config);
  if (answer.ok()) {
    test.node.Remember(answer->container_id());
  } else {
    CHECK(answer.message().starts_with("RROUnsupported"));
  }
}

TEST_CASE("A missing host path is made, a link is followed, /etc/hostname is never made") {
  MountTest test("hostpaths");
  const std::string host = HostDir(test.node, "paths");
  REQUIRE(os::WriteFile(host + "/file", "contents").ok());
  REQUIRE(os::Symlink("file", host + "/link").ok());
  auto config = test.Sleep("c");
  AddMount(config, "/made", host + "/new/dir");
  AddMount(config, "/linked", host + "/link").set_readonly(true);
  const std::string id = test.Run(config);
  CHECK(os::IsDirectory(host + "/new/dir"));
  CHECK(test.Out(id, "cat /linked") == "contents");
  const auto status = test.StatusOf(id);
  REQUIRE(status.mounts_size() == 2);
  CHECK(status.mounts(1).host_path() == host + "/link");
  CHECK(status.mounts(1).readonly());
}

TEST_CASE("An image is a read-only volume, pinned while a container has it") {
  MountTest test("imagevolume");
  const auto image = test.node.MakeImage(
      "models:1", {"--scratch", "--layer-file", "models/a/weights=one", "--layer-file",
                   "models/b/weights=two", "--layer-file", "top=level"});
  REQUIRE_OK(test.cri.Pull(image["ref"]));
  const std::string image_id = test.cri.ImageStatus(image["ref"])->image().id();
  auto config = test.Sleep("c");
  const auto add = [&](const std::string& path, const std::string& sub_path) -> cri::Mount& {
    cri::Mount& mount = AddMount(config, path, "");
    mount.mutable_image()->set_image(image_id);
    mount.set_image_sub_path(sub_path);
    mount.set_readonly(true);
    return mount;
  };
  cri::Mount& whole = add("/whole", "");
  add("/part", "models/b");
  add("/file", "top");
  whole.set_readonly(false);
  CHECK(test.Error(config).find("mounts[0].readonly") != std::string::npos);
  whole.set_readonly(true);
  const std::string id = test.Run(config);
  CHECK(test.Out(id, "cat /whole/top /whole/models/a/weights /part/weights /file") ==
        "levelonetwolevel");
  CHECK(test.Out(id, "touch /whole/x || echo no").find("no\n") != std::string::npos);
  const std::string flags = test.Out(id, "grep ' /whole ' /proc/mounts");
  for (const char* flag : {"ro,", "nosuid", "nodev"}) {
    CHECK(flags.find(flag) != std::string::npos);
  }
  CHECK(flags.find("noexec") == std::string::npos);  // tools come as volumes, too
  CHECK(test.StatusOf(id).mounts(1).image_sub_path() == "models/b");
  CHECK(test.StatusOf(id).mounts(1).image().image_ref() == image_id);

  // Its name may go; what the container has stays.
  REQUIRE_OK(test.cri.RemoveImage(image_id));
  CHECK(test.Out(id, "cat /whole/top") == "level");
  REQUIRE_OK(test.cri.Stop(id, 0));
  REQUIRE_OK(test.cri.Remove(id));
}

TEST_CASE("An image volume that cannot be mounted says so in the words the kubelet looks for") {
  MountTest test("badvolume");
  const auto image = test.node.MakeImage("small:1", {"--scratch", "--layer-file", "file=x"});
  REQUIRE_OK(test.cri.Pull(image["ref"]));
  auto config = test.Sleep("c");
  cri::Mount& mount = AddMount(config, "/v", "");
  mount.mutable_image()->set_image(image["ref"]);
  mount.set_readonly(true);
  for (const char* path : {"absent", "file/below", "../../etc"}) {
    mount.set_image_sub_path(path);
    INFO(path);
    CHECK(test.Error(config).starts_with("ImageVolumeMountFailed: mounts[0].image"));
  }
  mount.clear_image_sub_path();
  mount.mutable_image()->set_image("sha256:" + std::string(64, '0'));
  CHECK(test.Error(config).starts_with("ImageVolumeMountFailed: mounts[0].image"));
}

TEST_CASE("Volumes of the image are the container's own copies") {
  MountTest test("volumes");
  const auto image = test.node.MakeImage(
      "volumes:1", {"--layer-file", "data/seed=planted", "--volume", "/data", "--volume", "/new"});
  REQUIRE_OK(test.cri.Pull(image["ref"]));
  auto config = test.Sleep("c");
  config.mutable_image()->set_image(image["ref"]);
  config.mutable_linux()->mutable_security_context()->set_readonly_rootfs(true);
  const std::string id = test.Run(config);
  CHECK(test.Out(id, "cat /data/seed; touch /data/x /new/x && echo written") == "plantedwritten\n");
  config.mutable_metadata()->set_name("second");
  CHECK(test.Out(test.Run(config), "ls /data /new") == "/data:\nseed\n\n/new:\n");
}

TEST_CASE("/dev/shm is the pod's, the host's with host IPC; a read-only container cannot write") {
  MountTest test("shm");
  const std::string first = test.Run(test.Sleep("first"));
  auto readonly = test.Sleep("second");
  readonly.mutable_linux()->mutable_security_context()->set_readonly_rootfs(true);
  const std::string second = test.Run(readonly);
  test.Out(first, "echo hello > /dev/shm/x");
  CHECK(test.Out(second, "cat /dev/shm/x") == "hello\n");
  CHECK(test.Out(second, "df -k /dev/shm | tail -1 | awk '{print $2}'") == "65536\n");
  CHECK(test.Out(second, "echo x > /etc/resolv.conf || echo no").find("no\n") != std::string::npos);
  CHECK(test.Out(second, "touch /x || echo no").find("no\n") != std::string::npos);

  auto host_ipc = test.node.PodConfig("hostipc", true);
  host_ipc.mutable_linux()->mutable_security_context()->mutable_namespace_options()->set_ipc(
      cri::NamespaceMode::NODE);
  const std::string pod = test.Pod(host_ipc);
  auto config = test.Sleep("c");
  config.mutable_linux()->mutable_security_context()->mutable_namespace_options()->set_ipc(
      cri::NamespaceMode::NODE);
  const std::string id = test.Running(pod, host_ipc, config);
  CHECK(test.Out(id, "readlink /proc/self/ns/ipc") ==
        test.node.Inside({"readlink", "/proc/self/ns/ipc"}).out);
}

TEST_CASE("resolv.conf, hosts and hostname are the pod's unless they are mounted") {
  OnNode on;
  auto pod_config = on.node.PodConfig("files");
  auto& dns = *pod_config.mutable_dns_config();
  dns.add_servers("10.96.0.10");
  dns.add_searches("default.svc.cluster.local");
  dns.add_searches("svc.cluster.local");
  dns.add_options("ndots:5");
  const std::string pod = on.Pod(pod_config);
  auto config = on.node.ContainerConfig("c", {"sleep", "1000"});
  const std::string id = on.Running(pod, pod_config, config);
  CHECK(on.cri.ExecSync(id, {"cat", "/etc/resolv.conf"})->stdout() ==
        "search default.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\n"
        "options ndots:5\n");
  CHECK(
      on.cri.ExecSync(id, {"sh", "-c", "cat /etc/hostname; hostname; echo $HOSTNAME"})->stdout() ==
      "files\nfiles\nfiles\n");
  const std::string ip = on.cri.PodStatus(pod)->status().network().ip();
  CHECK(on.cri.ExecSync(id, {"cat", "/etc/hosts"})->stdout().find(ip + "\tfiles") !=
        std::string::npos);

  config.mutable_metadata()->set_name("own");
  const std::string hosts = on.node.dir() + "/own-hosts";
  REQUIRE(os::WriteFile(hosts, "1.2.3.4 elsewhere\n").ok());
  AddMount(config, "/etc/hosts", hosts);
  CHECK(on.cri.ExecSync(on.Running(pod, pod_config, config), {"cat", "/etc/hosts"})->stdout() ==
        "1.2.3.4 elsewhere\n");
}

}  // namespace
}  // namespace crisp::harness
