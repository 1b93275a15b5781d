#include <algorithm>
#include <chrono>

#include "integration/e2e/shared_node.h"
#include "libs/os/files.h"

namespace crisp::harness {
namespace {

using Json = nlohmann::json;
using Words = std::vector<std::string>;
using std::chrono::seconds;

/// crispctl as somebody on the node calls it.
class Ctl {
 public:
  explicit Ctl(const OnNode& on) : node_(on.node) {}

  Words Line(const Words& words) const {
    Words line = {CRISP_BUILD_DIR "/bin/crispctl", "--socket", "unix://" + node_.socket()};
    line.insert(line.end(), words.begin(), words.end());
    return line;
  }
  Ran operator()(const Words& words) const { return node_.Inside(Line(words)); }
  /// What it prints for programs; it must succeed.
  Json AsJson(Words words) const {
    words.insert(words.begin(), {"-o", "json"});
    const Ran ran = (*this)(words);
    INFO(ran.err << ran.out);
    CHECK(ran.code == 0);
    return Json::parse(ran.out, nullptr, /*allow_exceptions=*/false);
  }
  /// Its exit code after `signals` ("INT INT"), which come once it, or a SilentRegistry, has
  /// written `word`.
  Ran Signalled(const Words& words, const std::string& word, const std::string& signals) const {
    static constexpr const char* kScript = R"(
      set -m
      dir=$1 word=$2 signals=$3
      shift 3
      rm -f "$dir"/ctl.{out,err}
      "$@" >"$dir/ctl.out" 2>"$dir/ctl.err" & pid=$!
      for ((i = 0; i < 400; ++i)); do
        grep -qs "$word" "$dir/ctl.out" "$dir/silent.out" && break
        sleep 0.05
      done
      for signal in $signals; do kill "-$signal" "$pid" && sleep 0.3; done 2>/dev/null
      wait "$pid"
      code=$?
      cat "$dir/ctl.out"; cat "$dir/ctl.err" >&2
      exit "$code")";
    Words line = {"bash", "-c", kScript, "bash", node_.dir(), word, signals};
    const Words ctl = Line(words);
    line.insert(line.end(), ctl.begin(), ctl.end());
    return node_.Inside(line, seconds(40));
  }

 private:
  Node& node_;
};

/// A registry that takes connections and says nothing.
class SilentRegistry {
 public:
  explicit SilentRegistry(const OnNode& on) : on_(on) {
    const std::string dir = on.node.dir();
    const Ran ran = on.node.Inside(
        {"bash", "-c",
         "setsid python3 -uc 'import socket, time\n"
         "s = socket.create_server((\"127.0.0.1\", 5999))\n"
         "print(\"listens\")\nkept = "
         "[s.accept()]\nprint(\"asked\")\ntime.sleep(600)' >\"$1/silent.out\" 2>&1 & "
         "echo $! >\"$1/silent.pid\"",
         "bash", dir});
    REQUIRE(ran.code == 0);
    CHECK(Eventually([&] {
      return os::ReadFile(dir + "/silent.out").value_or("").find("listens") != std::string::npos;
    }));
  }
  SilentRegistry(const SilentRegistry&) = delete;
  SilentRegistry& operator=(const SilentRegistry&) = delete;
  ~SilentRegistry() {
    const std::string dir = on_.node.dir();
    on_.node.Inside(
        {"bash", "-c", "kill $(cat \"$1/silent.pid\"); rm \"$1\"/silent.*", "bash", dir});
  }
  static std::string Image(const std::string& tag) { return "127.0.0.1:5999/x:" + tag; }

 private:
  const OnNode& on_;
};

bool Has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::size_t Lines(const std::string& text) {
  return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
}

/// Nothing of `run` is left: no pod, no log.
void CheckNothingLeft(const OnNode& on) {
  CHECK(on.cri.ListPods()->items_size() == 0);
  CHECK(on.cri.ListContainers()->containers_size() == 0);
  CHECK(os::ListDir(on.node.dir() + "/run/crispctl").value_or(Words()).empty());
}

TEST_CASE("crispctl run shows what a container writes and ends as it does") {
  OnNode on;
  const Ctl ctl(on);
  const std::string& image = on.node.Busybox();
  const Ran ran =
      ctl({"run", "-e", "WHO=crisp", image, "sh", "-c", "echo out $WHO; echo err >&2; exit 7"});
  CHECK(ran.code == 7);
  CHECK(ran.out == "out crisp\n");
  CHECK(ran.err == "err\n");
  // The marks of another program's list are left alone.
  CHECK(ctl({"run", image, "--", "echo", "[a,b]", "-c"}).out == "[a,b] -c\n");
  const Ran none = ctl({"run", image, "/no/such/program"});
  CHECK(none.code == 125);
  CHECK(Has(none.err, "/no/such/program"));
  const Ran handler = ctl({"run", "--runtime", "nothing", image, "true"});
  CHECK(handler.code == 125);
  CHECK(Has(handler.err, "\n  rund.runtimes has them"));
  CheckNothingLeft(on);
}

TEST_CASE("A container that crispctl leaves running is seen, entered, stopped and removed") {
  OnNode on;
  const Ctl ctl(on);
  const Ran started = ctl({"run", "-d", "--net", "--name", "web", on.node.Busybox(), "sh", "-c",
                           "echo up; trap 'echo down; exit 3' TERM; while :; do sleep 0.1; done"});
  INFO(started.err);
  REQUIRE(started.code == 0);
  const std::string id = started.out.substr(0, started.out.find('\n'));
  CHECK(id.size() == 64);

  const std::string ps = ctl({"ps"}).out;
  CHECK(Has(ps, id.substr(0, 13) + "  web   running"));
  CHECK(Lines(ps) == 2);
  CHECK(ctl({"ps", "-q"}).out == id + "\n");
  CHECK(ctl.AsJson({"ps"})["containers"][0]["id"] == id);
  CHECK(Has(ctl({"pods"}).out, "crispctl   web   ready"));
  CHECK(Has(ctl({"pods", "--tree"}).out, "crispctl/web"));
  CHECK(ctl.AsJson({"pods"})["items"][0]["metadata"]["name"] == "web");
  CHECK(Json::parse(ctl({"inspect", "web"}).out)["status"]["id"] == id);
  CHECK(Has(ctl({"stats"}).out, "web"));

  CHECK(Eventually([&] { return ctl({"logs", "web"}).out == "up\n"; }));
  const Ran executed = ctl({"exec", "web", "sh", "-c", "echo $0 >&2; exit 5"});
  CHECK(executed.code == 5);
  CHECK(executed.err == "sh\n");
  CHECK(ctl({"exec", "--timeout", "20", id.substr(0, 10), "--", "ls", "-d", "/tmp"}).out ==
        "/tmp\n");
  CHECK(ctl({"exec", "web", "/no/such/program"}).code == 125);
  CHECK(ctl({"exec", "nobody", "true"}).code == 125);

  const Ran running = ctl({"rm", "web"});
  CHECK(running.code == 1);
  CHECK(Has(running.err, "stop it first"));
  // As one follows it, it ends.
  const Ran followed = on.node.Inside(
      {"bash", "-c", R"("$1" --socket "$2" logs -f web & "$1" --socket "$2" stop web >&2; wait)",
       "bash", CRISP_BUILD_DIR "/bin/crispctl", on.node.socket()});
  CHECK(followed.out == "up\ndown\n");
  CHECK(followed.err == "web\n");
  CHECK(ctl({"ps", "-q"}).out.empty());
  CHECK(Has(ctl({"ps", "-a"}).out, "web   exited"));
  // Its pod is of no use without it, and its log can still be read.
  CHECK(Has(ctl({"pods"}).out, "web   notready"));
  CHECK(ctl({"logs", "--tail", "1", "web"}).out == "down\n");
  const Ran late = ctl({"exec", "web", "true"});
  CHECK(late.code == 125);
  CHECK(Has(late.err, "\n  'crispctl ps -a'"));

  CHECK(ctl({"rm", "web"}).out == "web\n");
  CHECK(ctl({"rm", "web"}).code == 1);
  CheckNothingLeft(on);
}

TEST_CASE("crispctl logs: of the last attempt or the one before, the last lines, since when") {
  OnNode on;
  const Ctl ctl(on);
  const auto pod_config = on.node.PodConfig("logs", true);
  const std::string pod = on.Pod(pod_config);
  auto first = on.node.ContainerConfig("again", {"echo", "first"});
  first.set_log_path("again/0.log");
  on.Exited(on.Running(pod, pod_config, first));
  const std::string name = first.metadata().name();
  const Ran none = ctl({"logs", "-p", name});
  CHECK(none.code == 1);
  CHECK(Has(none.err, "no earlier attempt of container " + name));
  auto second = first;
  second.mutable_metadata()->set_attempt(1);
  second.set_log_path("again/1.log");
  second.mutable_command()->Clear();
  for (const char* word :
       {"sh", "-c", "echo begin; printf %020000d 7; echo; echo end; sleep 1000"}) {
    second.add_command(word);
  }
  on.Running(pod, pod_config, second);
  on.Log(pod_config, second, "end");

  CHECK(ctl({"logs", "-p", name}).out == "first\n");
  const std::string all = ctl({"logs", name}).out;
  CHECK(all.size() == 6 + 20001 + 4);
  // The monitor cuts long lines; here they are one, with one time.
  CHECK(ctl({"logs", "--tail", "2", name}).out == all.substr(6));
  const std::string timed = ctl({"logs", "-t", name}).out;
  CHECK(Lines(timed) == 3);
  CHECK(Has(timed, "0007\n"));
  CHECK(std::count(timed.begin(), timed.end(), ' ') == 3);
  CHECK(ctl({"logs", "--since", "1h", name}).out == all);
  CHECK(ctl({"logs", "--since", "2100-01-01T00:00:00Z", name}).out.empty());
  const Ran wrong = ctl({"logs", "--since", "yesterday", name});
  CHECK(wrong.code == 1);
  CHECK(Has(wrong.err, "--since: 'yesterday' is no time"));
  // A name is that of the attempt that runs.
  CHECK(ctl({"exec", name, "echo", "in"}).out == "in\n");
}

TEST_CASE("crispctl stop and rm name for programs what they did, and rm -f spares the stop") {
  OnNode on;
  const Ctl ctl(on);
  for (const char* name : {"one", "two"}) {
    CHECK(ctl.AsJson({"run", "-d", "--name", name, on.node.Busybox(), "sleep", "1000"})
              .contains("containerId"));
  }
  CHECK(ctl.AsJson({"stop", "-t", "0", "one"}) == Json::array({"one"}));
  CHECK(ctl.AsJson({"rm", "-f", "one", "two"}) == Json::array({"one", "two"}));
  CheckNothingLeft(on);
}

TEST_CASE("A pod that others made stays when crispctl removes its only container") {
  OnNode on;
  const Ctl ctl(on);
  const std::string id = on.Sleeper("theirs");
  CHECK(ctl({"stop", "-t", "0", id}).code == 0);
  CHECK(on.cri.ListPods()->items(0).state() == cri::PodSandboxState::SANDBOX_READY);
  CHECK(ctl({"rm", id}).code == 0);
  CHECK(on.cri.ListPods()->items_size() == 1);
}

TEST_CASE("crispctl pull tells its steps line by line, images and rmi what there is") {
  OnNode on;
  const Ctl ctl(on);
  const Json made = on.node.MakeImage("shown:1", {"--layer-random", "1M"});
  const std::string ref = made["ref"];
  const std::string layer = std::string(made["layers"][1]["digest"]).substr(7, 13);
  const Ran pulled = ctl({"pull", ref});
  INFO(pulled.err);
  REQUIRE(pulled.code == 0);
  CHECK(pulled.out.starts_with("sha256:"));
  CHECK(pulled.err.starts_with(ref + ": "));
  CHECK(Has(pulled.err, "  " + layer + "  unpacked\n"));
  CHECK_FALSE(Has(pulled.err, "\x1b"));
  CHECK(ctl({"pull", "-q", ref}).err.empty());
  CHECK(ctl.AsJson({"pull", ref})["imageRef"] == pulled.out.substr(0, pulled.out.size() - 1));

  CHECK(Has(ctl({"images"}).out, ref + " "));
  CHECK(Has(ctl({"images", "-q"}).out, pulled.out));
  CHECK_FALSE(ctl.AsJson({"images"})["images"].empty());
  CHECK(ctl({"rmi", ref}).out == ref + "\n");
  const Ran again = ctl({"rmi", ref});
  CHECK(again.code == 1);
  CHECK(Has(again.err, "'crispctl images' shows them all"));
}

TEST_CASE("Errors of crispctl say what to do next") {
  OnNode on;
  const Ctl ctl(on);
  on.node.Busybox();
  const auto failing = [&ctl](const Words& words) {
    const Ran ran = ctl(words);
    CHECK(ran.code != 0);
    return ran.err;
  };
  CHECK(
      Has(failing({"pull", on.node.registry() + "/busybox:nope"}), "\n  are name and tag right?"));
  CHECK(Has(failing({"pull", "127.0.0.1:1/x:1"}),
            "\n  is the registry's name right, and does it run?"));
  CHECK(Has(failing({"logs", "nobody"}), "'crispctl ps -a' shows them all"));
  CHECK(Has(failing({"rmp", "nobody"}), "'crispctl pods' shows them all"));
  CHECK(Has(failing({"pull"}), "--help"));
  {
    const auto away = on.node.Away("imaged");
    const std::string run = failing({"run", on.node.registry() + "/busybox:1", "true"});
    CHECK(Has(run, "imaged"));
    CHECK(Has(run, "\n  'crispctl status' says which daemon is away"));
    const Ran status = ctl({"status"});
    CHECK(status.code == 1);
    CHECK(Has(status.out, "imaged/1 is not running\n  start it: systemctl start crisp-imaged@1"));
  }
}

TEST_CASE("crispctl status and version tell of all four daemons") {
  OnNode on;
  const Ctl ctl(on);
  on.node.WaitReady();
  const Ran status = ctl({"status"});
  INFO(status.out << status.err);
  CHECK(status.code == 0);
  for (const char* daemon : {"crid", "imaged", "netd", "rund"}) CHECK(Has(status.out, daemon));
  CHECK(Lines(status.out) == 5);
  const Json json = ctl.AsJson({"status"});
  REQUIRE(json["daemons"].size() == 4);
  for (const Json& daemon : json["daemons"]) CHECK(daemon["healthy"] == true);
  CHECK(json["problems"].empty());
  CHECK(Has(ctl({"version"}).out, "\ncrisp "));
  CHECK(ctl.AsJson({"version"})["runtimeName"] == "crisp");
  const Ran nobody = on.node.Inside({CRISP_BUILD_DIR "/bin/crispctl", "-s", "/nowhere.sock", "ps"});
  CHECK(nobody.code == 3);
  CHECK(Has(nobody.err, "is crisp running?"));
}

TEST_CASE("crispctl config is that of the node whose socket is named") {
  OnNode on;
  const Ctl ctl(on);
  const std::string dir = on.node.dir();
  CHECK(Has(ctl({"config"}).out, "\nrun_root: " + dir + "/run\n"));
  CHECK(ctl.AsJson({"config"})["run_root"] == dir + "/run");
  CHECK(Has(ctl({"config", "diff"}).out, "imaged.orphan_grace_seconds  2 "));
  CHECK(Has(ctl({"config", "check"}).out, dir + "/crisp.yaml is in order"));
  const std::string machine = "/etc/crisp/crisp.yaml.d/90-crispctl.yaml";
  const std::string before = os::ReadFile(machine).value_or(std::string());
  const Ran set = ctl({"config", "set", "log.level", "debug"});
  INFO(set.err);
  CHECK(set.code == 0);
  CHECK(Has(set.out, dir + "/crisp.yaml.d/90-crispctl.yaml"));
  CHECK(Has(ctl({"reload"}).out, "log.level"));
  REQUIRE(os::RemoveFile(dir + "/crisp.yaml.d/90-crispctl.yaml").ok());
  CHECK(ctl({"reload"}).code == 0);
  // Of one that is away nobody knows it, and nothing is written.
  const auto away = on.node.Away("crid");
  const Ran unknown = ctl({"config", "set", "log.level", "debug"});
  CHECK(unknown.code == 3);
  CHECK(Has(unknown.err, "--config"));
  CHECK(os::ReadFile(machine).value_or(std::string()) == before);
}

TEST_CASE("An interrupted crispctl run leaves nothing, wherever it is") {
  OnNode on;
  const Ctl ctl(on);
  const std::string image = on.node.Busybox();
  SECTION("in the pull of a registry that does not answer") {
    for (const std::string tag : {"shown", "detached"}) {
      const SilentRegistry registry(on);
      Words words = {"run", SilentRegistry::Image(tag), "true"};
      if (tag == "detached") words.insert(words.begin() + 1, "-d");
      const Ran ran = ctl.Signalled(words, "asked", "INT");
      INFO(ran.err);
      CHECK(ran.code == 125);
      CHECK(ran.err.ends_with("crispctl: interrupted\n"));
    }
  }
  SECTION("by each signal that means an end, with the time that it needs") {
    for (const char* signal : {"INT", "TERM", "HUP"}) {
      const Ran ran =
          ctl.Signalled({"run", image, "sh", "-c",
                         "trap 'echo bye; exit 9' TERM; echo up; while :; do sleep 0.1; done"},
                        "up", signal);
      CHECK(ran.code == 9);
      CHECK(ran.out == "up\nbye\n");
    }
  }
  SECTION("twice: without it") {
    const auto start = std::chrono::steady_clock::now();
    const Ran ran = ctl.Signalled({"run", image, "sh", "-c", "trap '' TERM; echo up; sleep 1000"},
                                  "up", "INT INT");
    CHECK(ran.code == 137);
    CHECK(std::chrono::steady_clock::now() - start < seconds(9));
  }
  SECTION("by a reader who has enough") {
    const Ran ran = on.node.Inside(
        {"bash", "-c", R"("$1" --socket "$2" run "$3" yes | head -n 1; exit "${PIPESTATUS[0]}")",
         "bash", CRISP_BUILD_DIR "/bin/crispctl", on.node.socket(), image},
        seconds(40));
    CHECK(ran.out == "y\n");
    CHECK(ran.code == 137);
  }
  CheckNothingLeft(on);
}

TEST_CASE("crispctl exec ends when nobody reads what the command writes") {
  OnNode on;
  const std::string id = on.Sleeper("talker");
  const Ran ran = on.node.Inside(
      {"bash", "-c", R"("$1" --socket "$2" exec "$3" yes | head -n 1; exit "${PIPESTATUS[0]}")",
       "bash", CRISP_BUILD_DIR "/bin/crispctl", on.node.socket(), id},
      seconds(40));
  CHECK(ran.out == "y\n");
  CHECK(ran.code == 125);
}

}  // namespace
}  // namespace crisp::harness
