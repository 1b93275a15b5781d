// "crispctl why": what it makes of what daemons and the kernel say.
#include <grpcpp/grpcpp.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <memory>

#include "crisp/daemon/v1/daemon.grpc.pb.h"
#include "libs/json/json.h"
#include "libs/os/files.h"
#include "libs/testing/test_root.h"
#include "services/crispctl/tests/command_run.h"
#include "services/crispctl/why/gather.h"
#include "services/crispctl/why/judge.h"
#include "services/crispctl/why/places.h"

namespace crisp::ctl::why {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;
const std::string kPod(64, 'a');

bool Says(const std::string& text, std::string_view words) {
  return text.find(words) != std::string::npos;
}

/// A directory like /proc.
struct FakeProc {
  testing::TestRoot root;

  void Add(pid_t pid, const std::string& command, char state,
           const std::vector<pid_t>& children = {}) {
    const std::string dir = fmt::format("proc/{}/task/{}/", pid, pid);
    const std::string stat = fmt::format(
        "{} ({}) {} 1 1 1 0 -1 0 0 0 0 0 1 2 0 0 20 0 1 0 555 0 0\n", pid, command, state);
    root.Write(dir + "stat", stat);
    root.Write(fmt::format("proc/{}/stat", pid), stat);
    root.Write(dir + "children", fmt::format("{}", fmt::join(children, " ")));
    root.Write(fmt::format("proc/{}/cmdline", pid), command + std::string(1, '\0') + "arg");
    root.Write(fmt::format("proc/{}/cgroup", pid), "1:cpu:/crisp-x\n");
  }
  void Hang(pid_t pid) {
    const std::string dir = fmt::format("proc/{}/task/{}/", pid, pid);
    root.Write(dir + "wchan", "percpu_rwsem_wait");
    root.Write(dir + "stack", "[<0>] percpu_rwsem_wait+0x1/0x2\n[<0>] vfs_write+0x3/0x4 [ext4]\n");
    root.Write(dir + "syscall",
               fmt::format("{} 0x3 0x7f 0x10 0x0 0x0 0x0 0x7ffe 0x7f\n", SYS_write));
    REQUIRE(os::MakeDirs(root / fmt::format("proc/{}/fd", pid)).ok());
    REQUIRE(os::Symlink("/data/file", root / fmt::format("proc/{}/fd/3", pid)).ok());
    root.Write(fmt::format("proc/{}/mountinfo", pid),
               "1 0 8:1 / / rw - ext4 /dev/vda rw\n2 1 7:0 / /data rw - ext4 /dev/loop0 rw\n");
  }
  std::string path() const { return root / "proc"; }
};

Operation OperationOf(const std::string& kind, const std::string& request, std::int64_t seconds,
                      const std::string& subject = kPod) {
  Operation operation;
  operation.set_kind(kind);
  operation.set_request_id(request);
  operation.set_took(seconds * kSecond);
  operation.add_subjects(subject);
  return operation;
}

void AddStage(Operation& operation, const std::string& what, const std::string& peer = "",
              int parent = -1) {
  auto* stage = operation.add_stages();
  stage->set_what(what);
  stage->set_peer(peer);
  stage->set_parent(parent);
  stage->set_took(operation.took());
  stage->set_under_way(true);
}

class Told final : public daemon::v1::Daemon::Service {
 public:
  grpc::Status Operations(grpc::ServerContext*, const daemon::v1::OperationsRequest*,
                          daemon::v1::OperationsResponse* response) override {
    *response = answer;
    return grpc::Status::OK;
  }
  daemon::v1::OperationsResponse answer;
};

/// A node whose daemons say what the test has them say.
struct FakeNode {
  FakeNode() {
    root.Write("crisp.yaml", fmt::format("run_root: {0}/run\nstate_root: {0}\n", root.path()));
    for (const char* name : {"crid", "imaged", "netd", "rund"}) {
      REQUIRE(os::MakeDirs(root / fmt::format("run/{}", name)).ok());
      Serve(name);
    }
  }
  ~FakeNode() {
    for (auto& [name, server] : servers) server->Shutdown();
  }
  void Serve(const std::string& name) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix:" + root.path() + "/run/" + name + "/1.sock",
                             grpc::InsecureServerCredentials());
    builder.RegisterService(&services[name]);
    servers[name] = builder.BuildAndStart();
  }
  Ran Why(std::vector<std::string> words) const {
    words.insert(words.begin(), {"-c", root / "crisp.yaml", "why"});
    return RunCommand(std::move(words));
  }

  testing::TestRoot root;
  std::map<std::string, Told> services;
  std::map<std::string, std::unique_ptr<grpc::Server>> servers;
};

}  // namespace

TEST_CASE("of a tree of processes the one that sleeps uninterruptibly is the one to look at") {
  FakeProc proc;
  proc.Add(10, "runc", 'S', {11, 12});
  proc.Add(11, "init", 'D');
  proc.Add(12, "sleep", 'S');
  proc.Hang(11);
  const auto place = PlaceOf(10, proc.path());
  REQUIRE(place.has_value());
  CHECK(place->pid == 11);
  CHECK(place->uninterruptible());
  CHECK(place->stack == std::vector<std::string>{"percpu_rwsem_wait", "vfs_write"});
  CHECK(place->file == "/data/file");
  CHECK(place->mount == "/data (ext4 on /dev/loop0)");
  CHECK(place->line.empty());  // of its memory nothing is read
  CHECK(PlaceText(*place) ==
        "process 11 (init) is in uninterruptible sleep in percpu_rwsem_wait, at /data/file on "
        "/data (ext4 on /dev/loop0)");
  const Culprit culprit = JudgePlace(*place);
  CHECK(Says(culprit.what, "its file system is frozen"));
  CHECK(Says(culprit.hint, "fsfreeze --unfreeze"));
  CHECK(SleepersBeside(12, proc.path()).size() == 1);
}

TEST_CASE("of a chain of processes it is the last one, and none of those that are gone") {
  FakeProc proc;
  proc.Add(10, "plugin", 'S', {11});
  proc.Add(11, "sleep", 'S', {12});
  proc.Add(12, "dead", 'Z');
  CHECK(PlaceOf(10, proc.path())->pid == 11);
  CHECK(PlaceOf(10, proc.path())->line == "sleep arg");
  CHECK_FALSE(PlaceOf(99, proc.path()).has_value());
  proc.Add(13, "halted", 'T');
  CHECK(PlaceOf(13, proc.path())->stopped());
}

TEST_CASE("what people call pods, containers and images is what operations are about") {
  CHECK(IsMeant(kPod, kPod));
  CHECK(IsMeant(kPod, "aaaaaa"));
  CHECK_FALSE(IsMeant(kPod, "aaa"));
  CHECK_FALSE(IsMeant(kPod, "b"));
  CHECK(IsMeant("default/web", "default/web"));
  CHECK(IsMeant("default/web", "web"));
  CHECK_FALSE(IsMeant("default/web", "we"));
  CHECK(IsMeant("docker.io/library/nginx:1.25", "nginx"));
  CHECK(IsMeant("docker.io/library/nginx:1.25", "nginx:1.25"));
  CHECK(IsMeant("docker.io/library/nginx:1.25", "library/nginx:1.25"));
  CHECK_FALSE(IsMeant("docker.io/library/nginx:1.25", ""));
}

TEST_CASE("what daemons do for one request is one, background work is each its own") {
  std::vector<Daemon> daemons(2);
  daemons[0].name = "netd/1";
  daemons[1].name = "crid/1";
  daemon::v1::OperationsResponse netd;
  *netd.add_under_way() = OperationOf("Attach", "abc-1", 9);
  *netd.add_under_way() = OperationOf("clean up", "clean", 5);
  *netd.add_under_way() = OperationOf("clean up", "clean", 4);
  daemon::v1::OperationsResponse crid;
  *crid.add_under_way() = OperationOf("RunPodSandbox", "abc-1", 10);
  daemons[0].answer = netd;
  daemons[1].answer = crid;
  const std::vector<Request> requests = Join(daemons);
  REQUIRE(requests.size() == 3);
  CHECK(requests[0].id == "abc-1");
  CHECK(requests[0].took == std::chrono::seconds(10));
  REQUIRE(requests[0].parts.size() == 2);
  CHECK(requests[0].parts[0].daemon == "crid/1");
}

TEST_CASE("the culprit is whom the innermost step waits for, in the daemon that does the work") {
  Operation run = OperationOf("RunPodSandbox", "abc-1", 10);
  AddStage(run, "Attach of netd/1", "netd/1");
  Operation attach = OperationOf("Attach", "abc-1", 9);
  AddStage(attach, "undo");
  AddStage(attach, "plugin slow: ADD", "", 0);
  Request request{.id = "abc-1"};
  request.parts = {{"crid/1", 0, run}, {"netd/1", 0, attach}};
  Wait wait = WaitOf(request);
  CHECK(wait.daemon == "netd/1");
  CHECK(wait.step == "plugin slow: ADD");
  CHECK(JudgeRequest(wait, {}).what == "the network plugin slow: ADD");

  // A peer that does not answer has no part.
  request.parts.pop_back();
  wait = WaitOf(request);
  CHECK(wait.peer == "netd/1");
  std::vector<Daemon> daemons(1);
  daemons[0].name = "netd/1";
  daemons[0].unit = "crisp-netd@1";
  CHECK(JudgeRequest(wait, daemons).what == "netd/1 is not running");
  CHECK(Says(JudgeRequest(wait, daemons).hint, "systemctl start crisp-netd@1"));

  Operation pull = OperationOf("Pull", "abc-2", 10, "quay.io/x:1");
  AddStage(pull, "layer sha256:1");
  pull.mutable_stages(0)->set_how_far("10 of 900 bytes from quay.io, 1 bytes/s");
  CHECK(JudgeRequest(WaitOf({.id = "abc-2", .parts = {{"imaged/1", 0, pull}}}), {}).what ==
        "the registry quay.io: 10 of 900 bytes from quay.io, 1 bytes/s");
}

TEST_CASE("why tells what is slow, and of a pod also what is not and what failed last") {
  FakeNode node;
  CHECK(node.Why({}).code == kFailed);
  Operation attach = OperationOf("Attach", "abc-1", 9);
  AddStage(attach, "plugin slow: ADD");
  *node.services["netd"].answer.add_under_way() = attach;
  *node.services["netd"].answer.add_under_way() = OperationOf("Attach", "abc-2", 0, "default/web");
  Operation failed = OperationOf("CreateContainer", "abc-3", 1, "default/old");
  failed.set_code(8);
  failed.set_error("write /x: No space left on device");
  failed.set_failures(3);
  *node.services["rund"].answer.add_failed() = failed;

  const Ran all = node.Why({});
  INFO(all.out << all.err);
  CHECK(all.code == kDone);
  CHECK(Says(all.out, "culprit: the network plugin slow: ADD"));
  CHECK(Says(all.out, "rund/1: CreateContainer of default/old (3 times)"));
  CHECK(Says(all.out, "culprit: a full disk"));
  CHECK_FALSE(Says(all.out, "default/web"));

  CHECK(Says(node.Why({"web"}).out, "Attach of default/web"));
  CHECK(node.Why({"old"}).code == kDone);
  const Ran none = node.Why({"nobody"});
  CHECK(none.code == kFailed);
  CHECK(Says(none.err, "nothing is under way for 'nobody'"));

  const Ran as_json = node.Why({"-o", "json"});
  const auto parsed = json::Parse(as_json.out);
  REQUIRE(parsed.ok());
  CHECK((*parsed)["slow"][0]["parts"][0]["kind"] == "Attach");
  CHECK((*parsed)["failures"][0]["code"] == 8);
}

TEST_CASE("why names a daemon that is not there") {
  FakeNode node;
  node.servers["imaged"]->Shutdown();
  node.servers["imaged"] = nullptr;
  node.servers.erase("imaged");
  const Ran ran = node.Why({"anything"});
  INFO(ran.out << ran.err);
  CHECK(ran.code == kDone);
  CHECK(Says(ran.out, "imaged/1 is not running"));
  CHECK(Says(ran.out, "systemctl start crisp-imaged@1"));
}

TEST_CASE("who listens on a socket is known without asking") {
  FakeNode node;
  CHECK(Client::ListenerOf(node.root / "run/netd/1.sock") == getpid());
  CHECK(Client::ListenerOf(node.root / "run/nobody.sock") == 0);
}

}  // namespace crisp::ctl::why
