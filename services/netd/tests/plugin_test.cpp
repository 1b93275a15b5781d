// The plugins' programs and processes, when the node is in a bad moment. Needs root: the namespaces
// are real.
#include <fcntl.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <filesystem>
#include <thread>

#include "libs/os/file_lock.h"
#include "libs/os/namespaces.h"
#include "libs/os/proc_stat.h"
#include "libs/process/command.h"
#include "services/netd/core/host_local.h"
#include "services/netd/core/leftovers.h"
#include "services/netd/tests/fake_plugins.h"
#include "services/netd/tests/test_net.h"

namespace crisp::netd {
namespace {

using namespace std::chrono_literals;

/// `fn` on a thread whose `calls` to the kernel fail with `error`.
void Without(const std::vector<int>& calls, int error, const std::function<void()>& fn) {
  std::jthread([&] {
    const scmp_filter_ctx filter = ::seccomp_init(SCMP_ACT_ALLOW);
    for (const int call : calls) {
      CHECK(::seccomp_rule_add(filter, SCMP_ACT_ERRNO(static_cast<unsigned>(error)), call, 0) == 0);
    }
    CHECK(::seccomp_load(filter) == 0);
    ::seccomp_release(filter);
    fn();
  }).join();
}

/// `fn` on a thread that can start nothing, as on a node without a process number left.
void WithoutFork(const std::function<void()>& fn) {
  Without({SCMP_SYS(clone), SCMP_SYS(clone3), SCMP_SYS(fork), SCMP_SYS(vfork)}, EAGAIN, fn);
}

TEST_CASE("No ADD begins for a pod whose intent cannot be brought to the disk") {
  TestNet net;
  Healthy(net);
  REQUIRE(net.networks->Attach(net.Call(), kPod, PodConfig()).ok());
  Without({SCMP_SYS(fdatasync), SCMP_SYS(fsync)}, EIO, [&net] {
    const auto attached = net.networks->Attach(net.Call(), kOtherPod, PodConfig());
    CHECK(attached.status().message().find("sync the records") != std::string::npos);
    CHECK(net.root.Read("log/one.ADD.env").find(kOtherPod.str()) == std::string::npos);
    // What follows an intent is not synced.
    CHECK(net.networks->Detach(net.Call(), kPod).ok());
  });
  CHECK_FALSE(os::Exists(net.config.layout.NetnsPath(kOtherPod)));
  CHECK(net.store->List().value().empty());
}

TEST_CASE("A program that is being written over is waited for") {
  TestNet net;
  Healthy(net);
  REQUIRE(net.readiness->Look(net.Call()).ok());
  auto writer = os::Open(net.root / "bin/two", O_WRONLY);
  REQUIRE(writer.ok());
  std::jthread pod([&net] {
    const auto attached = net.networks->Attach(net.Call(), kPod, PodConfig());
    INFO(attached.status().ToString());
    CHECK(attached.ok());
  });
  AwaitFile(net.root / "log/one.ADD.stdin");
  writer->reset();
  pod.join();
  CHECK(net.networks->Detach(net.Call(), kPod).ok());
}

TEST_CASE("The programs of an ADD come up together, and do their work in their turn") {
  const testing::TestRoot root;
  root.Script("bin/script", "cat");
  // Their result is what they were given.
  for (const char* type : {"one", "two"}) {
    std::filesystem::copy_file("/bin/cat", root / fmt::format("bin/{}", type));
  }
  const auto list = ParseConfList(R"({"name": "t", "cniVersion": "1.0.0", "plugins": [
      {"type": "one"}, {"type": "script"}, {"type": "two"}]})",
                                  "");
  REQUIRE(list.ok());
  const CallContext cc = CallContext::Background(20s);
  const PluginRunner runner({root / "bin"});
  const PluginArgs args{.container_id = "c", .netns = "/n"};
  PluginRunner::Started started = runner.StartAhead(cc, *list, args);
  REQUIRE(started.size() == 3);
  CHECK(started[0].has_value());
  CHECK_FALSE(started[1].has_value());  // it might begin too early
  CHECK(started[2].has_value());
  const auto result = runner.Add(cc, *list, args, nullptr, std::move(started));
  REQUIRE(result.ok());
  CHECK((*result)["type"] == "two");
  CHECK((*result)["prevResult"]["type"] == "script");
  CHECK((*result)["prevResult"]["prevResult"]["type"] == "one");
}

TEST_CASE("No process to be had is not a missing program: the namespace stays for DEL") {
  TestNet net;
  Healthy(net);
  REQUIRE(net.networks->Attach(net.Call(), kPod, PodConfig()).ok());
  WithoutFork(
      [&net] { CHECK(net.networks->Detach(net.Call(), kPod).code() == Code::kResourceExhausted); });
  CHECK(os::IsPinnedNamespace(net.config.layout.NetnsPath(kPod)).value());
  CHECK(net.networks->Detach(net.Call(), kPod).ok());
  CHECK(Calls(net) == "ADD one NS\nADD two NS\nDEL two NS\nDEL one NS\n");
}

TEST_CASE("A VERSION that failed is asked for again") {
  TestNet net;
  const std::string bad = net.root.Write("bad", "");
  net.root.Script("bin/one", fmt::format(R"(test ! -e {} || exit 1
echo '{{"cniVersion": "1.0.0", "supportedVersions": ["1.0.0"]}}')",
                                         bad));
  net.root.Write("conf/10-t.conf", R"({"name": "t", "cniVersions": ["1.0.0", "1.1.0"],
                                       "type": "one"})");
  static_cast<void>(net.readiness->Look(net.Call()).ok());
  CHECK(os::RemoveFile(bad).ok());
  REQUIRE(net.readiness->Look(net.Call()).ok());
  CHECK(net.readiness->Wait(net.Call(), 0s).value()->cni_version == "1.0.0");
}

TEST_CASE("Leftovers that keep starting others are ended to the last") {
  const testing::TestRoot root;
  const std::string mark = "CRISP_TEST=" + root.path();
  // Several, so that some are at it between the look at the processes and the end of the last.
  const std::string script = fmt::format(
      "for i in 1 2 3 4; do (n=0; while test $n -lt 1000; do sleep 100 & n=$((n+1)); echo > {}; "
      "done; sleep 100) & done; wait",
      root / "begun");
  auto parent = process::Spawn({.program = "/bin/sh",
                                .args = {"-c", script},
                                .env = {"PATH=/usr/bin:/bin", mark},
                                .new_session = true});
  REQUIRE(parent.ok());
  AwaitFile(root / "begun");
  CHECK(EndLeftovers(TestNet::Call(), {mark}).ok());
  CHECK(parent->Wait(TestNet::Call()).ok());
  std::string left;
  for (const std::string& pid : os::ListDir("/proc").value_or({})) {
    const auto environment = os::ReadFile("/proc/" + pid + "/environ");
    if (environment.ok() && environment->find(mark) != std::string::npos) left += pid + " ";
  }
  CHECK(left.empty());
  CHECK(EndLeftovers(TestNet::Call(), {mark}).ok());
}

TEST_CASE("Addresses that host-local has made and not written whose they are are free again") {
  const testing::TestRoot root;
  const auto list =
      ParseConfList(fmt::format(R"({{"name": "net", "cniVersion": "1.0.0", "type": "bridge",
                      "ipam": {{"type": "host-local", "dataDir": "{}"}}}})",
                                root.path()),
                    "");
  REQUIRE(list.ok());
  CHECK(HostLocalDirs(*list).back() == root / "net");
  CHECK(FreeNobodys(TestNet::Call(), *list).value() == 0);  // never used
  for (const char* name : {"10.1.0.2", "fd00::2", "last_reserved_ip.0", "lock", "other"}) {
    root.Write(std::string("net/") + name, "");
  }
  root.Write("net/10.1.0.3", "pod\r\neth0");
  {
    const auto at_work = os::FileLock::TryLock(root / "net/lock");
    REQUIRE(at_work.ok());
    const CallContext soon = CallContext::Background(20ms);
    CHECK(FreeNobodys(soon, *list).status().code() == Code::kUnavailable);
    CHECK(os::Exists(root / "net/10.1.0.2"));
  }
  CHECK(FreeNobodys(TestNet::Call(), *list).value() == 2);
  CHECK(os::ListDir(root / "net").value().size() == 4);
  CHECK(root.Read("net/10.1.0.3") == "pod\r\neth0");
}

TEST_CASE("A leftover on its way through execve is waited for until it shows who it is") {
  const testing::TestRoot root;
  auto child = process::Spawn({.program = "/bin/sleep", .args = {"100"}});
  REQUIRE(child.ok());
  // As the kernel shows it there: neither arguments nor an environment.
  const std::string dir = std::to_string(child->pid());
  root.Write("self/status", "Name:\tnetd\nNSpid:\t7\n");
  root.Write(dir + "/status", "Name:\tsh\nNSpid:\t" + dir + "\n");
  root.Write(dir + "/stat", dir + " (sh) R 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 7 0 0");
  root.Write(dir + "/cmdline", "");
  root.Write(dir + "/environ", "");
  int code = 0;
  {
    std::jthread exec([&] {
      std::this_thread::sleep_for(20ms);
      root.Write(dir + "/environ", "CNI_CONTAINERID=x");
      code = child->Wait(TestNet::Call()).value_or(0);
      static_cast<void>(os::RemoveTree(root / dir).ok());
    });
    CHECK(EndLeftovers(TestNet::Call(), {"CNI_CONTAINERID=x"}, 0s, 0s, root.path()).ok());
  }
  CHECK(code == 128 + SIGKILL);
}

TEST_CASE("Processes that cannot be leftovers are not looked into, as that may never end") {
  const testing::TestRoot root;
  const long ticks = ::sysconf(_SC_CLK_TCK);
  root.Write("self/status", "Name:\tnetd\nNSpid:\t7\n");
  const auto process = [&root](int pid, long began, const std::string& namespaces) {
    const std::string dir = std::to_string(pid);
    root.Write(dir + "/stat",
               fmt::format("{} (p) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {} 0 0", pid, began));
    root.Write(dir + "/status", "Name:\tp\nNSpid:\t" + namespaces + "\n");
    // A read of it waits until somebody writes: as of one that stands in a page fault.
    CHECK(::mkfifo((root / (dir + "/environ")).c_str(), 0600) == 0);
  };
  process(101, 50 * ticks, "101");          // older
  process(102, 200 * ticks, "102\t1");      // in a container
  process(103, 200 * ticks, "103\t20\t1");  // in one within one
  CHECK(EndLeftovers(TestNet::Call(), {"CNI_CONTAINERID=x"}, 100s, 0s, root.path()).ok());
}

TEST_CASE("A plugin that an earlier life's pod has left is found by its age, too") {
  TestNet net;
  Healthy(net);
  Plugin(net, "two",
         "setsid sleep 100 > /dev/null 2>&1 & echo $! > " + (net.root / "pid") + "; exit 1");
  CHECK_FALSE(net.networks->Attach(net.Call(), kPod, PodConfig()).ok());
  CHECK_FALSE(os::Alive(os::ProcessId::Of(std::stoi(net.root.Read("pid"))).value_or({})));
  CHECK(net.store->List().value().empty());
}

TEST_CASE("What a good ADD has started to stay is DEL's to end, not ours") {
  TestNet net;
  Healthy(net);
  const std::string broken = net.root.Write("broken", "");
  Plugin(net, "two",
         fmt::format("setsid sleep 100 > /dev/null 2>&1 & echo $! > {}; {}", net.root / "pid",
                     kAddress),
         fmt::format("test ! -e {} || {{ setsid sleep 100 & echo $! > {}; exit 1; }}", broken,
                     net.root / "del-pid"));
  REQUIRE(net.networks->Attach(net.Call(), kPod, PodConfig()).ok());
  const auto helper = os::ProcessId::Of(std::stoi(net.root.Read("pid")));
  REQUIRE(helper.ok());
  CHECK_FALSE(net.networks->Detach(net.Call(), kPod).ok());
  const auto stray = os::ProcessId::Of(std::stoi(net.root.Read("del-pid")));
  REQUIRE(stray.ok());
  CHECK(os::RemoveFile(broken).ok());
  CHECK(net.networks->RollBack(net.Call(), kPod).ok());
  CHECK(os::Alive(*helper));
  CHECK_FALSE(os::Alive(*stray));
  const auto process = os::PidFd::Open(*helper);
  REQUIRE(process.ok());
  CHECK(process->Signal(SIGKILL).ok());
}

}  // namespace
}  // namespace crisp::netd
