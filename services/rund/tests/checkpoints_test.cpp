// Checkpoints and containers that are made from them, with a runtime that writes and reads them
// without CRIU. The real one is in integration/vm.
#include "services/rund/core/checkpoints.h"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <future>

#include "libs/os/files.h"
#include "services/rund/runtime/checkpoint_archive.h"
#include "services/rund/tests/test_node.h"

using namespace crisp;        // NOLINT
using namespace crisp::rund;  // NOLINT
namespace cri = runtime::v1;
using std::chrono::seconds;

namespace {

constexpr const char* kRunc = "/usr/sbin/runc";

/// runc, but for `checkpoint` and `restore`: the first does `dump`, the second makes the container
/// from its bundle and lets it run.
std::string Runtime(const testing::TestRoot& root, const std::string& dump,
                    const std::string& restore = "") {
  return root.Script(
      "crispy",
      "case \" $* \" in *' checkpoint --help '*) exit 0 ;; *' checkpoint '*)\n"
      "while [ $# -gt 1 ]; do case $1 in --image-path) images=$2 ;; --work-path) work=$2 ;; esac; "
      "shift; done\n" +
          dump + "\n;; *' restore '*)\n" + restore +
          "\nglobal=; while [ \"$1\" != restore ]; do global=\"$global $1\"; shift; done; shift\n"
          "while [ $# -gt 1 ]; do case $1 in --bundle) bundle=$2; shift ;; "
          "--pid-file) pid=$2; shift ;; --image-path) images=$2; shift ;; esac; shift; done\n"
          "[ -e \"$images/inventory.img\" ] || { echo 'no images' >&2; exit 1; }\n"
          "/usr/sbin/runc $global create --bundle $bundle --pid-file $pid.tmp $1 && "
          "/usr/sbin/runc $global start $1 && mv $pid.tmp $pid\n"
          ";; *) exec /usr/sbin/runc \"$@\" ;; esac\n");
}

constexpr const char* kDump =
    "echo x > $images/inventory.img; echo log > $work/dump.log; echo x > $work/stats-dump";

/// A container's root file system is an overlay, as imaged has it.
class Node {
 public:
  explicit Node(const std::string& dump = kDump, const std::string& restore = "") {
    node.config().criu = "/bin/true";
    node.config().restore_checkpoints = true;
    node.UseRuntime(Runtime(node.root(), dump, restore));
    node.Restart();
    REQUIRE(os::MakeDirs(archives).ok());
    pod = node.Pod();
  }

  v1::CreateContainerRequest Request(const ContainerId& id, const std::string& script) {
    auto request = node.CreateRequest(pod, id, {.command = {"sh", "-c", script}});
    auto& mount = *request.mutable_image()->mutable_mounts(0);
    const std::string upper = node.root() / ("upper-" + id.str());
    const std::string work = node.root() / ("work-" + id.str());
    CHECK(os::MakeDirs(upper).ok());
    CHECK(os::MakeDirs(work).ok());
    mount.set_kind("overlay");
    mount.add_options("userxattr");
    mount.add_lower_dirs(node.root() / "rootfs");
    mount.set_upper_dir(upper);
    mount.set_work_dir(work);
    return request;
  }
  ContainerId Created(const std::string& name, const std::string& script) {
    const ContainerId id = node.Reserve(pod, name);
    Must(node.containers().Create(TestNode::Call(), Request(id, script)));
    return id;
  }
  ContainerId Running(const std::string& script = "echo made > /made; rm /etc/group; sleep 1000") {
    const ContainerId id = Created("c", script);
    Must(node.containers().Start(TestNode::Call(), id));
    TestNode::Await([&] { return os::Exists(node.root() / ("upper-" + id.str() + "/made")); });
    return id;
  }
  template <typename T>
  static T Must(Result<T> result) {
    if (!result.ok()) FAIL(result.status().ToString());
    return *std::move(result);
  }

  Status Checkpoint(const ContainerId& id, const std::string& location, int timeout = 0) {
    cri::CheckpointContainerRequest request;
    request.set_container_id(id.str());
    request.set_location(location);
    request.set_timeout(timeout);
    return node.engine().checkpoints().Write(TestNode::Call(), request);
  }
  Result<v1::StageCheckpointResponse> Stage(const ContainerId& id, const std::string& from) {
    v1::StageCheckpointRequest request;
    request.set_container_id(id.str());
    request.set_archive(from);
    return node.engine().checkpoints().Stage(TestNode::Call(), request);
  }
  /// Created, to be restored.
  ContainerId Staged(const std::string& from, const std::string& script = "sleep 1000") {
    const ContainerId id = node.Reserve(pod, "restored");
    Must(Stage(id, from));
    auto request = Request(id, script);
    request.set_restore(true);
    Must(node.containers().Create(TestNode::Call(), request));
    return id;
  }
  bool Frozen(const ContainerId& id) {
    const os::Cgroups& cgroups = node.engine().parts().cgroups;
    const std::string path = node.state().FindContainer(id)->cgroup_path();
    const auto text = [](Result<std::string> dir, const std::string& file) {
      return os::ReadFile(std::move(dir).value_or("") + "/" + file).value_or("");
    };
    return text(cgroups.UnifiedDir(path), "cgroup.freeze") == "1\n" ||
           text(cgroups.DirFor("freezer", path), "freezer.state").starts_with("FR");
  }
  /// It runs, and nothing but `files` is in the archives' directory.
  void CheckAsBefore(const ContainerId& id, const std::vector<std::string>& files = {}) {
    CHECK(node.StatusOf(id).state() == cri::CONTAINER_RUNNING);
    CHECK_FALSE(Frozen(id));
    CHECK(os::ListDir(archives).value() == files);
    CHECK(os::ListDir(node.layout().CheckpointsDir()).value_or({}).empty());
    CHECK_FALSE(node.state().FindContainer(id)->has_checkpoint());
  }
  void Remove() {
    RemovePod(node, pod);
    CHECK(IsEmpty(node.Leftovers()));
    CHECK(os::ListDir(node.layout().RestoresDir()).value_or({}).empty());
    CHECK(os::ListDir(node.layout().CheckpointsDir()).value_or({}).empty());
  }

  TestNode node;
  PodId pod;
  const std::string archives = node.root() / "archives";
  const std::string archive = archives + "/a.tar";
};

bool Says(const Status& status, Code code, const std::string& words) {
  UNSCOPED_INFO(status.ToString());
  return status.code() == code && status.message().find(words) != std::string::npos;
}

}  // namespace

TEST_CASE("A checkpoint is an archive, and the container goes on") {
  Node on;
  const ContainerId id = on.Running();
  REQUIRE(Says(on.Checkpoint(id, on.archive), Code::kOk, ""));
  on.CheckAsBefore(id, {"a.tar"});
  const CheckpointDir dir{on.node.root() / "back"};
  REQUIRE(UnpackCheckpoint(TestNode::Call(), on.archive, dir).ok());
  const auto facts = ReadFacts(dir);
  REQUIRE(facts.ok());
  CHECK(facts->image_id == std::string(64, 'a'));
  CHECK(facts->container_name == "c");
  CHECK(ReadDeleted(dir).value() == std::vector<std::string>{"/etc/group"});
  CHECK(Says(on.Checkpoint(id, on.archive), Code::kAlreadyExists, "location"));
  on.CheckAsBefore(id, {"a.tar"});
  on.Remove();
}

TEST_CASE("A checkpoint that cannot be written is refused before anything is done for it") {
  Node on;
  const ContainerId id = on.Running();
  CHECK(Says(on.Checkpoint(id, "a.tar"), Code::kInvalidArgument, "location"));
  CHECK(Says(on.Checkpoint(id, on.archive, -1), Code::kInvalidArgument, "timeout"));
  CHECK(Says(on.Checkpoint(id, on.archives + "/no/a.tar"), Code::kFailedPrecondition, "/no"));
  CHECK(Says(on.Checkpoint(ContainerId(std::string(64, '0')), on.archive), Code::kNotFound, "0"));
  const ContainerId created = on.Created("d", "sleep 1000");
  CHECK(Says(on.Checkpoint(created, on.archive), Code::kFailedPrecondition, "not running"));
  REQUIRE(on.node.End(id, seconds(0)).ok());
  CHECK(Says(on.Checkpoint(id, on.archive), Code::kFailedPrecondition, "not running"));
  on.Remove();
}

TEST_CASE("A node without CRIU, or a runtime without it, says which program is missing") {
  Node on;
  SECTION("no criu") {
    on.node.config().criu = on.node.root() / "criu";
    on.node.Restart();
    const ContainerId id = on.Running();
    CHECK(Says(on.Checkpoint(id, on.archive), Code::kUnimplemented, "criu"));
    on.CheckAsBefore(id);
  }
  SECTION("no command") {
    on.node.UseRuntime(kRunc);
    on.node.FailAt("checkpoint", "unknown command checkpoint");
    on.node.Restart();
    const ContainerId id = on.Running();
    CHECK(Says(on.Checkpoint(id, on.archive), Code::kUnimplemented, "runc"));
    on.CheckAsBefore(id);
  }
  on.Remove();
}

TEST_CASE("A dump that fails is told in CRIU's words, and leaves nothing") {
  const auto [script, words] =
      GENERATE(std::pair{"echo '(0.1) Error (criu/x.c:1): cannot do that' > $work/dump.log; "
                         "echo 'criu failed: type NOTIFY errno 0' >&2; exit 1",
                         "CRIU: cannot do that"},
               std::pair{"echo 'no criu for you' >&2; exit 1", "no criu for you"},
               std::pair{"kill -KILL $$", "crispy checkpoint"});
  Node on(script);
  const ContainerId id = on.Running();
  const Status failed = on.Checkpoint(id, on.archive);
  CHECK(Says(failed, Code::kFailedPrecondition,
             std::string(words) == "crispy checkpoint" ? "checkpoint" : words));
  on.CheckAsBefore(id);
  on.Remove();
}

TEST_CASE("A dump that takes too long is killed with all that it has started") {
  Node on("echo x > $images/inventory.img; sleep 1234 & sleep 1234");
  const ContainerId id = on.Running();
  const auto begin = std::chrono::steady_clock::now();
  CHECK(Says(on.Checkpoint(id, on.archive, 1), Code::kDeadlineExceeded, "checkpoint"));
  CHECK(std::chrono::steady_clock::now() - begin < seconds(10));
  on.CheckAsBefore(id);
  on.Remove();
}

TEST_CASE("A container is stopped while it is being checkpointed") {
  Node on("echo x > $images/inventory.img; sleep 3; exit 1");
  const ContainerId id = on.Running();
  auto checkpoint = std::async(std::launch::async, [&] { return on.Checkpoint(id, on.archive); });
  TestNode::Await([&] { return on.node.state().FindContainer(id)->has_checkpoint(); });
  CHECK(on.node.End(id, seconds(0)).ok());
  CHECK_FALSE(checkpoint.get().ok());
  CHECK(os::ListDir(on.archives).value().empty());
  on.Remove();
}

TEST_CASE("kill -9 during a checkpoint: the container runs on, and no file is left") {
  const bool after = GENERATE(false, true);
  Node on(kDump);
  const ContainerId id = on.Running();
  on.node.KillAt("--image-path", after);
  CHECK(on.node.RunAndDie([&](TestNode&) { on.Checkpoint(id, on.archive).ok(); }));
  TestNode::Await([&] { return !on.node.state().FindContainer(id)->has_checkpoint(); });
  on.CheckAsBefore(id);
  on.Remove();
}

TEST_CASE("A checkpoint is restored, with its files, as a container like any other") {
  Node on;
  const ContainerId id = on.Running();
  REQUIRE(on.Checkpoint(id, on.archive).ok());
  const ContainerId restored =
      on.Staged(on.archive, "cat /made; ls /etc; until [ -e /go ]; do sleep 0.01; done; exit 7");
  CHECK(on.node.StatusOf(restored).state() == cri::CONTAINER_CREATED);
  SECTION("and ends by itself") {
    Node::Must(on.node.containers().Start(TestNode::Call(), restored));
    CHECK(on.node.StatusOf(restored).state() == cri::CONTAINER_RUNNING);
    CHECK_FALSE(os::Exists(on.node.layout().RestoreOf(restored)));
    on.node.Restart();
    CHECK(on.node.StatusOf(restored).state() == cri::CONTAINER_RUNNING);
    REQUIRE(os::WriteFile(on.node.layout().Rootfs(restored) + "/go", "").ok());
    CHECK(on.node.Exited(restored).exit_code() == 7);
    const std::string log = on.node.Log();
    CHECK(log.find(" F made\n") != std::string::npos);
    CHECK(log.find(" F group\n") == std::string::npos);
  }
  SECTION("and is stopped before it is started, after a restart as well") {
    on.node.Restart();
    CHECK(on.node.StatusOf(restored).state() == cri::CONTAINER_CREATED);
    REQUIRE(on.node.End(restored, seconds(10)).ok());
    CHECK(on.node.StatusOf(restored).exit_code() == 137);
    TestNode::Await([&] { return !os::Exists(on.node.layout().RestoreOf(restored)); });
  }
  SECTION("and is looked at by the sweep, and updated, before it is started") {
    on.node.engine().lifecycle().CheckAll(TestNode::Call());
    CHECK(on.node.StatusOf(restored).state() == cri::CONTAINER_CREATED);
    cri::UpdateContainerResourcesRequest update;
    update.set_container_id(restored.str());
    update.mutable_linux()->set_cpu_shares(100);
    CHECK(on.node.engine().resources().UpdateContainer(TestNode::Call(), update).code() ==
          Code::kFailedPrecondition);
  }
  SECTION("and is removed before it is started") {
    CHECK(on.node.containers().Remove(TestNode::Call(), restored).ok());
  }
  on.Remove();
}

TEST_CASE("A restore that fails is a failed start, in CRIU's words") {
  Node on(kDump,
          "case \" $* \" in *' restore '*) for a; do case $last in --bundle) work=$a ;; esac; "
          "last=$a; done; echo '(0.1) Error (criu/x.c:1): cannot do that' > $work/restore.log; "
          "echo 'criu failed' >&2; exit 1 ;; esac");
  const ContainerId id = on.Running();
  REQUIRE(on.Checkpoint(id, on.archive).ok());
  const ContainerId restored = on.Staged(on.archive);
  const auto started = on.node.containers().Start(TestNode::Call(), restored);
  CHECK(Says(started.status(), Code::kInternal, "CRIU: cannot do that"));
  CHECK(on.node.StatusOf(restored).state() == cri::CONTAINER_EXITED);
  CHECK(on.node.StatusOf(restored).reason() == "StartError");
  CHECK_FALSE(os::Exists(on.node.layout().RestoreOf(restored)));
  on.Remove();
}

TEST_CASE("kill -9 during a restore: it runs, or is restored by the next start") {
  const bool after = GENERATE(false, true);
  Node on;
  const ContainerId id = on.Running();
  REQUIRE(on.Checkpoint(id, on.archive).ok());
  const ContainerId restored = on.Staged(on.archive);
  on.node.KillAt("restore", after);
  CHECK(on.node.RunAndDie(
      [&](TestNode& node) { node.containers().Start(TestNode::Call(), restored).ok(); }));
  Node::Must(on.node.containers().Start(TestNode::Call(), restored));
  CHECK(on.node.StatusOf(restored).state() == cri::CONTAINER_RUNNING);
  CHECK(on.node.state().FindContainer(restored)->init().pid() > 0);
  REQUIRE(on.node.End(restored, seconds(0)).ok());
  CHECK(on.node.StatusOf(restored).exit_code() == 137);
  on.Remove();
}

TEST_CASE("What cannot be restored is refused, and leaves nothing") {
  Node on;
  const ContainerId id = on.Running();
  REQUIRE(on.Checkpoint(id, on.archive).ok());
  const ContainerId fresh = on.node.Reserve(on.pod, "fresh");
  SECTION("on a node that does not") {
    on.node.config().restore_checkpoints = false;
    on.node.Restart();
    CHECK(Says(on.Stage(fresh, on.archive).status(), Code::kFailedPrecondition,
               "rund.restore_checkpoints"));
  }
  SECTION("without an archive") {
    CHECK(Says(on.Stage(fresh, on.archives + "/none").status(), Code::kFailedPrecondition, "none"));
  }
  SECTION("what is no archive") {
    const std::string path = on.node.root().Write("text", "not a tar, but long enough for one");
    CHECK_FALSE(on.Stage(fresh, path).ok());
    // A retry is another attempt.
    CHECK(on.Stage(fresh, on.archive).ok());
  }
  SECTION("without the mounts that it had") {
    const CheckpointDir dir{on.node.root() / "back"};
    REQUIRE(UnpackCheckpoint(TestNode::Call(), on.archive, dir).ok());
    REQUIRE(os::WriteFile(dir.SpecDump(), R"({"mounts":[{"destination":"/volume","type":"bind"}]})")
                .ok());
    const std::string changed = on.archives + "/b.tar";
    REQUIRE(PackCheckpoint(TestNode::Call(), dir, changed + ".tmp", changed).ok());
    Node::Must(on.Stage(fresh, changed));
    auto request = on.Request(fresh, "sleep 1000");
    request.set_restore(true);
    CHECK(Says(on.node.containers().Create(TestNode::Call(), request).status(),
               Code::kInvalidArgument, "/volume"));
  }
  on.Remove();
}
