#include "services/crispctl/in_force.h"

#include <future>
#include <nlohmann/json.hpp>
#include <thread>

#include "libs/daemon/daemon.h"
#include "libs/os/files.h"
#include "services/crispctl/findings.h"
#include "services/crispctl/tests/command_run.h"

using namespace crisp;
using namespace crisp::ctl;

namespace {

/// The frame of a daemon without an App, as others find it.
class Frame {
 public:
  Frame(const std::string& service, const std::string& config) {
    auto made = daemon::Daemon::Create({.service = service, .config = config});
    INFO(made.status().ToString());
    REQUIRE(made.ok());
    daemon_ = *std::move(made);
    run_ = std::async(std::launch::async, [this] { return daemon_->Run(); });
    const std::string socket = daemon_->settings().Socket(service, "1");
    while (!Client::Info(socket).ok()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ~Frame() {
    daemon_->RequestStop();
    CHECK(run_.get().ok());
  }

 private:
  std::unique_ptr<daemon::Daemon> daemon_;
  std::future<Status> run_;
};

struct Node {
  Node() {
    file = root.Write("c.yaml", fmt::format("run_root: {0}/r\nstate_root: {0}/s\n"
                                            "log: {{level: error}}\n"
                                            "rund: {{runtimes: {{crun: null}}}}\n",
                                            root.path()));
    crid = std::make_unique<Frame>("crid", file);
    rund = std::make_unique<Frame>("rund", file);
  }
  void Change(const std::string& text) const { root.Write("c.yaml.d/1.yaml", text); }
  Ran Run(std::vector<std::string> words) const {
    words.insert(words.begin(), {"-c", file});
    return RunCommand(std::move(words));
  }

  testing::TestRoot root;
  std::string file;
  std::unique_ptr<Frame> crid;
  std::unique_ptr<Frame> rund;
};

}  // namespace

TEST_CASE("config effective is what the daemons run with, and says what waits for what") {
  const Node node;
  Ran shown = node.Run({"config", "effective", "--plain"});
  INFO(shown.err);
  CHECK(shown.code == kDone);
  CHECK(shown.err.empty());
  CHECK(shown.out.starts_with("# In force at crid/1, rund/1, with " + node.file + ".\n"));
  CHECK(shown.out.find("# imaged does not answer: its part is what the files say.\n") !=
        shown.out.npos);
  CHECK(shown.out.find("waits for") == shown.out.npos);
  CHECK(shown.out.find("crun:") == shown.out.npos);
  CHECK(node.Run({"config", "diff", "--running"}).out ==
        "DAEMON  KEY  IN FORCE  FILES  WAITS FOR\n");

  node.Change("log: {level: fatal}\nrund: {abandoned_grace_seconds: 9}\n");
  shown = node.Run({"config", "effective", "--plain"});
  CHECK(shown.out.find("\n  level: error\n") != shown.out.npos);
  CHECK(shown.out.find("# log.level waits for a reload of crid/1: error is in force, the files "
                       "have fatal\n") != shown.out.npos);
  CHECK(shown.out.find("# rund.abandoned_grace_seconds waits for a restart of rund/1: 120 is in "
                       "force, the files have 9\n") != shown.out.npos);
  const auto json = nlohmann::json::parse(node.Run({"-o", "json", "config", "effective"}).out);
  CHECK(json["log"]["level"] == "error");
  CHECK(json["rund"]["abandoned_grace_seconds"] == 120);

  CHECK(node.Run({"reload"}).code == kDone);
  const auto left =
      nlohmann::json::parse(node.Run({"-o", "json", "config", "diff", "--running"}).out);
  REQUIRE(left.size() == 1);
  CHECK(left[0]["daemon"] == "rund/1");
  CHECK(left[0]["key"] == "rund.abandoned_grace_seconds");
  CHECK(left[0]["running"] == "120");
  CHECK(left[0]["files"] == "9");
  CHECK(left[0]["takes"] == "restart");
}

TEST_CASE("status names settings that are not in force, and files that are wrong") {
  const Node node;
  const auto list = [&node](const char* name) {
    return nlohmann::json::parse(node.Run({"-o", "json", "status"}).out)[name].dump();
  };
  CHECK(list("problems").find("settings") == std::string::npos);
  CHECK(list("notes") == "[]");
  node.Change("log: {level: fatal}\nrund: {abandoned_grace_seconds: 9}\n");
  const std::string waiting = list("notes");
  CHECK(waiting.find("rund/1 has not taken log.level from the files yet") != std::string::npos);
  CHECK(waiting.find("rund/1 was started with another rund.abandoned_grace_seconds than the files "
                     "have now") != std::string::npos);
  CHECK(waiting.find("systemctl restart crisp-rund@1") != std::string::npos);
  CHECK(list("problems").find("log.level") == std::string::npos);  // it is not wrong to wait
  const Endpoint endpoint{node.root / "r/crisp.sock", node.root / "r"};
  node.Change("log: {level: loud}\n");
  bool told = false;
  for (const auto& [what, hint] : LookAround(endpoint).problems) {
    told = told || what.find("1.yaml:1: log.level: 'loud'") != std::string::npos;
  }
  CHECK(told);
}

TEST_CASE("config check asks the daemons about the files that the settings name") {
  const testing::TestRoot root;
  const std::string file = root.Write("crisp.yaml", "log: {level: debug}\n");
  const std::string asked = root / "asked";
  for (const char* name : {"crisp-crid", "crisp-imaged", "crisp-netd"}) {
    root.Script(name, "echo \"$*\" >>" + asked + "\n");
  }
  const Ran good = RunCommand({"config", "check", file}, root.path());
  CHECK(good.code == kDone);
  CHECK(good.out.find("not looked at") == good.out.npos);
  CHECK(os::ReadFile(asked).value().starts_with("--check-config --config " + file + "\n"));

  root.Script("crisp-rund", "grep -q seccomp " + file +
                                ".d/90-crispctl.yaml 2>/dev/null || exit 0; "
                                "echo 'f:1: rund.seccomp_profile: /p is not there' >&2; exit 78\n");
  const std::string ours = root / "crisp.yaml.d/90-crispctl.yaml";
  const Ran refused =
      RunCommand({"-c", file, "config", "set", "rund.seccomp_profile", "/p"}, root.path());
  CHECK(refused.code == kFailed);
  CHECK(refused.err == "crispctl: f:1: rund.seccomp_profile: /p is not there\n");
  CHECK_FALSE(os::Exists(ours));
  CHECK(RunCommand({"-c", file, "config", "set", "log.level", "trace"}, root.path()).code == kDone);
  const std::string before = os::ReadFile(ours).value();
  CHECK(RunCommand({"-c", file, "config", "set", "rund.seccomp_profile", "/p"}, root.path()).code ==
        kFailed);
  CHECK(os::ReadFile(ours).value() == before);

  const Ran none = RunCommand({"config", "check", file});
  CHECK(none.code == kDone);
  CHECK(none.out.find("no daemon of crisp is installed here") != none.out.npos);
}

TEST_CASE("A mistyped command or option is answered with the one that was meant") {
  const auto told = [](const std::vector<std::string>& words) {
    Shared shared;
    CLI::App app("", "crispctl");
    AddCommandLine(app, shared);
    try {
      ParseCommandLine(app, shared, words);
    } catch (const CLI::ParseError& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  CHECK(told({"satus"}) == "there is no command 'satus' (did you mean 'status'?)");
  CHECK(told({"config", "efective"}) ==
        "there is no command 'config efective' (did you mean 'effective'?)");
  CHECK(told({"-o", "json", "imagse"}) == "there is no command 'imagse' (did you mean 'images'?)");
  CHECK(told({"xyzzy"}) == "there is no command 'xyzzy'");
  CHECK(told({"store", "check", "--qiuck"}) ==
        "there is no option --qiuck (did you mean '--quick'?)");
  CHECK(told({"--sokcet=/x", "status"}) ==
        "there is no option --sokcet (did you mean '--socket'?)");
  CHECK(told({"completion", "bash", "--output", "json", "--", "x"}).find("there is no") ==
        std::string::npos);
}
