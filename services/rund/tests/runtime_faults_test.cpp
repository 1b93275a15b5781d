// Runtimes that hang, print garbage or crash: an error within the deadline, and nothing left.
#include <catch2/catch.hpp>

#include <atomic>
#include <future>

#include "libs/os/files.h"
#include "libs/sqlite/db.h"
#include "services/rund/core/node.h"
#include "services/rund/core/parts.h"
#include "services/rund/core/settings_files.h"
#include "services/rund/tests/test_node.h"

using namespace crisp;        // NOLINT
using namespace crisp::rund;  // NOLINT
namespace cri = runtime::v1;
using std::chrono::seconds;

namespace {

/// A runtime whose state is elsewhere: runc by another name, under another root.
std::string OtherRuntime(const testing::TestRoot& root) {
  return root.Script("other",
                     "if [ \"$1\" = --version ]; then echo 'other 3.1'; exit; fi\n"
                     "if [ \"$1\" = --root ]; then dir=$2.elsewhere; shift 2; "
                     "set -- --root \"$dir\" \"$@\"; fi\n"
                     "exec /usr/sbin/runc \"$@\"\n");
}

Status CreateIn(TestNode& node, const PodId& pod) {
  const ContainerId id = node.Reserve(pod, "c");
  const auto created = node.containers().Create(TestNode::Call(), node.CreateRequest(pod, id, {}));
  return created.ok() ? Status::Ok() : created.status();
}

}  // namespace

TEST_CASE("A runtime that hangs in create is an error at the deadline, and all of it goes") {
  TestNode node;
  node.Instead("create", "sleep 1000 & sleep 1000");
  node.SetRuntimeTimeout(seconds(2));
  node.Restart();
  const PodId pod = node.Pod();
  const auto start = std::chrono::steady_clock::now();
  const Status created = CreateIn(node, pod);
  INFO(created.ToString());
  CHECK(created.code() == Code::kDeadlineExceeded);
  CHECK(created.message().find("runc create") != std::string::npos);
  CHECK(std::chrono::steady_clock::now() - start < seconds(8));
  REQUIRE(node.pods().Remove(TestNode::Call(), pod).ok());
  CHECK(IsEmpty(node.Leftovers()));
}

TEST_CASE("A runtime that prints garbage or crashes in create is told in its own words") {
  const auto [script, words] = GENERATE(
      std::pair{"head -c 100000 /dev/urandom | base64 -w 0 >&2; exit 1", "create container c"},
      std::pair{"echo '{\"data\": 77}'; echo 'not what you think' >&2; exit 3",
                "not what you think"},
      std::pair{"echo half way >&2; kill -SEGV $$", "half way"}, std::pair{"exit 0", "c"});
  TestNode node;
  node.Instead("create", script);
  node.SetRuntimeTimeout(seconds(5));
  node.Restart();
  const PodId pod = node.Pod();
  const Status created = CreateIn(node, pod);
  INFO(created.ToString());
  REQUIRE_FALSE(created.ok());
  CHECK(created.message().find(words) != std::string::npos);
  CHECK(created.message().size() < 8192);
  REQUIRE(node.pods().Remove(TestNode::Call(), pod).ok());
  CHECK(IsEmpty(node.Leftovers()));
}

TEST_CASE("A runtime that hangs in start is an error at the deadline") {
  TestNode node;
  node.Instead("start", "sleep 1000");
  node.SetRuntimeTimeout(seconds(2));
  node.Restart();
  const PodId pod = node.Pod();
  const ContainerId id = node.Create(pod, {});
  const auto started = node.containers().Start(TestNode::Call(), id);
  CHECK(started.code() == Code::kDeadlineExceeded);
  CHECK(node.StatusOf(id).state() == cri::CONTAINER_EXITED);
  CHECK(node.StatusOf(id).reason() == "StartError");
  REQUIRE(node.pods().Remove(TestNode::Call(), pod).ok());
  CHECK(IsEmpty(node.Leftovers()));
}

TEST_CASE("A start that fails is told when the container's process has ended") {
  TestNode node;
  node.Instead("start", "exec false");
  node.Restart();
  const PodId pod = node.Pod();
  const ContainerId id = node.Create(pod, {});
  const os::ProcessId init = ProcessOf(node.state().FindContainer(id)->init());
  std::atomic<int> alive{-1};
  node.state().SetListener([&](const EventRef& event) {
    for (const v1::ContainerEntry& entry : event->containers()) {
      cri::ContainerStatus status;
      status.ParseFromString(entry.status());
      if (status.reason() == "StartError" && alive < 0) alive = os::Alive(init) ? 1 : 0;
    }
  });
  CHECK_FALSE(node.containers().Start(TestNode::Call(), id).ok());
  node.state().SetListener(nullptr);
  CHECK(alive == 0);
  REQUIRE(node.pods().Remove(TestNode::Call(), pod).ok());
  CHECK(IsEmpty(node.Leftovers()));
}

namespace {

/// A container that runs, while the record still says that it is being started: the outcome could
/// not be stored.
ContainerId StartUnstored(TestNode& node, const PodId& pod,
                          const std::vector<std::string>& command = {"sleep", "1000"}) {
  const std::string ran = node.root() / "ran";
  const std::string go = node.root() / "go";
  node.Instead("start", "/usr/sbin/runc \"$@\"; touch " + ran + "; while [ ! -e " + go +
                            " ]; do sleep 0.01; done");
  node.Restart();
  const ContainerId id = node.Create(pod, {.command = command});
  auto start =
      std::async(std::launch::async, [&] { return node.containers().Start(TestNode::Call(), id); });
  TestNode::Await([&] { return os::Exists(ran); });
  auto db = sqlite::Db::Open(node.layout().DatabasePath());
  REQUIRE(db.ok());
  REQUIRE(db->Exec("ALTER TABLE containers RENAME TO away").ok());
  REQUIRE(os::WriteFile(go, "").ok());
  CHECK_FALSE(start.get().ok());
  REQUIRE(db->Exec("ALTER TABLE away RENAME TO containers").ok());
  REQUIRE(node.state().FindContainer(id)->starting_at() != 0);
  return id;
}

}  // namespace

TEST_CASE("A start whose outcome could not be stored is resolved by whoever comes next") {
  TestNode node;
  const PodId pod = node.Pod();
  SECTION("its retry is a success") {
    const ContainerId id = StartUnstored(node, pod);
    REQUIRE(node.containers().Start(TestNode::Call(), id).ok());
    CHECK(node.StatusOf(id).state() == cri::CONTAINER_RUNNING);
  }
  SECTION("a stop ends it") {
    const ContainerId id = StartUnstored(node, pod);
    REQUIRE(node.End(id, seconds(0)).ok());
    CHECK(node.StatusOf(id).exit_code() == 137);
  }
  SECTION("removing it does") {
    const ContainerId id = StartUnstored(node, pod);
    REQUIRE(node.containers().Remove(TestNode::Call(), id).ok());
  }
  SECTION("stopping the pod does") {
    const ContainerId id = StartUnstored(node, pod);
    REQUIRE(node.pods().Stop(TestNode::Call(), pod).ok());
    CHECK(node.StatusOf(id).state() == cri::CONTAINER_EXITED);
  }
  SECTION("the sweep finds its exit") {
    const ContainerId id = StartUnstored(node, pod, {"sh", "-c", "exit 7"});
    node.engine().lifecycle().CheckAll(TestNode::Call());
    CHECK(node.Exited(id).exit_code() == 7);
  }
  REQUIRE(node.pods().Remove(TestNode::Call(), pod).ok());
  CHECK(IsEmpty(node.Leftovers()));
}

TEST_CASE("A runtime that hangs in delete is an error, and a later remove finishes") {
  TestNode node;
  const PodId pod = node.Pod();
  const ContainerId id = node.Run(pod, {});
  node.Instead("delete", "sleep 1000");
  node.SetRuntimeTimeout(seconds(2));
  node.Restart();
  CHECK_FALSE(node.containers().Remove(TestNode::Call(), id).ok());
  node.KillAt("", false);
  node.Restart();
  TestNode::Await([&] { return node.state().FindContainer(id) == nullptr; });
  REQUIRE(node.pods().Remove(TestNode::Call(), pod).ok());
  CHECK(IsEmpty(node.Leftovers()));
}

TEST_CASE("Deletes that hang hold up no other container of the pod") {
  TestNode node;
  const std::string failed = node.root() / "failed";
  const std::string hung = node.root() / "hung";
  const std::string hang = node.root() / "hang";
  const std::string go = node.root() / "go";
  REQUIRE(os::MakeDirs(failed).ok());
  REQUIRE(os::MakeDirs(hung).ok());
  // The last argument is the container. At first they fail, so that all is left to the pod's stop.
  node.Instead("delete", "for id; do :; done; [ -e " + hang + " ] || { touch " + failed +
                             "/$id; exit 1; }; touch " + hung + "/$id; while [ ! -e " + go +
                             " ]; do sleep 0.01; done; exec /usr/sbin/runc \"$@\"");
  node.Restart();
  const PodId pod = node.Pod();
  for (const char* name : {"a", "b", "c"}) {
    REQUIRE(node.End(node.Run(pod, {.name = name, .log_path = ""}), seconds(0)).ok());
  }
  TestNode::Await([&] { return os::ListDir(failed).value().size() == 3; });
  REQUIRE(os::WriteFile(hang, "").ok());
  auto stop =
      std::async(std::launch::async, [&] { return node.pods().Stop(TestNode::Call(), pod).ok(); });
  TestNode::Await([&] { return os::ListDir(hung).value().size() == 3; });
  REQUIRE(os::WriteFile(go, "").ok());
  CHECK(stop.get());
  RemovePod(node, pod);
  CHECK(IsEmpty(node.Leftovers()));
}

TEST_CASE("A clean-up that has failed is tried again by the sweep") {
  TestNode node;
  const std::string broken = node.root() / "broken";
  const std::string tried = node.root() / "tried";
  REQUIRE(os::WriteFile(broken, "").ok());
  node.Instead("delete", "[ -e " + broken + " ] && { touch " + tried +
                             "; exit 1; }; exec /usr/sbin/runc \"$@\"");
  node.Restart();
  const PodId pod = node.Pod();
  const ContainerId id = node.Run(pod, {.command = {"true"}});
  node.Exited(id);
  TestNode::Await([&] { return os::Exists(tried); });
  REQUIRE(os::RemoveFile(broken).ok());
  TestNode::Await([&] {
    node.engine().lifecycle().CheckAll(TestNode::Call());
    return node.state().FindContainer(id)->cleaned();
  });
  CHECK(node.StatusOf(id).state() == cri::CONTAINER_EXITED);
  RemovePod(node, pod);
  CHECK(IsEmpty(node.Leftovers()));
}

TEST_CASE("A program that is no runtime is not offered, and the status says why") {
  TestNode node;
  const std::string hangs = node.root().Script("hangs", "sleep 1000\n");
  const std::string crashes = node.root().Script("crashes", "kill -SEGV $$\n");
  for (const auto& [name, path] :
       {std::pair{"a-hangs", hangs}, std::pair{"absent", std::string("/no/such/runtime")},
        std::pair{"b-hangs", hangs}, std::pair{"crashes", crashes}}) {
    node.config().runtimes[name] = {path, node.layout().RuntimesDir() + "/" + name};
  }
  const auto start = std::chrono::steady_clock::now();
  node.Restart();
  CHECK(std::chrono::steady_clock::now() - start < seconds(15));
  const Runtimes& runtimes = node.engine().parts().runtimes;
  // However many hang: each has its own time.
  CHECK(runtimes.Names() == std::vector<std::string>{"runc"});
  CHECK(runtimes.missing().size() == 4);
  for (const char* name : {"absent", "crashes", "a-hangs", "b-hangs", "unheard-of"}) {
    const auto found = runtimes.Find(name);
    // A kubelet tries again where nothing else was amiss than time.
    CHECK(found.code() == (std::string_view(name).ends_with("hangs") ? Code::kUnavailable
                                                                     : Code::kInvalidArgument));
    CHECK(found.status().message().find(name) != std::string::npos);
  }
}

TEST_CASE("A runtime that does not answer at a reload stays what it was") {
  TestNode node;
  const std::string hang = node.root() / "hang";
  node.Instead("--version", "[ -e " + hang + " ] && exec sleep 1000; exec /usr/sbin/runc \"$@\"");
  node.Restart();
  REQUIRE(os::WriteFile(hang, "").ok());
  Config config = node.config();
  config.runtimes["runc"].allowed_annotations = {"fresh/"};
  REQUIRE(node.engine().ReloadRuntimes(config).ok());
  const auto kept = node.engine().parts().runtimes.Find("runc");
  REQUIRE(kept.ok());
  CHECK((*kept)->info().allowed_annotations == std::vector<std::string>{"fresh/"});
  CHECK_FALSE((*kept)->info().version.empty());
  // One that crashes has answered.
  REQUIRE(os::RemoveFile(hang).ok());
  config.runtimes["second"] = {"/usr/sbin/runc", node.layout().RuntimesDir() + "/second"};
  config.default_runtime = "second";
  node.FailAt("--version", "no");
  REQUIRE(node.engine().ReloadRuntimes(config).ok());
  CHECK_FALSE(node.engine().parts().runtimes.Find("runc").ok());
}

TEST_CASE("A reload that would leave the node without a default runtime is refused") {
  TestNode node;
  const Runtimes& runtimes = node.engine().parts().runtimes;
  const auto refuses = [&node](const Config& config, const char* why) {
    const Status checked = node.engine().CheckRuntimes(config);
    CHECK(checked.code() == Code::kFailedPrecondition);
    CHECK(checked.message().starts_with("rund.default_runtime: "));
    CHECK(checked.message().find(why) != std::string::npos);
    CHECK(node.engine().ReloadRuntimes(config).message() == checked.message());
  };
  Config config = node.config();
  config.runtimes["kata"] = {"/no/such/kata", node.layout().RuntimesDir() + "/kata"};
  CHECK(node.engine().CheckRuntimes(config).ok());  // nobody has to use it
  config.default_runtime = "kata";
  refuses(config, "there is no program /no/such/kata");
  config.default_runtime = "runc";
  config.runtimes["runc"].path = node.root().Script("crashes", "kill -SEGV $$\n");
  refuses(config, "crashes --version fails");
  config.runtimes["runc"] = node.config().runtimes["runc"];
  config.runtimes["runc"].base_spec = node.root().Write("base.json", "{\"root\": {}}");
  refuses(config, "root cannot be given here");
  CHECK(runtimes.default_name() == "runc");
  CHECK(runtimes.Find("").ok());
  CHECK(runtimes.missing().empty());

  // What is broken already keeps nobody from changing something else.
  const std::string good = node.config().runtimes["runc"].path;
  node.config().runtimes["runc"].path = "/no/such/runc";
  node.Restart();
  CHECK(node.engine().CheckRuntimes(node.config()).ok());
  config = node.config();
  config.runtimes["runc"].path = "/no/such/other";
  refuses(config, "/no/such/other");
  node.config().runtimes["runc"].path = good;
  CHECK(node.engine().ReloadRuntimes(node.config()).ok());
  CHECK(node.engine().parts().runtimes.Find("").ok());
}

TEST_CASE("Records that could not be read are a problem that says where they are") {
  TestNode node;
  const auto problems = [&node] {
    return PodProblems(node.engine().parts(), node.engine().lifecycle().stops());
  };
  CHECK(problems().empty());
  const PodId pod = node.Pod();
  node.Stop();
  {
    auto db = sqlite::Db::Open(node.layout().DatabasePath());
    REQUIRE(db.ok());
    REQUIRE(db->Exec("INSERT INTO pods(id, key, record) VALUES('bad', 'bad', x'0a01ff')").ok());
  }
  node.StartEngine();
  REQUIRE(problems().size() == 1);
  CHECK(problems()[0].what == "1 records of pods and containers could not be read at the start");
  CHECK(problems()[0].hint.find(node.layout().DatabasePath()) != std::string::npos);
  RemovePod(node, pod);
}

TEST_CASE("Files that the settings name are looked at before they are needed") {
  TestNode node;
  const auto told = [](const Config& config) { return CheckFiles(config).message(); };
  Config config = node.config();
  CHECK(told(config).empty());
  CHECK(CheckNeededFiles(config).ok());
  SECTION("seccomp") {
    config.seccomp_profile = node.root() / "none.json";
    CHECK(told(config).starts_with("rund.seccomp_profile: seccomp profile: "));
    CHECK(CheckNeededFiles(config).code() == Code::kNotFound);
    config.seccomp_profile = node.root().Write(
        "bad.json", R"({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"]}]})");
    CHECK(told(config).find("action") != std::string::npos);
    // A rule that counts for some containers only.
    config.seccomp_profile = node.root().Write(
        "some.json",
        R"({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "NO",
            "includes": {"caps": ["CAP_SYS_ADMIN"]}}]})");
    CHECK(told(config).find("unknown action \"NO\"") != std::string::npos);
    config.seccomp_profile =
        node.root().Write("good.json", R"({"defaultAction": "SCMP_ACT_ALLOW"})");
    CHECK(told(config).empty());
  }
  SECTION("base spec") {
    config.runtimes["runc"].base_spec = node.root().Write("base.json", "[");
    CHECK(told(config).starts_with("rund.runtimes.runc.base_spec: base_spec "));
    CHECK(CheckNeededFiles(config).ok());
  }
  SECTION("certificate") {
    config.streaming.tls.certificate = node.root().Write("cert.pem", "no certificate");
    config.streaming.tls.key = node.root() / "key.pem";
    CHECK(told(config).starts_with("rund.streaming_tls_cert: "));
    CHECK(CheckNeededFiles(config).ok());
  }
  SECTION("block I/O classes") {
    config.blockio_config_file = node.root() / "none.yaml";
    CHECK(told(config).starts_with("rund.blockio_config_file: "));
    CHECK_FALSE(CheckNeededFiles(config).ok());
  }
}

TEST_CASE("A runtime that is installed or mended later is offered without a reload") {
  TestNode node;
  const std::string late = node.root() / "late";
  const std::string broken = node.root().Script("broken", "exit 1\n");
  auto& configured = node.config().runtimes;
  configured["late"] = {late, node.layout().RuntimesDir() + "/late"};
  configured["broken"] = {broken, node.layout().RuntimesDir() + "/broken"};
  node.Restart();
  const Runtimes& runtimes = node.engine().parts().runtimes;
  node.engine().LookForRuntimes();
  CHECK(runtimes.Names() == std::vector<std::string>{"runc"});
  const auto* const known = runtimes.Recorded("runc");
  node.root().Script("late", "exec /usr/sbin/runc \"$@\"\n");
  node.root().Script("broken", "exec  /usr/sbin/runc \"$@\"\n");
  node.engine().LookForRuntimes();
  CHECK(runtimes.Names() == std::vector<std::string>{"broken", "late", "runc"});
  CHECK(runtimes.missing().empty());
  CHECK(known->info().name == "runc");  // who holds one goes on
}

TEST_CASE("A shim is no OCI runtime, whatever it answers, and the answer names the handler") {
  TestNode node;
  const std::string ran = node.root() / "ran";
  const std::string shim = node.root().Script(
      "kata-v2", "echo \"$*\" >> " + ran +
                     "\necho 'Kata Containers containerd shim (Golang): version: 3.2.0'\n");
  auto& runtimes = node.config().runtimes;
  runtimes["kata"] = {shim, node.layout().RuntimesDir() + "/kata"};
  runtimes["kata"].vm = true;
  node.Restart();
  CHECK_FALSE(os::Exists(ran));  // its type says enough
  runtimes["other"] = {shim, node.layout().RuntimesDir() + "/other"};
  node.Restart();
  const Runtimes& now = node.engine().parts().runtimes;
  CHECK(now.Names() == std::vector<std::string>{"runc"});
  for (const char* name : {"kata", "other"}) {
    const Status found = now.Find(name).status();
    INFO(found.ToString());
    CHECK(found.code() == Code::kInvalidArgument);
    CHECK(found.message().find(std::string("'") + name + "' is not available") !=
          std::string::npos);
    CHECK(found.message().find("yet") != std::string::npos);
  }
}

TEST_CASE("A handler has recursive read-only mounts if its program and the kernel have them") {
  TestNode node;
  const auto offered = [&node] {
    return node.engine().parts().runtimes.Find("").value()->info().recursive_read_only;
  };
  node.Instead("features", R"(echo '{"mountOptions":["rro"],"linux":{"namespaces":["mount"]}}')");
  node.Restart();
  CHECK(offered());
  // Where the kernel cannot be asked it is not relied upon.
  Config config = node.config();
  config.layout.run_dir = node.root() / "absent";
  const os::Cgroups& cgroups = node.engine().parts().cgroups;
  const Runtimes other = Runtimes::Probe(TestNode::Call(), config, cgroups);
  CHECK_FALSE(other.Find("").value()->info().recursive_read_only);
  node.Instead("features", R"(echo '{"mountOptions":["ro"],"linux":{"namespaces":["mount"]}}')");
  node.Restart();
  CHECK_FALSE(offered());
}

TEST_CASE("A handler's options, monitor environment and annotations reach its program") {
  TestNode node;
  const std::string seen = node.root() / "seen";
  const std::string real = node.config().runtimes["runc"].path;
  node.config().runtimes["runc"].path =
      node.root().Script("runc", "echo \"$ASKED $*\" >> " + seen + "; exec " + real + " \"$@\"\n");
  node.config().runtimes["runc"].args = {"--log-format", "text"};
  node.config().runtimes["runc"].monitor_env = {"ASKED=monitor"};
  node.config().runtimes["runc"].allowed_annotations = {"for.runc/"};
  node.Restart();
  const PodId pod = node.Pod();
  const ContainerId id = node.Run(pod, {.change = [](cri::ContainerConfig& config) {
                                    (*config.mutable_annotations())["for.runc/x"] = "y";
                                  }});
  cri::ExecSyncRequest exec;
  exec.set_container_id(id.str());
  exec.add_cmd("true");
  REQUIRE(node.containers().ExecSync(TestNode::Call(), exec).ok());
  REQUIRE(node.End(id, seconds(0)).ok());
  const std::string text = os::ReadFile(seen).value_or("");
  INFO(text);
  const std::string options = "--root " + node.layout().RuntimesDir() + "/runc --log-format text ";
  const std::string log = "--log " + node.layout().Bundle(id) + "/runtime.log ";
  CHECK(text.find("monitor " + options + log + "create") != std::string::npos);
  CHECK(text.find(" " + options + "start") != std::string::npos);
  const std::size_t exec_at = text.find("exec --process");
  REQUIRE(exec_at != std::string::npos);
  CHECK(text.rfind(" " + options + "--log ", exec_at) > text.rfind('\n', exec_at));
  const std::string spec = os::ReadFile(node.layout().SpecPath(id)).value_or("");
  CHECK(spec.find(R"("for.runc/x":"y")") != std::string::npos);
}

TEST_CASE("What a runtime remarks while it creates a container is not in the container's log") {
  TestNode node;
  const std::string real = node.config().runtimes["runc"].path;
  // As runc does: to its log where it has one, else to stderr.
  node.config().runtimes["runc"].path = node.root().Script(
      "runc",
      "case \" $* \" in *\" --log \"*) ;; *) echo remark >&2 ;; esac; exec " + real + " \"$@\"\n");
  node.Restart();
  const PodId pod = node.Pod();
  const ContainerId id = node.Run(pod, {.command = {"sh", "-c", "echo wrong >&2"}});
  CHECK(node.Exited(id).exit_code() == 0);
  const std::string log = node.Log();
  CHECK(log.find(" stderr F wrong\n") != std::string::npos);
  CHECK(log.find("remark") == std::string::npos);
}

TEST_CASE("Handlers come and go with a reload; what runs under one stays and is taken down") {
  TestNode node;
  Config config = node.config();
  const RuntimeConfig runc = config.runtimes["runc"];
  config.runtimes["second"] = {runc.path, runc.root + "2"};
  config.default_runtime = "second";
  REQUIRE(node.engine().ReloadRuntimes(config).ok());
  const Runtimes& runtimes = node.engine().parts().runtimes;
  CHECK(runtimes.Names() == std::vector<std::string>{"runc", "second"});
  CHECK(runtimes.default_name() == "second");
  const PodId pod = node.Pod();
  const ContainerId id = node.Run(pod, {});
  CHECK(node.state().FindContainer(id)->runtime() == "second");

  const ContainerId waits = node.Create(pod, {.name = "waits", .log_path = ""});
  const auto reserve = [&node](const std::string& name) {
    v1::ReservePodRequest request;
    request.set_pod_id(std::string(64, name[0]));
    request.mutable_metadata()->set_name(name);
    request.mutable_metadata()->set_namespace_("test");
    request.mutable_metadata()->set_uid("uid");
    request.set_runtime_handler("second");
    return node.pods().Reserve(request);
  };
  REQUIRE(reserve("early").ok());

  REQUIRE(node.engine().ReloadRuntimes(node.config()).ok());
  CHECK(runtimes.Find("second").code() == Code::kInvalidArgument);
  REQUIRE(runtimes.Recorded("second") != nullptr);
  // For what is new it is gone, for a retry it is not.
  CHECK(reserve("fresh").code() == Code::kInvalidArgument);
  CHECK(reserve("early").ok());
  // What is there goes on under it.
  cri::ExecSyncRequest exec;
  exec.set_container_id(id.str());
  exec.add_cmd("true");
  const auto ran = node.containers().ExecSync(TestNode::Call(), exec);
  INFO(ran.status().ToString());
  CHECK(ran.ok());
  CHECK(node.containers().Start(TestNode::Call(), waits).ok());
  CHECK(node.StatusOf(waits).state() == cri::CONTAINER_RUNNING);
  const ContainerId again = node.Run(pod, {.name = "again", .log_path = ""});
  CHECK(node.state().FindContainer(again)->runtime() == "second");
  REQUIRE(node.pods().Remove(TestNode::Call(), PodId(std::string(64, 'e'))).ok());
  REQUIRE(node.End(id, seconds(0)).ok());
  REQUIRE(node.pods().Remove(TestNode::Call(), pod).ok());
  CHECK(IsEmpty(node.Leftovers()));
  CHECK(os::ListDir(runc.root + "2").value().empty());
}

TEST_CASE("What runs under a handler is kept also when a restart takes it out of the settings") {
  TestNode node;
  const RuntimeConfig runc = node.config().runtimes["runc"];
  auto& second = node.config().runtimes["second"] = {runc.path, runc.root + "2"};
  second.args = {"--log-format", "text"};
  node.config().default_runtime = "second";
  node.Restart();
  const PodId pod = node.Pod();
  const ContainerId id = node.Run(pod, {});
  node.config().runtimes.erase("second");
  node.config().default_runtime = "runc";
  node.Restart();
  const Runtimes& runtimes = node.engine().parts().runtimes;
  CHECK(runtimes.Names() == std::vector<std::string>{"runc"});
  CHECK(runtimes.missing().empty());
  REQUIRE(runtimes.Recorded("second") != nullptr);
  CHECK(runtimes.Recorded("second")->args().size() == 2);
  cri::ExecSyncRequest exec;
  exec.set_container_id(id.str());
  exec.add_cmd("true");
  CHECK(node.containers().ExecSync(TestNode::Call(), exec).ok());
  const ContainerId again = node.Run(pod, {.name = "again", .log_path = ""});
  CHECK(node.state().FindContainer(again)->runtime() == "second");
  RemovePod(node, pod);
  CHECK(IsEmpty(node.Leftovers()));
  CHECK(os::ListDir(runc.root + "2").value().empty());
  node.Restart();
  CHECK(node.engine().parts().runtimes.Recorded("second") == nullptr);
}

TEST_CASE("A runtime that keeps its state elsewhere forgets the containers that are removed") {
  TestNode node;
  node.UseRuntime(OtherRuntime(node.root()));
  node.Restart();
  const std::string state = node.config().runtimes["runc"].root + ".elsewhere";
  const PodId pod = node.Pod();
  const ContainerId id = node.Run(pod, {});
  CHECK(os::ListDir(state).value() == std::vector<std::string>{id.str()});
  REQUIRE(node.End(id, seconds(0)).ok());
  REQUIRE(node.containers().Remove(TestNode::Call(), id).ok());
  CHECK(os::ListDir(state).value().empty());

  // One that it does not let go of does not pass in silence.
  const ContainerId kept = node.Create(pod, {});
  node.FailAt("delete", "not today");
  node.Restart();
  const auto removed = node.containers().Remove(TestNode::Call(), kept);
  CHECK(removed.status().message().find("not today") != std::string::npos);
  // And what crashes when it is asked has not said that it does not know it.
  node.UseRuntime(
      node.root().Script("broken", "[ \"$1\" = --version ] && exec echo other; kill -SEGV $$\n"));
  node.Restart();
  CHECK_FALSE(node.containers().Remove(TestNode::Call(), kept).ok());
  node.UseRuntime(OtherRuntime(node.root()));
  node.Restart();
  TestNode::Await([&] { return node.state().FindContainer(kept) == nullptr; });
  REQUIRE(node.pods().Remove(TestNode::Call(), pod).ok());
  CHECK(os::ListDir(state).value().empty());
  CHECK(IsEmpty(node.Leftovers()));
}

TEST_CASE("SIGKILL around a start under a runtime that keeps its state elsewhere") {
  const bool done = GENERATE(false, true);
  TestNode node;
  node.UseRuntime(OtherRuntime(node.root()));
  node.Restart();
  const PodId pod = node.Pod();
  const ContainerId id = node.Create(pod, {});
  if (done) {
    node.KillAt("start", true);
  } else {
    node.Instead("start", "kill -9 $(cat " + (node.root() / "daemon.pid") + ")");
  }
  REQUIRE(node.RunAndDie(
      [&](TestNode& daemon) { daemon.containers().Start(TestNode::Call(), id).ok(); }));
  TestNode::Await([&] { return node.state().FindContainer(id)->starting_at() == 0; });
  CHECK(node.StatusOf(id).state() == (done ? cri::CONTAINER_RUNNING : cri::CONTAINER_CREATED));
  REQUIRE(node.containers().Start(TestNode::Call(), id).ok());
  CHECK(node.StatusOf(id).state() == cri::CONTAINER_RUNNING);
  REQUIRE(node.pods().Remove(TestNode::Call(), pod).ok());
  CHECK(IsEmpty(node.Leftovers()));
}
