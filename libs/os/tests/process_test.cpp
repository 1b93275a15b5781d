#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>

#include "libs/os/mount.h"
#include "libs/os/pidfd.h"
#include "libs/os/proc_stat.h"

namespace crisp::os {
namespace {

class Sleeper {
 public:
  Sleeper() {
    std::string name = "sleep";
    std::string time = "100";
    std::array<char*, 3> argv = {name.data(), time.data(), nullptr};
    REQUIRE(::posix_spawn(&pid_, "/bin/sleep", nullptr, nullptr, argv.data(), nullptr) == 0);
  }
  ~Sleeper() { End(); }
  pid_t pid() const { return pid_; }
  void End() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

 private:
  pid_t pid_ = -1;
};

TEST_CASE("A pidfd signals its process and knows when it has ended") {
  Sleeper child;
  const auto id = ProcessId::Of(child.pid());
  REQUIRE(id.ok());
  const auto fd = PidFd::Open(*id);
  REQUIRE(fd.ok());
  CHECK(Alive(*id));
  CHECK_FALSE(fd->Exited().value());
  CHECK(fd->Signal(SIGKILL).ok());
  siginfo_t info = {};
  CHECK(::waitid(P_PID, static_cast<id_t>(child.pid()), &info, WEXITED | WNOWAIT) == 0);
  CHECK(fd->Exited().value());
  CHECK_FALSE(Alive(*id));  // a zombie is not alive
  child.End();
  CHECK(fd->Signal(SIGKILL).code() == Code::kNotFound);
  CHECK(PidFd::Open(*id).code() == Code::kNotFound);
  CHECK(ProcessId::Of(0x3fffff).code() == Code::kNotFound);
}

TEST_CASE("The number of another process does not pass for the recorded one") {
  const ProcessId other{::getpid(), 1};
  CHECK_FALSE(Alive(other));
  CHECK(PidFd::Open(other).code() == Code::kNotFound);
}

TEST_CASE("Children and descendants are found") {
  const Sleeper child;
  const auto children = Children(::getpid());
  REQUIRE(children.ok());
  CHECK(std::find(children->begin(), children->end(), child.pid()) != children->end());
  const auto all = Descendants(::getpid());
  REQUIRE(all.ok());
  CHECK(std::find(all->begin(), all->end(), child.pid()) != all->end());
  CHECK(Children(0x3fffff).value().empty());
}

TEST_CASE("A command with brackets and blanks does not confuse /proc/<pid>/stat") {
  const auto stat = ParseProcStat(
      "42 (a) b (c)) S 7 42 42 0 -1 4194304 1 0 0 0 11 22 0 0 20 0 1 0 98765 100 1 1\n");
  REQUIRE(stat.ok());
  CHECK(stat->pid == 42);
  CHECK(stat->command == "a) b (c)");
  CHECK(stat->state == 'S');
  CHECK(stat->parent == 7);
  CHECK(stat->cpu_ticks == 33);
  CHECK(stat->start_time == 98765);
  for (const char* bad : {"", "42", "42 (x)", "42 (x) S 1 2", "x (x) S 1 1 1 1"}) {
    CHECK(ParseProcStat(bad).code() == Code::kDataLoss);
  }
}

TEST_CASE("Lines of mountinfo, with tags and escapes") {
  const auto mounts = ParseMounts(
      "36 35 98:0 / /mnt\\040a\\134b rw,noatime shared:1 master:2 - ext4 /dev/x rw,errors=ro\n"
      "37 36 0:5 /sub /p ro - nsfs none rw\n");
  REQUIRE(mounts.ok());
  REQUIRE(mounts->size() == 2);
  CHECK((*mounts)[0].mount_point == "/mnt a\\b");
  CHECK((*mounts)[0].tags == std::vector<std::string>{"shared:1", "master:2"});
  CHECK((*mounts)[0].type == "ext4");
  CHECK((*mounts)[0].super_options == "rw,errors=ro");
  CHECK((*mounts)[1].root == "/sub");
  CHECK((*mounts)[1].tags.empty());
  CHECK((*mounts)[1].parent == 36);
  CHECK(ParseMounts("nonsense\n").code() == Code::kDataLoss);
  CHECK(ReadMounts().ok());
  CHECK(IsMountPoint("/proc").value());
  CHECK_FALSE(IsMountPoint("/proc/self").value());
  CHECK_FALSE(IsMountPoint("/none").value());
}

}  // namespace
}  // namespace crisp::os
