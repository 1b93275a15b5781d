// What a confined process can still do, tried by a child that confines itself.
#include "libs/os/confine.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <spawn.h>
#include <sys/capability.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <functional>
#include <thread>

#include "libs/os/files.h"
#include "libs/os/temp_dir.h"

namespace crisp::os {
namespace {

/// Runs `body` in a child; what it returns first that is not "" fails the test by its name.
std::string InChild(const std::function<std::string()>& body) {
  std::array<int, 2> ends{};
  REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const std::string text = body();
    static_cast<void>(!::write(ends[1], text.data(), text.size()));
    ::_exit(0);
  }
  ::close(ends[1]);
  const UniqueFd out(ends[0]);
  std::string text = ReadAll(out.get(), "the child's words").value();
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) text += " (the child died)";
  return text;
}

/// "" when the call failed with `wanted`.
std::string Fails(const char* what, long result, int wanted = EPERM) {
  if (result != -1) return std::string(what) + " works";
  if (errno != wanted) return std::string(what) + ": " + std::strerror(errno);
  return "";
}
std::string Works(const char* what, long result) {
  return result == -1 ? std::string(what) + ": " + std::strerror(errno) : "";
}
std::string First(std::initializer_list<std::string> checks) {
  for (const std::string& each : checks)
    if (!each.empty()) return each;
  return "";
}

bool HasLandlock() { return ::syscall(SYS_landlock_create_ruleset, nullptr, 0, 1U) > 0; }

struct Room {
  TempDir temp = TempDir::Create("/tmp/crisp-confine-").value();
  std::string inside = temp.path() + "/inside";
  std::string outside = temp.path() + "/outside";
  Room() {
    REQUIRE(MakeDirs(inside).ok());
    REQUIRE(MakeDirs(outside).ok());
    REQUIRE(WriteFile(outside + "/secret", "s", 0600).ok());
  }
  ConfinePlan Plan() const {
    return {.capabilities = {"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP"},
            .write = {inside}};
  }
};

TEST_CASE("A confined process cannot mount, trace, enter namespaces or load code into the kernel") {
  const Room room;
  CHECK(InChild([&]() -> std::string {
          const pid_t parent = ::getppid();
          if (const auto done = Confine(room.Plan()); !done.ok()) return done.status().ToString();
          std::array<char, 8> buffer{};
          iovec local{buffer.data(), buffer.size()};
          iovec remote{&local, sizeof local};
          return First(
              {Fails("mount", ::mount("none", room.inside.c_str(), "tmpfs", 0, nullptr)),
               Fails("bind mount", ::mount("/", room.inside.c_str(), nullptr, MS_BIND, nullptr)),
               Fails("umount", ::umount2("/proc", MNT_DETACH)),
               Fails("open_tree", ::syscall(SYS_open_tree, AT_FDCWD, "/", 1U)),
               Fails("move_mount", ::syscall(SYS_move_mount, -1, "", -1, "/", 4U)),
               Fails("fsopen", ::syscall(SYS_fsopen, "tmpfs", 0U)),
               Fails("pivot_root", ::syscall(SYS_pivot_root, "/", "/")),
               Fails("chroot", ::chroot(room.inside.c_str())),
               Fails("ptrace", ::ptrace(PTRACE_SEIZE, parent, nullptr, nullptr)),
               Fails("process_vm_readv", ::process_vm_readv(parent, &local, 1, &remote, 1, 0)),
               Fails("pidfd_getfd", ::syscall(SYS_pidfd_getfd, 0, 0, 0U)),
               Fails("unshare", ::unshare(CLONE_NEWUSER)),
               Fails("unshare of mounts", ::unshare(CLONE_NEWNS)),
               Works("a umask of its own", ::unshare(CLONE_FS)),
               Fails("setns", ::setns(0, 0)),
               Fails("clone3", ::syscall(SYS_clone3, nullptr, 0), ENOSYS),
               Fails("bpf", ::syscall(SYS_bpf, 0, nullptr, 0)),
               Fails("kexec_load", ::syscall(SYS_kexec_load, 0, 0, nullptr, 0)),
               Fails("init_module", ::syscall(SYS_init_module, nullptr, 0, "")),
               Fails("keyctl", ::syscall(SYS_keyctl, 0, 0, 0, 0, 0)),
               Fails("add_key", ::syscall(SYS_add_key, "user", "x", "y", 1, -2)),
               Fails("userfaultfd", ::syscall(SYS_userfaultfd, 0)),
               Fails("io_uring_setup", ::syscall(SYS_io_uring_setup, 1, nullptr)),
               Fails("perf_event_open", ::syscall(SYS_perf_event_open, nullptr, 0, -1, -1, 0)),
               Fails("open_by_handle_at", ::syscall(SYS_open_by_handle_at, 0, nullptr, 0)),
               Fails("sethostname", ::sethostname("x", 1)),
               Fails("a packet socket", ::socket(AF_PACKET, SOCK_RAW, 0)),
               Works("a TCP socket", ::socket(AF_INET, SOCK_STREAM, 0)),
               Fails("the clock", ::syscall(SYS_settimeofday, nullptr, nullptr))});
        }) == "");
}

TEST_CASE("A confined process makes what an image has, and no way to the machine's devices") {
  const Room room;
  CHECK(InChild([&]() -> std::string {
          if (const auto done = Confine(room.Plan()); !done.ok()) return done.status().ToString();
          const std::string file = room.inside + "/file";
          const auto node = [&](const char* name, mode_t mode, dev_t device) -> long {
            return ::mknod((room.inside + name).c_str(), mode, device);
          };
          // VFS_CAP_REVISION_2 with no capability at all
          const std::array<unsigned char, 20> capability = {0, 0, 0, 2};
          const int fd = ::open(file.c_str(), O_CREAT | O_WRONLY, 0644);
          return First(
              {Works("a file", fd), Works("its owner", ::fchown(fd, 1000, 1000)),
               Works("setuid of somebody else's file", ::fchmod(fd, 06755)),
               Works("file capabilities", ::fsetxattr(fd, "security.capability", capability.data(),
                                                      capability.size(), 0)),
               Fails("trusted.x", ::fsetxattr(fd, "trusted.overlay.opaque", "y", 1, 0)),
               Works("a pipe", node("/pipe", S_IFIFO | 0644, 0)),
               Works("a whiteout", node("/whiteout", S_IFCHR, 0)),
               Works("null", node("/null", S_IFCHR | 0666, ::makedev(1, 3))),
               Fails("mem", node("/mem", S_IFCHR | 0666, ::makedev(1, 1))),
               Fails("a disk", node("/disk", S_IFBLK | 0666, ::makedev(8, 0))),
               Fails("a block whiteout", node("/block", S_IFBLK, 0)),
               Fails("a far number", node("/far", S_IFCHR, ::makedev(1, 256 + 3)))});
        }) == "");
}

TEST_CASE("A confined process reaches the paths it was given, and no others") {
  if (!HasLandlock()) {
    WARN("this kernel has no Landlock");
    return;
  }
  const Room room;
  CHECK(InChild([&]() -> std::string {
          ConfinePlan plan = room.Plan();
          plan.read = {room.outside + "/absent", "/etc/hosts"};
          const auto done = Confine(plan);
          if (!done.ok()) return done.status().ToString();
          // Before Linux 6.2 Landlock does not ask.
          const bool truncates = done->landlock_abi() < 3;
          const std::string secret = room.outside + "/secret";
          const std::string link = room.inside + "/link";
          const std::string made = room.inside + "/made";
          const int fd = ::open(made.c_str(), O_CREAT | O_RDWR, 0644);
          return First(
              {Works("a file inside", fd),
               Works("a directory", ::mkdir((made + "d").c_str(), 0755)),
               Works("rename into it", ::rename(made.c_str(), (made + "d/x").c_str())),
               Fails("read outside", ::open(secret.c_str(), O_RDONLY), EACCES),
               Fails("write outside", ::open(secret.c_str(), O_WRONLY), EACCES),
               Fails("create outside", ::open((secret + "2").c_str(), O_CREAT | O_WRONLY, 0644),
                     EACCES),
               truncates ? std::string()
                         : Fails("truncate outside", ::truncate(secret.c_str(), 0), EACCES),
               Fails("unlink outside", ::unlink(secret.c_str()), EACCES),
               Fails("rename out", ::rename((made + "d").c_str(), (secret + "d").c_str()), EACCES),
               Fails("hard link in", ::link(secret.c_str(), (made + "2").c_str()), EXDEV),
               Works("a symbolic link", ::symlink(secret.c_str(), link.c_str())),
               Fails("through a symbolic link", ::open(link.c_str(), O_RDONLY), EACCES),
               Fails("up and out", ::open((room.inside + "/../outside/secret").c_str(), O_RDONLY),
                     EACCES),
               Works("what it may read", ::open("/etc/hosts", O_RDONLY)),
               Fails("shadow", ::open("/etc/shadow", O_RDONLY), EACCES)});
        }) == "");
  CHECK(*ReadFile(room.outside + "/secret") == "s");
  CHECK(ListDir(room.outside)->size() == 1);
}

TEST_CASE("Programs and TCP are for those whose plan says so") {
  const Room room;
  const auto start = [] {
    pid_t child = 0;
    std::string name = "/bin/true";
    std::array<char*, 2> arguments = {name.data(), nullptr};
    const int failed =
        ::posix_spawn(&child, name.c_str(), nullptr, nullptr, arguments.data(), nullptr);
    if (failed != 0) {
      errno = failed;
      return -1;
    }
    int status = 0;
    return ::waitpid(child, &status, 0) == child && status == 0 ? 0 : -1;
  };
  const auto listen = [](std::uint16_t port) {
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  };
  CHECK(InChild([&]() -> std::string {
          if (const auto done = Confine(room.Plan()); !done.ok()) return done.status().ToString();
          bool ran = false;
          std::thread([&ran] { ran = true; }).join();
          return First({ran ? "" : "no thread", Fails("a program", start()),
                        HasLandlock() ? Fails("listening", listen(0), EACCES) : ""});
        }) == "");
  CHECK(InChild([&]() -> std::string {
          ConfinePlan plan = room.Plan();
          plan.programs = true;
          plan.execute = {"/usr", "/lib", "/lib64"};
          plan.read = {"/etc/ld.so.cache"};
          plan.listen_tcp = {0};
          if (const auto done = Confine(plan); !done.ok()) return done.status().ToString();
          return First({Works("a program", start()), Works("listening", listen(0))});
        }) == "");
}

TEST_CASE("No capability that the plan leaves out is ever had again") {
  CHECK(InChild([]() -> std::string {
          if (const auto done = Confine({.capabilities = {"CHOWN"}}); !done.ok())
            return done.status().ToString();
          const cap_t now = ::cap_get_proc();
          const std::string text = ::cap_to_text(now, nullptr);
          if (text != "cap_chown=ep") return "has " + text;
          for (cap_value_t cap = 0; ::cap_get_bound(cap) >= 0; ++cap)
            if ((::cap_get_bound(cap) == 1) != (cap == CAP_CHOWN))
              return "bounding set: " + std::to_string(cap);
          return ::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ? "" : "may gain privileges";
        }) == "");
  CHECK(InChild([]() -> std::string {
          const auto done = Confine({.capabilities = {"FLY"}});
          return done.status().message();
        }) == "there is no capability FLY");
}

TEST_CASE("A process with threads is not confined by halves") {
  CHECK(InChild([]() -> std::string {
          std::stop_source stop;
          std::thread other([&stop] {
            while (!stop.stop_requested()) std::this_thread::yield();
          });
          const auto done = Confine({});
          stop.request_stop();
          other.join();
          return done.code() == Code::kFailedPrecondition ? "" : "confined";
        }) == "");
}

TEST_CASE("What was replaced or made since the confinement is known to be out of reach") {
  if (!HasLandlock()) return;
  const Room room;
  CHECK(InChild([&]() -> std::string {
          ConfinePlan plan = room.Plan();
          plan.read = {room.inside + "/a", room.inside + "/b", room.outside};
          if (!WriteFile(room.inside + "/a", "1").ok()) return "no file";
          const auto done = Confine(plan);
          if (!done.ok()) return done.status().ToString();
          if (!done->Outdated().empty()) return "outdated at once";
          if (!WriteFile(room.inside + "/b", "2").ok()) return "no second file";
          if (!Rename(room.inside + "/b", room.inside + "/a").ok()) return "no rename";
          if (done->Outdated() != std::vector{room.inside + "/a"}) return "a is not outdated";
          if (!WriteFile(room.inside + "/b", "2").ok()) return "no third file";
          if (done->Outdated().size() != 2) return "b is not outdated";
          // Another plan by now: what the first held is held, what is nowhere is not missed.
          ConfinePlan wanted;
          wanted.read = {room.outside + "/file", room.inside + "/none", room.inside + "/c"};
          if (done->Outdated(wanted).size() != 2) return "something of the plan is missed";
          if (!WriteFile(room.inside + "/c", "3").ok()) return "no fourth file";
          return done->Outdated(wanted).back() == room.inside + "/c" ? "" : "c is not missed";
        }) == "");
}

}  // namespace
}  // namespace crisp::os
