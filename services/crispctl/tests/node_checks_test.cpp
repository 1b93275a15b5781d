#include "services/crispctl/node_checks.h"

#include <catch2/catch.hpp>

#include "libs/base/units.h"
#include "libs/testing/test_root.h"

using namespace crisp;
using namespace crisp::ctl;

namespace {

DaemonLine Line(const std::string& service, const std::string& version, const std::string& commit) {
  daemon::v1::InfoResponse info;
  info.set_service(service);
  info.set_instance("1");
  info.set_version(version);
  info.set_commit(commit);
  return {service, "1", "/nonexistent/" + service + ".sock", std::move(info)};
}

}  // namespace

TEST_CASE("A disk is nearly full below a tenth of its bytes or a twentieth of its inodes") {
  const std::uint64_t whole = GiB(100).count();
  CHECK_FALSE(DiskProblem("/d", {.bytes = whole, .free_bytes = whole / 2}));
  CHECK_FALSE(DiskProblem("/d", {.bytes = whole, .free_bytes = whole / 10}));
  const auto bytes = DiskProblem("/d", {.bytes = whole, .free_bytes = whole / 11});
  REQUIRE(bytes);
  CHECK(bytes->first == "the disk of /d is nearly full: 9.8 GB of 107 GB are left");
  CHECK(bytes->second.find("crispctl rmi") != std::string::npos);
  // Some file systems have no limit of inodes.
  CHECK_FALSE(DiskProblem("/d", {.bytes = whole, .free_bytes = whole, .files = 0}));
  const auto files = DiskProblem(
      "/d", {.bytes = whole, .free_bytes = whole, .files = 100'000, .free_files = 4'000});
  REQUIRE(files);
  CHECK(files->first == "the disk of /d has room for 4000 files more, of 100000");
}

TEST_CASE("Paths of the settings that are not there are no problem of the disk") {
  DaemonLine line = Line("rund", CRISP_VERSION, "");
  CHECK(DiskProblems({line}).empty());
  line.running.emplace();
  line.running->state_root = "/nonexistent/a";
  line.running->run_root = "/nonexistent/b";
  CHECK(DiskProblems({line}).empty());
}

TEST_CASE("A daemon of another version or build is named with how it becomes one of this") {
  CHECK(VersionProblems({Line("crid", CRISP_VERSION, "a"), Line("rund", CRISP_VERSION, "a")})
            .empty());
  const auto older =
      VersionProblems({Line("crid", CRISP_VERSION, "a"), Line("rund", "0.0.1", "b")});
  REQUIRE(older.size() == 1);
  CHECK(older[0].first == "rund/1 is version 0.0.1, crispctl is " CRISP_VERSION);
  CHECK(older[0].second.find("systemctl restart crisp-rund@1") != std::string::npos);
  const auto other =
      VersionProblems({Line("crid", CRISP_VERSION, "a"), Line("rund", CRISP_VERSION, "b")});
  REQUIRE(other.size() == 1);
  CHECK(other[0].first == "rund/1 is another build (b) than crid/1 (a)");
  CHECK(VersionProblems({{"rund", "1", "/x", Unavailable("away")}}).empty());
}

TEST_CASE("Settings files that are wrong by now are a problem before the next start") {
  const testing::TestRoot root;
  DaemonLine line = Line("rund", CRISP_VERSION, "");
  line.info->set_config(root.Write("c.yaml", "rund: {default_runtime: none}\n"));
  const auto problems = SettingsProblems(ReadSettingsFiles({line, line}));
  REQUIRE(problems.size() == 1);
  CHECK(problems[0].first.find("c.yaml:1: rund.default_runtime: 'none'") != std::string::npos);
  CHECK(problems[0].second.find("config check") != std::string::npos);
  root.Write("c.yaml", "rund: {default_runtime: crun, abandoned_grace_seconds: 9}\n");
  const SettingsFiles files = ReadSettingsFiles({line});
  CHECK(SettingsProblems(files).empty());
  CHECK(PendingSettings({line}, files).empty());  // it does not say what it runs with
  line.running = settings::Settings().Resolved();
  const auto pending = PendingSettings({line}, files);
  REQUIRE(pending.size() == 2);
  CHECK(pending[0].first == "rund/1 has not taken rund.default_runtime from the files yet");
  CHECK(pending[1].first ==
        "rund/1 was started with another rund.abandoned_grace_seconds than the files have now");
}
