#include "integration/harness/node.h"

#include <catch2/catch.hpp>

#include "libs/os/files.h"

namespace crisp::harness {
namespace {

using std::chrono::seconds;

/// scripts/run-local as one starts it on a terminal: the leader of its own foreground job.
class OnTerminal {
 public:
  /// Returns when it is ready. (A shell without job control would have it ignore ^C, and so would a
  /// test that was itself started by one.)
  void Start() {
    node_.Inside({"env", "--default-signal=INT", "bash", "-c",
                  R"(set -m; rm -f "$1"; "$2" "$3" >"$1" 2>&1 &)", "bash", Output(),
                  CRISP_SOURCE_DIR "/scripts/run-local", node_.dir()});
    CHECK(Eventually([this] { return Said("ready unix://"); }, seconds(60)));
  }
  /// To run-local (its process group, as ^C does it); returns when it has gone.
  void Signal(const std::string& signal, bool group) {
    const std::string pid = os::ReadFile(node_.dir() + "/pid/run-local").value_or("0");
    const std::string target = (group ? "-" : "") + pid.substr(0, pid.find('\n'));
    // bash's own: kill(1) takes a small group for a signal.
    const auto kill = [&](const std::string& what) {
      return node_.Inside({"bash", "-c", R"(kill -s "$1" -- "$2")", "bash", what, target}).code;
    };
    kill(signal);
    const auto gone = [&] { return kill("0") != 0; };
    CHECK(Eventually(gone, seconds(30)));
  }
  bool Said(const std::string& text) const {
    return os::ReadFile(Output()).value_or("").find(text) != std::string::npos;
  }
  std::string LogOf(const std::string& service) const {
    return os::ReadFile(node_.dir() + "/log/" + service + ".log").value_or("");
  }
  Node& node() { return node_; }

 private:
  std::string Output() const { return node_.dir() + "/run-local.log"; }

  Node node_{NodeOptions{.yaml = "", .start = false}};
};

const std::vector<std::string> kDaemons = {"crid", "imaged", "netd", "rund"};

TEST_CASE("^C tells each daemon of run-local once to stop, and they end in their own time") {
  OnTerminal terminal;
  terminal.Start();
  terminal.Signal("INT", /*group=*/true);
  for (const std::string& daemon : kDaemons) {
    INFO(daemon << ": " << terminal.LogOf(daemon));
    CHECK(terminal.LogOf(daemon).find("told to stop") != std::string::npos);
    CHECK(terminal.LogOf(daemon).find("stopped") != std::string::npos);
    CHECK(terminal.LogOf(daemon).find("told twice") == std::string::npos);
  }
}

TEST_CASE("run-local starts again after a kill -9 of it: what it left is ended first") {
  OnTerminal terminal;
  terminal.Start();
  const std::string before = terminal.node().DaemonPid("rund");
  terminal.Signal("KILL", /*group=*/false);
  CHECK(terminal.node().Inside({"kill", "-0", before}).code == 0);
  terminal.Start();
  for (const std::string& daemon : kDaemons) {
    CHECK(terminal.Said("crisp-" + daemon + " runs still"));
    CHECK(terminal.LogOf(daemon).find("runs already") == std::string::npos);
  }
  CHECK(terminal.node().DaemonPid("rund") != before);
  terminal.Signal("TERM", /*group=*/false);
}

}  // namespace
}  // namespace crisp::harness
