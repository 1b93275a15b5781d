#include "libs/settings/settings.h"
#include "libs/testing/test_root.h"

namespace crisp::settings {
namespace {

std::vector<std::string> Lines(const Settings& settings) {
  std::vector<std::string> lines;
  for (const Difference& one : Differences(settings)) {
    lines.push_back(one.Key() + ": " + one.value + " | " + one.initial);
  }
  return lines;
}

}  // namespace

TEST_CASE("what is not the default is told by key, value and default") {
  CHECK(Lines(Settings()).empty());
  CHECK(Lines(Settings().Resolved()).empty());
  const auto changed = Parse("run_root: /r\nlog: {level: debug}\nrund: {default_umask: 0022}", "c");
  REQUIRE(changed.ok());
  CHECK(Lines(*changed) == std::vector<std::string>{"log.level: debug | info",
                                                    "run_root: /r | /run/crisp",
                                                    "rund.default_umask: \"0022\" | \"\""});
}

TEST_CASE("entries that are new or taken away are differences by their names") {
  const auto changed =
      Parse("rund: {runtimes: {crun: null, a.b: {path: /x, args: [--y]}, runc: {root: /z}}}", "c");
  REQUIRE(changed.ok());
  CHECK(Lines(*changed) == std::vector<std::string>{"rund.runtimes.a.b.path: /x | ",
                                                    "rund.runtimes.a.b.args: [\"--y\"] | ",
                                                    "rund.runtimes.runc.root: /z | \"\"",
                                                    "rund.runtimes.crun: null | "});
  CHECK(Differences(*changed).front().path ==
        std::vector<std::string>{"rund", "runtimes", "a.b", "path"});
}

TEST_CASE("a key is found with its parts and what a change costs") {
  CHECK(FindKey("log.level")->cost == "reload (SIGHUP)");
  CHECK(FindKey("state_root")->cost == "restart");
  const auto runtime = FindKey("rund.runtimes.a.b.root");
  REQUIRE(runtime.ok());
  CHECK(runtime->path == std::vector<std::string>{"rund", "runtimes", "a.b", "root"});
  CHECK(runtime->cost == "restart; existing pods keep the old value");
  CHECK(FindKey("rund.runtimes.kata")->path.size() == 3);
  for (const char* wrong :
       {"", "log", "rund.runtimes", "nope", "log.nope", "log.level.x", "rund.runtimes.a.nope"}) {
    INFO(wrong);
    CHECK(FindKey(wrong).code() == Code::kInvalidArgument);
  }
  CHECK(FindKey("log.levle").status().message() ==
        "log.levle: unknown key (did you mean 'level'?) (known: level, format)");
}

TEST_CASE("settings are told as a whole, also which entries of the defaults they do not have") {
  Settings settings;
  settings.rund.runtimes.erase("crun");
  settings.rund.runtimes["a.b"] = {.path = "/x", .root = "/y", .args = {"--z"}};
  settings.rund.default_umask = "0022";
  settings.log.level = "trace";
  settings = settings.Resolved();
  const auto read = Parse(DumpWhole(settings), "whole");
  INFO(read.status().ToString());
  REQUIRE(read.ok());
  CHECK(Dump(*read) == Dump(settings));
  CHECK(DumpWhole(*read) == DumpWhole(settings));
}

TEST_CASE("in force are live keys as they are now, and all others as they were at the start") {
  const Settings started = Settings().Resolved();
  Settings now = started;
  now.log.level = "fatal";
  now.run_root = "/r";
  now.crid.socket = "/r/crisp.sock";
  now.netd.default_network = "x";
  now.rund.default_runtime = "kata";
  now.rund.runtimes.erase("crun");
  now.rund.runtimes["runc"].root = "/other";
  now.rund.runtimes["runc"].args = {"--debug"};
  now.rund.runtimes["kata"] = {.path = "/k", .root = "/kr"};
  const Settings in_force = InForce(started, now);
  CHECK(in_force.log.level == "fatal");
  CHECK(in_force.run_root == started.run_root);
  CHECK(in_force.crid.socket == started.crid.socket);
  CHECK(in_force.netd.default_network.empty());
  CHECK(in_force.rund.default_runtime == "kata");
  CHECK_FALSE(in_force.rund.runtimes.contains("crun"));
  CHECK(in_force.rund.runtimes.at("runc").root.empty());
  CHECK(in_force.rund.runtimes.at("runc").args == std::vector<std::string>{"--debug"});
  CHECK(in_force.rund.runtimes.at("kata").root == "/kr");
  CHECK(ValueOf(now, "rund.default_runtime") == "kata");
  CHECK(ValueOf(now, "rund.runtimes.kata.path") == "/k");
  CHECK_FALSE(ValueOf(now, "rund.runtimes.crun"));
}

TEST_CASE("an error that begins with a key gets the key's place") {
  const testing::TestRoot root;
  const std::string path = root.Write("c.yaml", "rund:\n  conmon: /c\n");
  const auto loaded = LoadFingerprinted(path);
  REQUIRE(loaded.ok());
  CHECK(loaded->Located(NotFound("rund.conmon: no")).message() == path + ":2: rund.conmon: no");
  CHECK(loaded->Located(NotFound("rund.pause: no")).message() == path + ":1: rund.pause: no");
  CHECK(loaded->Located(NotFound("crid.socket: no")).message() == "crid.socket: no");
  CHECK(loaded->Located(NotFound("something else")).message() == "something else");
  CHECK(loaded->Located(Status::Ok()).ok());
}

TEST_CASE("settings are looked at as they would be with another drop-in") {
  const testing::TestRoot root;
  const std::string path = root.Write("c.yaml", "log: {level: warn}\n");
  root.Write("c.yaml.d/95-last.yaml", "log: {format: json}\n");
  root.Write("c.yaml.d/90-one.yaml", "nonsense\n");
  const auto with = LoadWith(path, "90-one.yaml", "log: {level: debug, format: text}\n");
  REQUIRE(with.ok());
  CHECK(with->log.level == "debug");
  CHECK(with->log.format == "json");
  CHECK(LoadWith(root / "none.yaml", "1.yaml", "").code() == Code::kNotFound);
  root.Write("none.yaml.d/1.yaml", "log: {level: debug}");
  CHECK(LoadDropIns(root / "none.yaml")->log.level == "debug");
  const auto wrong = LoadWith(path, "90-one.yaml", "log: {level: loud}\n");
  CHECK(wrong.status().message().starts_with(root / "c.yaml.d/90-one.yaml:1: log.level: "));
  CHECK(CheckPart("rund: {default_runtime: away}", "x").ok());
  CHECK_FALSE(CheckPart("rund: {default_umask: 9}", "x").ok());
}

}  // namespace crisp::settings
