#include "libs/daemon/reload.h"

#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <future>

#include "libs/daemon/daemon.h"
#include "libs/daemon/reload_node.h"
#include "libs/log/log.h"
#include "libs/os/files.h"
#include "libs/testing/test_root.h"

using namespace std::chrono_literals;

namespace crisp::daemon {
namespace {

using Keys = std::vector<std::string>;

CallContext Soon() { return CallContext::Background(20s, "test"); }

/// The files of a node; c.yaml.d/1.yaml is what a test changes.
struct Files {
  Files() {
    root.Write("c.yaml", fmt::format("run_root: {0}/r\nstate_root: {0}/s\n"
                                     "log: {{level: warn}}\n",
                                     root.path()));
  }
  std::string path() const { return root / "c.yaml"; }
  std::string drop_in() const { return root / "c.yaml.d/1.yaml"; }
  void Change(const std::string& text) const { root.Write("c.yaml.d/1.yaml", text); }
  settings::Settings Load() const { return *settings::Load(path()); }

  testing::TestRoot root;
};

/// Each kind, and what is said of it after the name of the file.
struct Mistake {
  std::string text;
  std::string told;
};
const std::vector<Mistake> kMistakes = {
    {"rund:\n  default_runtme: crun\n",
     ":2: rund.default_runtme: unknown key (did you mean 'default_runtime'?) (known: "},
    {"crid:\n\n  peer_wait_seconds: soon\n",
     ":3: crid.peer_wait_seconds: 'soon' is no whole number"},
    {"netd: [hostports]\n", ":1: netd: is a map of keys"},
    {"rund:\n  default_ulimits: nofile\n", ":2: rund.default_ulimits: is a list"},
    {"imaged:\n  parallel_layers: 65\n", ":2: imaged.parallel_layers: 65 is not within 1 and 64"},
    {"log:\n  level: loud\n",
     ":2: log.level: 'loud' is none of trace, debug, info, warn, error, fatal"},
    {"rund:\n  runtimes:\n    kata:\n      root: /k\n",
     ":3: rund.runtimes.kata.path: has no value"},
    {"rund:\n  runtimes:\n    kata: {path: /k}\n    kata: {path: /l}\n",
     ":4: rund.runtimes.kata: is there twice"},
    {"rund:\n  runtimes:\n    a: {path: /a, root: /r}\n    b: {path: /b, root: /r}\n",
     ":4: rund.runtimes.b.root: 'a' has it too, which is another program"},
    {"log: {level: info}\nrund:\n  default_runtime: kata\n",
     ":3: rund.default_runtime: 'kata' is none of rund.runtimes (crun, runc)"},
    {"rund:\n  streaming_tls_cert: /c\n",
     ":2: rund.streaming_tls_cert and rund.streaming_tls_key: one is of no use without the other"},
    {"crid:\n  metrics_address: localhost:65536\n",
     ":2: crid.metrics_address: 'localhost:65536' has a port above 65535"},
    {"rund:\n  streaming_address: 127.0.0.1:99999\n",
     ":2: rund.streaming_address: '127.0.0.1:99999' has a port above 65535"},
    {"tracing:\n  endpoint: collector\n", ":2: tracing.endpoint: 'collector' is not host:port"},
    {"tracing:\n  endpoint: unix:otlp\n", ":2: tracing.endpoint: 'otlp' is no absolute path"},
    {"rund:\n  default_ulimits: [nofile=1:-2]\n",
     ":2: rund.default_ulimits: 'nofile=1:-2' is no limit of the form name=soft:hard"},
    {"rund:\n  default_ulimits: [\"nofile=-1:1024\"]\n",
     ":2: rund.default_ulimits: 'nofile=-1:1024' has more soft than hard"},
    {"rund:\n  default_ulimits: [\"nofiles=1:2\"]\n",
     ":2: rund.default_ulimits: 'nofiles' is no limit that the kernel knows (did you mean "
     "'nofile'?)"},
    {"rund:\n  default_capabilities: [CHOWN, NET_ROW]\n",
     ":2: rund.default_capabilities: 'NET_ROW' is no capability (did you mean 'NET_RAW'?)"},
    {"rund:\n  additional_devices: [\"/dev/fuse:/dev/fuse:rx\"]\n",
     ":2: rund.additional_devices: '/dev/fuse:/dev/fuse:rx': 'rx' are no permissions"},
    {"rund:\n  additional_devices: [\"/dev/fuse:fuse\"]\n",
     ":2: rund.additional_devices: 'fuse' is no absolute path"},
    {"crid: {socket: /a\n", ":2: "},
    {"--- {}\n--- {}\n", ": more than one document"},
};

/// A daemon that takes each change but of `refused`.
struct TestDaemon {
  TestDaemon(const Files& files, const std::string& service) {
    auto made = Daemon::Create({.service = service, .config = files.path()});
    INFO(made.status().ToString());
    REQUIRE(made.ok());
    daemon = *std::move(made);
    daemon->OnReload({.check = nullptr, .apply = [this](const settings::Settings& settings) {
                        if (settings.rund.default_runtime == refused) return Internal("I will not");
                        runtime = settings.rund.default_runtime;
                        return Status::Ok();
                      }});
    run = std::async(std::launch::async, [this] { return daemon->Run(); });
    const std::string socket = daemon->settings().Socket(service, "1");
    while (!os::Exists(socket)) std::this_thread::sleep_for(1ms);
  }
  ~TestDaemon() {
    daemon->RequestStop();
    CHECK(run.get().ok());
  }

  std::string runtime = "runc";
  std::string refused;
  std::unique_ptr<Daemon> daemon;
  std::future<Status> run;
};

const Reloaded& Of(const std::vector<Reloaded>& all, const std::string& daemon) {
  for (const Reloaded& one : all) {
    if (one.daemon == daemon) return one;
  }
  FAIL(daemon << " is not among them");
  return all.front();
}

}  // namespace

TEST_CASE("each mistake is refused by file, line and key, at the start and at a reload") {
  for (const Mistake& mistake : kMistakes) {
    CAPTURE(mistake.text);
    const Files files;
    Reloader reloader("rund", files.path(), files.Load());
    int applied = 0;
    reloader.Add({.check = nullptr, .apply = [&applied](const settings::Settings&) {
                    ++applied;
                    return Status::Ok();
                  }});
    files.Change(mistake.text);
    for (const Status& refused :
         {reloader.Check().status(),
          Daemon::Create({.service = "rund", .config = files.path()}).status()}) {
      CHECK(refused.code() == Code::kInvalidArgument);
      CAPTURE(refused.message());
      CHECK(refused.message().starts_with(files.drop_in() + mistake.told));
    }
    CHECK(applied == 0);
  }
}

TEST_CASE("a file that cannot be read is refused by its name, and the running settings stay") {
  const Files files;
  Reloader reloader("rund", files.path(), files.Load());
  REQUIRE(mkdir((files.root / "c.yaml.d").c_str(), 0755) == 0);
  REQUIRE(mkdir(files.drop_in().c_str(), 0755) == 0);
  CHECK(reloader.Check().status().message().find(files.drop_in()) != std::string::npos);
  REQUIRE(rmdir(files.drop_in().c_str()) == 0);
  REQUIRE(symlink("nowhere", files.drop_in().c_str()) == 0);
  CHECK(reloader.Check().status().message().find(files.drop_in()) != std::string::npos);
  REQUIRE(unlink(files.path().c_str()) == 0);
  CHECK(reloader.Check().status().message().find(files.path()) != std::string::npos);
}

TEST_CASE("what a daemon has against files that the settings name has their key's place too") {
  const Files files;
  Reloader reloader("rund", files.path(), files.Load());
  reloader.Add({.check = [](const settings::Settings& settings) -> Status {
                  if (settings.rund.seccomp_profile.empty()) return Status::Ok();
                  return NotFound("rund.seccomp_profile: {} is not there",
                                  settings.rund.seccomp_profile);
                },
                .apply = nullptr});
  files.Change("rund:\n  seccomp_profile: /p.json\n");
  CHECK(reloader.Check().status().message() ==
        files.drop_in() + ":2: rund.seccomp_profile: /p.json is not there");
  CHECK(reloader.InForce().rund.seccomp_profile.empty());
  files.Change("rund:\n  default_runtime: crun\n");
  CHECK(reloader.Apply(reloader.Check()->fingerprint).ok());
}

TEST_CASE("what is in force are the live keys of the last reload and the others of the start") {
  const Files files;
  Reloader reloader("rund", files.path(), files.Load());
  files.Change("rund: {default_runtime: crun, abandoned_grace_seconds: 9}\n");
  const std::string fingerprint = reloader.Check()->fingerprint;
  CHECK(reloader.InForce().rund.default_runtime == "runc");
  REQUIRE(reloader.Apply(fingerprint).ok());
  CHECK(reloader.InForce().rund.default_runtime == "crun");
  CHECK(reloader.InForce().rund.abandoned_grace == std::chrono::seconds(120));
  REQUIRE(reloader.Undo(fingerprint).ok());
  CHECK(reloader.InForce().rund.default_runtime == "runc");
}

TEST_CASE("a reload says what it changes, and what wants a restart until there is one") {
  const Files files;
  Reloader reloader("rund", files.path(), files.Load());
  CHECK(reloader.Check()->changed.empty());
  files.Change(
      "log: {level: error}\nnetd: {default_network: x}\n"
      "rund: {abandoned_grace_seconds: 9, default_runtime: kata, runtimes: {crun: null, kata: "
      "{path: /k}, runc: {args: [--debug]}}}\n");
  auto outcome = reloader.Check();
  REQUIRE(outcome.ok());
  CHECK(outcome->changed == Keys{"log.level", "rund.default_runtime", "rund.runtimes.crun",
                                 "rund.runtimes.kata", "rund.runtimes.runc.args"});
  CHECK(outcome->needs_restart == Keys{"rund.abandoned_grace_seconds"});
  REQUIRE(reloader.Apply(outcome->fingerprint).ok());
  CHECK(reloader.Apply(outcome->fingerprint).ok());
  outcome = reloader.Check();
  CHECK(outcome->changed.empty());
  CHECK(outcome->needs_restart == Keys{"rund.abandoned_grace_seconds"});
}

TEST_CASE("only what was checked is applied, by all parts or none, and can be undone") {
  const Files files;
  Reloader reloader("rund", files.path(), files.Load());
  std::string first = "runc";
  Status second;
  reloader.Add({.check = nullptr, .apply = [&first](const settings::Settings& settings) {
                  first = settings.rund.default_runtime;
                  return Status::Ok();
                }});
  reloader.Add({.check = nullptr, .apply = [&second](const settings::Settings& settings) {
                  return settings.rund.default_runtime == "crun" ? second : Status::Ok();
                }});
  CHECK(reloader.Apply("something").code() == Code::kAborted);
  files.Change("rund: {default_runtime: crun}\n");
  const std::string fingerprint = reloader.Check()->fingerprint;
  second = Internal("no");
  CHECK(reloader.Apply(fingerprint).code() == Code::kInternal);
  CHECK(first == "runc");
  CHECK(reloader.Undo(fingerprint).ok());
  second = Status::Ok();
  CHECK(reloader.Apply(fingerprint).ok());
  CHECK(first == "crun");
  CHECK(reloader.Undo(fingerprint).ok());
  CHECK(first == "runc");
  CHECK(reloader.Check()->changed == Keys{"rund.default_runtime"});
  files.Change("rund: {default_runtime: runc}\n");
  CHECK(reloader.Check()->fingerprint != fingerprint);
  CHECK(reloader.Apply(fingerprint).code() == Code::kAborted);
}

TEST_CASE("the daemons of a node take new settings together, or none does") {
  const Files files;
  TestDaemon netd(files, "netd");
  TestDaemon rund(files, "rund");
  files.root.Write("r/imaged/1.sock", "left by one that is dead");

  files.Change("rund: {default_runtime: crun, abandoned_grace_seconds: 9}\n");
  const auto reloaded = ReloadNode(Soon(), files.root / "r");
  INFO(reloaded.status().ToString());
  REQUIRE(reloaded.ok());
  REQUIRE(reloaded->size() == 2);
  CHECK(Of(*reloaded, "rund/1").changed == Keys{"rund.default_runtime"});
  CHECK(Of(*reloaded, "rund/1").needs_restart == Keys{"rund.abandoned_grace_seconds"});
  CHECK(Of(*reloaded, "netd/1").changed.empty());
  CHECK(netd.runtime == "crun");
  CHECK(rund.runtime == "crun");

  // One cannot, the one before it goes back.
  rund.refused = "runc";
  files.Change("rund: {default_runtime: runc}\n");
  const Status refused = ReloadNode(Soon(), files.root / "r").status();
  CHECK(refused.message().starts_with("rund/1 refuses: I will not"));
  CHECK(netd.runtime == "crun");
  CHECK(rund.runtime == "crun");

  files.Change("rund: {default_runtime: runc}\nnetd: {hostport: x}\n");
  CHECK(ReloadNode(Soon(), files.root / "r").code() == Code::kInvalidArgument);
  CHECK(netd.runtime == "crun");
}

TEST_CASE("SIGHUP to the one that leads reaches the others") {
  const Files files;
  std::promise<void> told;
  TestDaemon rund(files, "rund");
  auto crid = Daemon::Create({.service = "crid", .config = files.path()});
  REQUIRE(crid.ok());
  (*crid)->LeadReloads();
  (*crid)->OnReload({.check = nullptr, .apply = [&told](const settings::Settings& settings) {
                       if (settings.rund.default_runtime == "crun") told.set_value();
                       return Status::Ok();
                     }});
  auto run = std::async(std::launch::async, [&crid] { return (*crid)->Run(); });
  while (!os::Exists(files.root / "r/crid/1.sock")) std::this_thread::sleep_for(1ms);
  files.Change("rund: {default_runtime: crun}\n");
  // Both hear it, as they are one process here: rund reloads by itself too.
  REQUIRE(kill(getpid(), SIGHUP) == 0);
  told.get_future().get();
  (*crid)->RequestStop();
  CHECK(run.get().ok());
}

TEST_CASE("nobody to reload is an error") {
  const Files files;
  CHECK(ReloadNode(Soon(), files.root / "r").code() == Code::kUnavailable);
}

}  // namespace crisp::daemon
