#include "libs/process/command.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <thread>

#include "libs/os/cgroup.h"
#include "libs/os/files.h"
#include "libs/os/temp_dir.h"
#include "libs/process/held.h"
#include "libs/process/reaper.h"

namespace crisp::process {
namespace {

using namespace std::chrono_literals;

Command Shell(std::string script) {
  return {.program = "/bin/sh", .args = {"-c", std::move(script)}, .env = PlainEnvironment()};
}
CallContext Soon() { return CallContext::Background(20s); }

TEST_CASE("Run gives output, errors and the exit code apart") {
  const auto out = Run(Soon(), Shell("echo one; echo two >&2; exit 3"));
  REQUIRE(out.ok());
  CHECK(out->out == "one\n");
  CHECK(out->err == "two\n");
  CHECK(out->exit_code == 3);
  CHECK(out->signal == 0);
}

TEST_CASE("A program gets exactly the environment, directory and input that it is given") {
  Command command{
      .program = "/bin/sh",
      .args = {"-c", "cat; pwd; env | sort | grep -v -e ^PWD= -e ^_= -e ^SHLVL= -e ^OLDPWD="},
      .env = {"PATH=/usr/bin:/bin", "A=b c"},
      .stdin_data = "in ",
      .cwd = "/tmp"};
  const auto out = Run(Soon(), command);
  REQUIRE(out.ok());
  CHECK(out->out == "in /tmp\nA=b c\nPATH=/usr/bin:/bin\n");
}

TEST_CASE("A held program comes up, and does its work when it gets its input") {
  auto held = Held::Start(Soon(), Shell("cat; echo done >&2; exit 4"));
  REQUIRE(held.ok());
  const auto out = held->Finish("late");
  REQUIRE(out.ok());
  CHECK(out->out == "late");
  CHECK(out->err == "done\n");
  CHECK(out->exit_code == 4);
}

TEST_CASE("A held program that nobody finishes is killed") {
  const auto dir = os::TempDir::Create("/tmp/crisp-process-");
  REQUIRE(dir.ok());
  const std::string pid_file = dir->path() + "/pid";
  auto held =
      Held::Start(Soon(), Shell(fmt::format("echo $$ >{0}.tmp; mv {0}.tmp {0}; cat", pid_file)));
  REQUIRE(held.ok());
  while (!os::Exists(pid_file)) std::this_thread::yield();
  const int pid = std::stoi(*os::ReadFile(pid_file, KiB(1)));
  {
    const Held gone = *std::move(held);
    CHECK(::kill(pid, 0) == 0);
  }
  while (::kill(pid, 0) == 0) std::this_thread::yield();
}

TEST_CASE("A held program that cannot be started is told of at once") {
  CHECK(Held::Start(Soon(), {.program = "/nonexistent"}).code() == Code::kNotFound);
}

TEST_CASE("No descriptor but the ones named reaches the child") {
  const int leaky = ::open("/dev/null", O_RDONLY);  // without O_CLOEXEC, as a library might
  const int given = ::open("/etc/hostname", O_RDONLY | O_CLOEXEC);
  Command command = Shell(
      "n=0; while [ $n -lt 64 ]; do [ -e /proc/$$/fd/$n ] && printf '%s ' $n; n=$((n + 1)); done; "
      "readlink /proc/$$/fd/5");
  command.fds = {{5, given}};
  const auto out = Run(Soon(), command);
  ::close(leaky);
  ::close(given);
  REQUIRE(out.ok());
  CHECK(out->out == "0 1 2 5 /etc/hostname\n");
}

TEST_CASE("Descriptors whose numbers cross are passed as named") {
  const int a = ::open("/etc/hostname", O_RDONLY | O_CLOEXEC);
  const int b = ::open("/etc/passwd", O_RDONLY | O_CLOEXEC);
  Command command = Shell(fmt::format("readlink /proc/$$/fd/{} /proc/$$/fd/{}", a, b));
  command.fds = {{a, b}, {b, a}};
  const auto out = Run(Soon(), command);
  ::close(a);
  ::close(b);
  REQUIRE(out.ok());
  CHECK(out->out == "/etc/passwd\n/etc/hostname\n");
}

TEST_CASE("What is not there cannot be started, by name and code") {
  const auto out = Run(Soon(), {.program = "/no/such/program"});
  CHECK(out.code() == Code::kNotFound);
  CHECK(out.status().message().find("/no/such/program") != std::string::npos);
  CHECK(Run(Soon(), {.program = "/etc/passwd"}).code() == Code::kPermissionDenied);
}

TEST_CASE("Death by a signal is 128 and its number") {
  const auto out = Run(Soon(), Shell("kill -9 $$"));
  REQUIRE(out.ok());
  CHECK(out->exit_code == 137);
  CHECK(out->signal == 9);
}

TEST_CASE("The deadline ends a program that ignores SIGTERM, with its children") {
  const auto dir = os::TempDir::Create("/tmp/crisp-process-");
  REQUIRE(dir.ok());
  const std::string pids = dir->path() + "/pids";
  const auto out =
      Run(CallContext::Background(300ms),
          Shell("trap '' TERM; sleep 100 & echo $$ $! > " + pids + "; wait; sleep 100"),
          {.kill_grace = 50ms});
  CHECK(out.code() == Code::kDeadlineExceeded);
  const auto text = os::ReadFile(pids);
  REQUIRE(text.ok());
  const pid_t shell = std::stoi(*text);
  const pid_t child = std::stoi(text->substr(text->find(' ')));
  CHECK(::kill(shell, 0) != 0);
  // The orphan is reaped by init in its own time; it does not run any more.
  for (int i = 0; i < 1000 && os::ReadProcStat(child).ok() && os::ReadProcStat(child)->state != 'Z';
       ++i) {
    std::this_thread::yield();
  }
  CHECK((!os::ReadProcStat(child).ok() || os::ReadProcStat(child)->state == 'Z'));
}

TEST_CASE("A stop request ends the program long before its deadline") {
  std::stop_source source;
  const CallContext cc(std::chrono::steady_clock::now() + 100s, source.get_token(), "r");
  const auto start = std::chrono::steady_clock::now();
  std::jthread stopper([&source] { source.request_stop(); });
  CHECK(Run(cc, Shell("sleep 100")).code() == Code::kCancelled);
  CHECK(std::chrono::steady_clock::now() - start < 10s);
}

TEST_CASE("Much output is read to its end, and capped") {
  const auto out =
      Run(Soon(), Shell("head -c 3000000 /dev/zero; echo done >&2"), {.max_output = KiB(64)});
  REQUIRE(out.ok());
  CHECK(out->out.size() == 65536);
  CHECK(out->truncated);
  CHECK(out->err == "done\n");
  CHECK(out->exit_code == 0);
}

TEST_CASE("Much input reaches a slow reader, and one that does not read does no harm") {
  Command command = Shell("wc -c");
  command.stdin_data.assign(1000000, 'x');
  auto out = Run(Soon(), command);
  REQUIRE(out.ok());
  CHECK(out->out == "1000000\n");
  command = Shell("exec 0<&-; exit 4");
  command.stdin_data.assign(1000000, 'x');
  out = Run(Soon(), command);
  REQUIRE(out.ok());
  CHECK(out->exit_code == 4);
}

TEST_CASE("A background child that holds the pipes does not hold the call") {
  const auto start = std::chrono::steady_clock::now();
  const auto out = Run(Soon(), Shell("sleep 30 & echo $!"), {.drain = 20ms});
  REQUIRE(out.ok());
  CHECK(std::chrono::steady_clock::now() - start < 10s);
  ::kill(std::stoi(out->out), SIGKILL);
}

TEST_CASE("What Run ran is no zombie for long") {
  std::vector<std::string> pids;
  for (int i = 0; i < 20; ++i) {
    const auto out = Run(Soon(), Shell("echo $$"));
    REQUIRE(out.ok());
    pids.push_back(out->out.substr(0, out->out.find('\n')));
  }
  const auto gone = [](const std::string& pid) { return !os::Exists("/proc/" + pid); };
  const auto give_up = std::chrono::steady_clock::now() + 10s;
  while (!std::all_of(pids.begin(), pids.end(), gone)) {
    REQUIRE(std::chrono::steady_clock::now() < give_up);
    std::this_thread::sleep_for(5ms);
  }
}

TEST_CASE("A program that SIGKILL does not end is told of, and reaped once it does end") {
  const auto cgroups = os::Cgroups::Detect();
  REQUIRE(cgroups.ok());
  const std::string path = fmt::format("/crisp-process-test-{}", ::getpid());
  const auto freezer = cgroups->DirFor("freezer", path);
  // With cgroup v2 SIGKILL ends what is frozen; and cgroups are root's.
  if (::geteuid() != 0 || !freezer.ok() || cgroups->mode() == os::CgroupMode::kV2) return;
  REQUIRE(cgroups->Create(path).ok());
  pid_t pid = 0;
  Status frozen;
  std::thread freeze([&] {
    while (pid == 0) {
      if (const auto pids = cgroups->Pids(path); pids.ok() && !pids->empty()) pid = pids->front();
    }
    frozen = os::WriteExisting(*freezer + "/freezer.state", "FROZEN");
  });
  const auto start = std::chrono::steady_clock::now();
  const auto out =
      Run(CallContext::Background(1s), Shell("echo $$ > " + *freezer + "/cgroup.procs; sleep 1000"),
          {.kill_grace = 10ms});
  freeze.join();
  REQUIRE(frozen.ok());
  INFO(out.status().ToString());
  CHECK(out.code() == Code::kDeadlineExceeded);
  CHECK(out.status().message().find("after SIGKILL") != std::string::npos);
  CHECK(out.status().message().find(fmt::format("process {} (sh)", pid)) != std::string::npos);
  CHECK(std::chrono::steady_clock::now() - start < 20s);
  CHECK(os::Exists(fmt::format("/proc/{}", pid)));
  CHECK(cgroups->Thaw(path).ok());
  const auto give_up = std::chrono::steady_clock::now() + 10s;
  while (os::Exists(fmt::format("/proc/{}", pid))) {
    REQUIRE(std::chrono::steady_clock::now() < give_up);
    std::this_thread::sleep_for(5ms);
  }
  CHECK(cgroups->Remove(path).ok());
}

TEST_CASE("A reaper that ends leaves nobody behind") {
  auto child = Spawn(Shell("exit 3"));
  REQUIRE(child.ok());
  const pid_t pid = child->pid();
  siginfo_t info = {};
  REQUIRE(::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT) == 0);
  {
    Reaper reaper;
    reaper.Later(pid);
  }
  CHECK_FALSE(os::Exists("/proc/" + std::to_string(pid)));
}

TEST_CASE("Spawn starts, Wait waits within the call, Reap does not wait") {
  auto child = Spawn(Shell("sleep 100"));
  REQUIRE(child.ok());
  CHECK(child->Wait(CallContext::Background(10ms)).code() == Code::kDeadlineExceeded);
  REQUIRE(child->Reap().ok());
  CHECK_FALSE(child->Reap().value().has_value());
  CHECK(child->pidfd().Signal(SIGKILL).ok());
  const auto code = child->Wait(Soon());
  REQUIRE(code.ok());
  CHECK(*code == 137);
  CHECK(child->Wait(Soon()).value() == 137);
}

TEST_CASE("A child that stays too long is left to the reaper") {
  auto child = Spawn(Shell("sleep 100"));
  REQUIRE(child.ok());
  CHECK(child->WaitOrLeave(10ms).code() == Code::kDeadlineExceeded);
  REQUIRE(child->pidfd().Signal(SIGKILL).ok());
  const std::string process = "/proc/" + std::to_string(child->pid());
  const auto give_up = std::chrono::steady_clock::now() + 30s;
  while (os::Exists(process)) {
    REQUIRE(std::chrono::steady_clock::now() < give_up);
    std::this_thread::sleep_for(5ms);
  }
}

TEST_CASE("Spawn passes input and writes output where it is told") {
  const auto dir = os::TempDir::Create("/tmp/crisp-process-");
  REQUIRE(dir.ok());
  auto file = os::Open(dir->path() + "/out", O_WRONLY | O_CREAT, 0600);
  REQUIRE(file.ok());
  Command command = Shell("cat");
  command.stdin_data = "hello";
  command.out_fd = file->get();
  command.new_session = true;
  auto child = Spawn(command);
  REQUIRE(child.ok());
  CHECK(child->Wait(Soon()).value() == 0);
  CHECK(os::ReadFile(dir->path() + "/out").value() == "hello");
}

}  // namespace
}  // namespace crisp::process
