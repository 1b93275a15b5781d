// What needs root: mounts, namespaces, cgroups.
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <future>
#include <string>

#include "libs/base/cleanup.h"
#include "libs/os/beneath.h"
#include "libs/os/cgroup.h"
#include "libs/os/files.h"
#include "libs/os/image_mount.h"
#include "libs/os/mount.h"
#include "libs/os/namespaces.h"
#include "libs/os/netlink.h"
#include "libs/os/temp_dir.h"

namespace crisp::os {
namespace {

/// A temporary directory whose mounts go before it.
class MountRoot {
 public:
  MountRoot() {
    auto dir = TempDir::Create("/tmp/crisp-os-");
    REQUIRE(dir.ok());
    path_ = dir->Release();
  }
  ~MountRoot() {
    CHECK(UnmountBelow(path_).ok());
    CHECK(RemoveTree(path_).ok());
  }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  std::string Dir(const std::string& name) const {
    REQUIRE(MakeDirs(*this / name).ok());
    return *this / name;
  }

 private:
  std::string path_;
};

TEST_CASE("Whether trees of mounts can be read-only is tried, and changes nothing") {
  const MountRoot root;
  const std::string dir = root.Dir("d");
  CHECK(ProbeRecursiveReadOnly(dir).ok());
  CHECK(WriteFile(dir + "/file", "x").ok());
  CHECK(ProbeRecursiveReadOnly(root / "absent").code() == Code::kNotFound);
}

TEST_CASE("Images as layers: what is missing is told, by the release and the file systems") {
  CHECK(CheckImageLayers("6.12.9-amd64").message() ==
        "Linux 6.12.9-amd64 is too old: overlayfs takes images as layers since 6.15");
  CHECK(CheckImageLayers("5.20").code() == Code::kFailedPrecondition);
  CHECK(CheckImageLayers("no number").code() == Code::kFailedPrecondition);
  const MountRoot root;
  root.Dir("proc");
  REQUIRE(WriteFile(root / "proc/filesystems", "nodev\toverlay\n").ok());
  CHECK(CheckImageLayers("6.15.0", root / "proc").message() == "this kernel has no erofs");
  REQUIRE(WriteFile(root / "proc/filesystems", "nodev\toverlay\n\terofs\n").ok());
  CHECK(CheckImageLayers("6.15.0", root / "proc").ok());
  CHECK(CheckImageLayers("7.0-rc1", root / "proc").ok());
}

TEST_CASE("A file that is no image is not mounted") {
  const MountRoot root;
  root.Dir("d");
  REQUIRE(WriteFile(root / "d/f", std::string(8192, 'x')).ok());
  CHECK(IsImage(root / "d/f"));
  CHECK_FALSE(IsImage(root / "d"));
  CHECK_FALSE(IsImage(root / "absent"));
  CHECK_FALSE(MountImage(root / "d/f").ok());
  CHECK_FALSE(MountImage(root / "absent").ok());
}

TEST_CASE("A bind mount can be read-only, and goes again") {
  const MountRoot root;
  const std::string from = root.Dir("from");
  const std::string to = root.Dir("to");
  CHECK(WriteFile(from + "/f", "x").ok());
  REQUIRE(
      BindMount(from, to, {.recursive = true, .readonly = true, .extra_flags = MS_NOSUID}).ok());
  CHECK(IsMountPoint(to).value());
  CHECK(ReadFile(to + "/f").value() == "x");
  CHECK(WriteFile(to + "/g", "y").code() == Code::kPermissionDenied);
  CHECK(WriteFile(from + "/g", "y").ok());
  CHECK(Unmount(to).ok());
  CHECK_FALSE(IsMountPoint(to).value());
  CHECK(Unmount(to).ok());
  CHECK(Unmount(root / "none").ok());
}

TEST_CASE("RemoveTree refuses to cross a mount") {
  const MountRoot root;
  const std::string precious = root.Dir("precious");
  CHECK(WriteFile(precious + "/f", "x").ok());
  REQUIRE(BindMount(precious, root.Dir("t/mnt")).ok());
  CHECK(RemoveTree(root / "t").code() == Code::kFailedPrecondition);
  CHECK(RemoveTree(root / "t/mnt").code() == Code::kFailedPrecondition);
  CHECK(ReadFile(precious + "/f").value() == "x");
}

TEST_CASE("An overlay shows its layers, the topmost first, and takes writes") {
  const MountRoot root;
  Overlay overlay{.lower_dirs = {root.Dir("top"), root.Dir("a:b,c"), root.Dir("bottom")},
                  .upper_dir = root.Dir("upper"),
                  .work_dir = root.Dir("work"),
                  .options = {"volatile"}};
  CHECK(WriteFile(root / "top/f", "top").ok());
  CHECK(WriteFile(root / "bottom/f", "bottom").ok());
  CHECK(WriteFile(root / "a:b,c/g", "middle").ok());
  const std::string merged = root.Dir("merged");
  for (int round = 0; round < 2; ++round) {  // the second finds the first's "volatile" mark
    const Status mounted = MountOverlay(overlay, merged);
    INFO(mounted.ToString());
    REQUIRE(mounted.ok());
    CHECK(ReadFile(merged + "/f").value() == "top");
    CHECK(ReadFile(merged + "/g").value() == "middle");
    CHECK(WriteFile(merged + "/new", "n").ok());
    CHECK(Unmount(merged).ok());
  }
  CHECK(ReadFile(root / "upper/new").value() == "n");
}

TEST_CASE("An overlay without an upper is read-only, also of one layer") {
  const MountRoot root;
  CHECK(WriteFile(root.Dir("one") + "/f", "x").ok());
  const std::string merged = root.Dir("merged");
  for (const auto& lower :
       std::vector<std::vector<std::string>>{{root / "one"}, {root / "one", root.Dir("two")}}) {
    REQUIRE(MountOverlay({.lower_dirs = lower}, merged).ok());
    CHECK(ReadFile(merged + "/f").value() == "x");
    CHECK(WriteFile(merged + "/g", "").code() == Code::kPermissionDenied);
    CHECK(Unmount(merged).ok());
  }
  const Status bad = MountOverlay({.lower_dirs = {root / "one", root / "none"}}, merged);
  CHECK(bad.code() == Code::kNotFound);
  CHECK(bad.message().find("none") != std::string::npos);
}

TEST_CASE("What a context refuses without a verdict is tried by mount(2)") {
  const MountRoot root;
  // A work directory below the upper: EINVAL when the mount is created, as all is before Linux 6.5.
  const Status refused = MountOverlay({.lower_dirs = {root.Dir("lower")},
                                       .upper_dir = root.Dir("upper"),
                                       .work_dir = root.Dir("upper/work")},
                                      root.Dir("merged"));
  INFO(refused.ToString());
  CHECK(refused.code() == Code::kInvalidArgument);
  CHECK(refused.message().find("mount overlay overlay on") != std::string::npos);
}

TEST_CASE("mount(2) takes as many layers as an image may have, whatever their paths are") {
  const MountRoot root;
  const auto count = GENERATE(std::size_t{2}, std::size_t{127}, std::size_t{500});
  Overlay overlay{.upper_dir = root.Dir("upper"), .work_dir = root.Dir("work")};
  for (std::size_t i = 0; i < count; ++i) {
    overlay.lower_dirs.push_back(root.Dir(fmt::format("{:064}/diff", i)));
    REQUIRE(WriteFile(fmt::format("{}/f{}", overlay.lower_dirs.back(), i), "x").ok());
    REQUIRE(WriteFile(overlay.lower_dirs.back() + "/top", std::to_string(i)).ok());
  }
  CHECK(OverlayArgs(overlay, "/merged").ok() == (count == 2));
  const std::string merged = root.Dir("merged");
  const std::string before = ReadLink("/proc/self/cwd").value();
  REQUIRE(MountOverlayByOptions(overlay, merged).message() == "");
  CHECK(ListDir(merged)->size() == count + 1);
  CHECK(ReadFile(merged + "/top").value() == "0");
  CHECK(ReadFile(fmt::format("{}/f{}", merged, count - 1)).value() == "x");
  CHECK(WriteFile(merged + "/new", "n").ok());
  CHECK(ReadFile(root / "upper/new").value() == "n");
  CHECK(Unmount(merged).ok());
  CHECK(ReadLink("/proc/self/cwd").value() == before);  // the process stands where it stood
  overlay.lower_dirs.push_back(root / "none");
  const Status bad = MountOverlayByOptions(overlay, merged);
  CHECK(bad.code() == Code::kNotFound);
}

TEST_CASE("A file system is there as part of the kernel, as a module, or not at all") {
  const MountRoot root;
  utsname kernel{};
  ::uname(&kernel);
  const std::string proc = root.Dir("proc");
  const std::string modules = root.Dir("modules");
  const auto has = [&](const std::string& type) {
    return KernelHasFilesystem(type, proc, modules);
  };
  CHECK(has("overlay"));  // nobody knows
  REQUIRE(WriteFile(proc + "/filesystems", "nodev\tproc\n\text4\nnodev\tmyoverlay\n").ok());
  CHECK(has("ext4"));
  CHECK(has("proc"));
  CHECK_FALSE(has("overlay"));
  REQUIRE(WriteFile(proc + "/modules", "").ok());
  CHECK(has("overlay"));  // where modules are is not known
  const std::string dep = root.Dir(fmt::format("modules/{}", kernel.release)) + "/modules.dep";
  REQUIRE(WriteFile(dep, "kernel/fs/fuse/fuse.ko.xz:\n").ok());
  CHECK_FALSE(has("overlay"));
  REQUIRE(WriteFile(dep, "kernel/fs/fuse/fuse.ko.xz:\nkernel/fs/overlayfs/overlay.ko.xz:\n").ok());
  CHECK(has("overlay"));
  CHECK(KernelHasFilesystem("proc"));
}

TEST_CASE("An overlay's text of options escapes paths and quotes labels") {
  const Overlay overlay{.lower_dirs = {"/a:b", "/c,d"},
                        .upper_dir = "/u",
                        .work_dir = "/w",
                        .options = {"ro", "context=a:b:c:s0:c1,c2", "index=off", "volatile"}};
  const MountArgs args = OverlayArgs(overlay, "/merged").value();
  CHECK(args.flags == MS_RDONLY);
  CHECK(args.data ==
        "lowerdir=/a\\:b:/c\\,d,upperdir=/u,workdir=/w,context=\"a:b:c:s0:c1,c2\",index=off,"
        "volatile");
  const Overlay deep{.lower_dirs = std::vector<std::string>(500, "/var/lib/layer")};
  CHECK(OverlayArgs(deep, "/merged").code() == Code::kInvalidArgument);
}

TEST_CASE("UnmountBelow takes stacked, nested and hidden mounts, and no neighbours") {
  const MountRoot root;
  const auto tmpfs = [](const std::string& path) {
    REQUIRE(Mount({.source = "t", .target = path, .type = "tmpfs"}).ok());
  };
  tmpfs(root.Dir("p"));
  tmpfs(root.Dir("p/in"));
  tmpfs(root / "p/in");
  tmpfs(root / "p");  // hides the two
  tmpfs(root.Dir("p2"));
  CHECK(UnmountBelow(root / "p").ok());
  CHECK_FALSE(IsMountPoint(root / "p").value());
  CHECK(IsMountPoint(root / "p2").value());
  CHECK(UnmountBelow("/").code() == Code::kInvalidArgument);
}

bool LoopbackIsUp() {
  const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request = {};
  std::strncpy(request.ifr_name, "lo", IFNAMSIZ - 1);
  return ::ioctl(socket.get(), SIOCGIFFLAGS, &request) == 0 && (request.ifr_flags & IFF_UP) != 0;
}

TEST_CASE("Pinned namespaces outlive their thread and are entered again") {
  const MountRoot root;
  {
    auto pins = NamespacePin::Create(
        {{NamespaceKind::kNet, root / "net"}, {NamespaceKind::kUts, root / "uts"}}, []() -> Status {
          if (::sethostname("inside", 6) != 0) return Status::Errno(errno, "sethostname");
          Status sysctl = WriteSysctl("net.ipv4.ip_forward", "1");
          if (!sysctl.ok()) return sysctl;
          return SetLoopbackUp();
        });
    INFO(pins.status().ToString());
    REQUIRE(pins.ok());
    REQUIRE(pins->size() == 2);
    for (auto& pin : *pins) pin.Commit();
  }
  CHECK(IsPinnedNamespace(root / "net").value());
  CHECK(NamespacePin::Create({{NamespaceKind::kNet, root / "net"}}).code() == Code::kAlreadyExists);
  utsname inside = {};
  bool up = false;
  CHECK(RunInNamespaces({root / "net", root / "uts"}, [&inside, &up] {
          ::uname(&inside);
          up = LoopbackIsUp();
          return Status::Ok();
        }).ok());
  CHECK(std::string(inside.nodename) == "inside");
  CHECK(up);
  utsname outside = {};
  ::uname(&outside);
  CHECK(std::string(outside.nodename) != "inside");
  CHECK(RunInNamespace(root / "net", [] { return NotFound("mine"); }).code() == Code::kNotFound);
  CHECK(RunInNamespace(root / "none", [] { return Status::Ok(); }).code() == Code::kNotFound);
  CHECK(UnpinNamespace(root / "net").ok());
  CHECK(UnpinNamespace(root / "net").ok());
  CHECK_FALSE(Exists(root / "net"));
}

TEST_CASE("Namespaces that are not committed go, and a failed setup leaves nothing") {
  const MountRoot root;
  {
    const auto pins = NamespacePin::Create({{NamespaceKind::kIpc, root / "ipc"}});
    REQUIRE(pins.ok());
    CHECK(IsPinnedNamespace(root / "ipc").value());
  }
  CHECK_FALSE(Exists(root / "ipc"));
  CHECK(NamespacePin::Create({{NamespaceKind::kIpc, root / "ipc"}}, [] {
          return Aborted("no");
        }).code() == Code::kAborted);
  CHECK_FALSE(Exists(root / "ipc"));
}

TEST_CASE("While a namespace is made the calling thread does something else, in its own") {
  const MountRoot root;
  const std::string ours = ReadLink("/proc/thread-self/ns/net").value();
  std::promise<void> inside;
  std::string meanwhile;
  const auto pins = NamespacePin::Create(
      {{NamespaceKind::kNet, root / "net"}},
      [&inside] {
        inside.set_value();
        return Status::Ok();
      },
      [&inside, &meanwhile] {
        inside.get_future().wait();
        meanwhile = ReadLink("/proc/thread-self/ns/net").value();
      });
  CHECK(pins.ok());
  CHECK(meanwhile == ours);
}

TEST_CASE("Sysctls are names, not paths") {
  for (const char* bad : {"../x", "net/../../etc/passwd", "", "/net", "net..x", "net.ipv4."}) {
    CHECK(WriteSysctl(bad, "1").code() == Code::kInvalidArgument);
  }
  CHECK(WriteSysctl("net.no_such", "1").code() == Code::kNotFound);
}

/// A shell that has stopped itself; continued, it starts two sleepers. (Children that it made
/// before it is in its cgroup would stay outside.)
pid_t SpawnSleep() {
  std::string name = "sh";
  std::string flag = "-c";
  std::string script = "kill -STOP $$; sleep 100 & sleep 100 & wait";
  std::array<char*, 4> argv = {name.data(), flag.data(), script.data(), nullptr};
  pid_t pid = -1;
  REQUIRE(::posix_spawn(&pid, "/bin/sh", nullptr, nullptr, argv.data(), nullptr) == 0);
  REQUIRE(::waitpid(pid, nullptr, WUNTRACED) == pid);
  return pid;
}

TEST_CASE("Cgroups are made, filled, killed and removed in every hierarchy") {
  const auto cgroups = Cgroups::Detect();
  REQUIRE(cgroups.ok());
  const std::string top = fmt::format("/crisp-os-test-{}", ::getpid());
  const std::string path = top + "/pod/leaf";
  const Cleanup remove([&cgroups, &top] {
    CHECK(cgroups->Kill(top).ok());
    CHECK(cgroups->Remove(top).ok());
  });
  CHECK_FALSE(cgroups->Exists(path).value());
  REQUIRE(cgroups->Create(path).ok());
  REQUIRE(cgroups->Create(path).ok());
  CHECK(cgroups->Exists(path).value());
  CHECK(cgroups->HasController("memory"));
  CHECK(IsDirectory(cgroups->DirFor("memory", path).value()));
  if (cgroups->mode() != CgroupMode::kV1) {
    CHECK(IsDirectory(cgroups->UnifiedDir(path).value()));
  }
  const pid_t pid = SpawnSleep();
  const Cleanup reap([pid] {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  });
  REQUIRE(cgroups->Add(path, pid).ok());
  REQUIRE(::kill(pid, SIGCONT) == 0);
  CHECK(CgroupOf(pid, cgroups->mode() == CgroupMode::kV2 ? "" : "memory").value() == path);
  CHECK(cgroups->Freeze(top).ok());
  CHECK(cgroups->Freeze(top).ok());
  CHECK(cgroups->Thaw(top).ok());
  CHECK(cgroups->Freeze(top + "/absent").code() == Code::kNotFound);
  CHECK(cgroups->Thaw(top + "/absent").ok());
  const auto pids = cgroups->Pids(top);
  REQUIRE(pids.ok());
  CHECK(std::find(pids->begin(), pids->end(), pid) != pids->end());
  CHECK(cgroups->Pids(top, false).value().empty());
  CHECK(cgroups->Remove(path).code() == Code::kFailedPrecondition);
  CHECK(cgroups->Create(path).ok());  // a partial removal is repaired
  CHECK(cgroups->Kill(top).ok());
  siginfo_t info = {};
  CHECK(::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT) == 0);
  CHECK(info.si_status == SIGKILL);
  CHECK(cgroups->Remove(top).ok());
  CHECK_FALSE(cgroups->Exists(top).value());
  CHECK(cgroups->Remove(top).ok());
  CHECK(cgroups->Kill(top).ok());
  CHECK(cgroups->Pids(top).value().empty());
}

TEST_CASE("Paths that are no cgroup's are refused") {
  const auto cgroups = Cgroups::Detect();
  REQUIRE(cgroups.ok());
  for (const char* bad : {"", "/", "relative", "/a/../b", "//", "/a\nb"}) {
    CHECK(cgroups->Create(bad).code() == Code::kInvalidArgument);
    CHECK(cgroups->Remove(bad).code() == Code::kInvalidArgument);
    CHECK(cgroups->Kill(bad).code() == Code::kInvalidArgument);
  }
}

TEST_CASE("The kind of the cgroup tree is read from mountinfo") {
  const MountRoot root;
  const std::string info = root / "mountinfo";
  const std::string base = root.Dir("cg");
  CHECK(WriteFile(base + "/cgroup.controllers", "cpu memory pids\n").ok());
  CHECK(WriteFile(info, "1 0 0:1 / " + base + " rw - cgroup2 cgroup2 rw\n").ok());
  const auto v2 = Cgroups::Detect(base, info);
  REQUIRE(v2.ok());
  CHECK(v2->mode() == CgroupMode::kV2);
  CHECK(v2->controllers() == std::set<std::string>{"cpu", "memory", "pids"});
  CHECK(v2->DirFor("cpu", "/a//b/").value() == base + "/a/b");
  CHECK(WriteFile(info, "1 0 0:1 / " + base + "/cpu rw - cgroup cgroup rw,cpu,cpuacct\n").ok());
  const auto v1 = Cgroups::Detect(base, info);
  REQUIRE(v1.ok());
  CHECK(v1->mode() == CgroupMode::kV1);
  CHECK(v1->HasController("cpuacct"));
  CHECK(v1->UnifiedDir("/a").code() == Code::kNotFound);
  // A v2 tree that another mount hides is none.
  CHECK(WriteFile(info, "1 0 0:1 / " + base + "/cpu rw - cgroup cgroup rw,cpu\n" + "2 0 0:2 / " +
                            base + "/unified rw - cgroup2 cgroup2 rw\n")
            .ok());
  const auto hidden = Cgroups::Detect(base, info);
  REQUIRE(hidden.ok());
  CHECK(hidden->mode() == CgroupMode::kV1);
  CHECK(WriteFile(info, "").ok());
  CHECK(Cgroups::Detect(base, info).code() == Code::kFailedPrecondition);
}

}  // namespace
}  // namespace crisp::os
