#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "libs/os/files.h"
#include "libs/settings/settings.h"
#include "services/crispctl/tests/command_run.h"

using namespace crisp;
using namespace crisp::ctl;

namespace {

const std::string kSamples = CRISP_SOURCE_DIR "/services/crispctl/tests/samples";

}  // namespace

TEST_CASE("config shows what is in force, the defaults, and what differs") {
  const testing::TestRoot root;
  const std::string file = root.Write("c.yaml", "log: {level: debug}\n");
  const std::string effective = RunCommand({"-c", file, "config", "effective", "--plain"}).out;
  CHECK(effective.find("  level: debug\n") != effective.npos);
  CHECK(RunCommand({"-c", file, "config", "--plain"}).out == effective);
  CHECK(RunCommand({"-c", file, "config", "default"}).out ==
        settings::DumpCommented(settings::Settings()));
  const Ran diff = RunCommand({"-c", file, "config", "diff"});
  CHECK(diff.out == "KEY        VALUE  DEFAULT\nlog.level  debug  info\n");
  const Ran json = RunCommand({"-c", file, "--output", "json", "config", "diff"});
  CHECK(json.out.find("\"key\": \"log.level\"") != json.out.npos);
}

TEST_CASE("config is one JSON document for programs") {
  const testing::TestRoot root;
  const std::string file = root.Write("c.yaml", "rund: {default_umask: '0027'}\n");
  const Ran shown = RunCommand({"-o", "json", "-c", file, "config"});
  CHECK(shown.code == kDone);
  const auto json = nlohmann::json::parse(shown.out);
  CHECK(json["rund"]["default_umask"] == "0027");
  CHECK(json["imaged"]["parallel_layers"] == 4);
  CHECK(nlohmann::json::parse(
            RunCommand({"config", "default", "-o", "json"}).out)["rund"]["default_umask"] !=
        "0027");
}

TEST_CASE("config of a node that does not answer is nobody else's") {
  const testing::TestRoot root;
  const std::vector<std::vector<std::string>> verbs = {
      {"config"}, {"config", "diff"}, {"config", "check"}, {"config", "set", "log.level", "debug"}};
  for (const std::vector<std::string>& words : verbs) {
    std::vector<std::string> all = {"--socket", root / "none.sock"};
    all.insert(all.end(), words.begin(), words.end());
    const Ran ran = RunCommand(all);
    CHECK(ran.code == kNotReached);
    CHECK(ran.out.empty());
    CHECK(ran.err.find("Name the file with --config") != ran.err.npos);
  }
}

TEST_CASE("config check takes a file, its directory or its drop-ins") {
  const testing::TestRoot root;
  const std::string file = root.Write("crisp.yaml", "log: {level: debug}\n");
  for (const std::string& path : {file, root.path(), root.path() + "/"}) {
    const Ran ran = RunCommand({"config", "check", path});
    INFO(ran.err);
    CHECK(ran.code == kDone);
    CHECK(ran.out.find("1 keys are not the defaults") != ran.out.npos);
  }
  root.Write("crisp.yaml.d/10.yaml", "log:\n  level: loud\n");
  for (const std::string& path : {file, root.path(), root / "crisp.yaml.d"}) {
    const Ran ran = RunCommand({"config", "check", path});
    CHECK(ran.code == kFailed);
    CHECK(ran.err.find("10.yaml:2: log.level: 'loud' is none of") != ran.err.npos);
  }
  REQUIRE(os::RemoveFile(file).ok());
  CHECK(RunCommand({"config", "check", root / "crisp.yaml.d"}).err.find("10.yaml:2") !=
        std::string::npos);
  CHECK(RunCommand({"-c", root / "none.yaml", "config", "check"}).code == kFailed);
}

TEST_CASE("config units says what systemd's units must be told, and config check that they must") {
  const testing::TestRoot root;
  const std::string file = root.Write(
      "c.yaml", "state_root: /home/crisp\nrun_root: /run/crisp/a\nimaged: {image_root: /srv/i}\n");
  const std::string imaged =
      "[Service]\nReadWritePaths=/home/crisp\nReadWritePaths=/srv/i\nProtectHome=no\n";
  const Ran shown = RunCommand({"-c", file, "config", "units"});
  CHECK(shown.out ==
        "# crisp-crid.socket.d/50-crisp-settings.conf\n[Socket]\nListenStream=\n"
        "ListenStream=/run/crisp/a/crisp.sock\n"
        "# crisp-imaged@.service.d/50-crisp-settings.conf\n" +
            imaged);
  CHECK(RunCommand({"config", "check", file}).out.find("crisp-imaged@.service has to be told") !=
        std::string::npos);

  const std::string directory = root / "system";
  CHECK(RunCommand({"-c", file, "config", "units", "--write", directory}).code == kDone);
  const std::string written = directory + "/crisp-imaged@.service.d/50-crisp-settings.conf";
  CHECK(os::ReadFile(written).value().ends_with("\n" + imaged));
  const std::string shipped = root.Write("d.yaml", "imaged: {image_root: /var/lib/crisp/else}\n");
  CHECK(RunCommand({"-c", shipped, "config", "units", "--write", directory}).code == kDone);
  CHECK_FALSE(os::Exists(written));
  CHECK(RunCommand({"-c", shipped, "config", "units"}).out.find("need not") != std::string::npos);
  CHECK(RunCommand({"config", "check", shipped}).out.find("systemd") == std::string::npos);
}

TEST_CASE("config set writes a drop-in that the daemons would take, and no other") {
  const testing::TestRoot root;
  const std::string file = root.Write("c.yaml", "log: {level: warn}\n");
  const std::string ours = root / "c.yaml.d/90-crispctl.yaml";
  const Ran set = RunCommand({"-c", file, "config", "set", "log.level", "debug"});
  INFO(set.err);
  CHECK(set.code == kDone);
  CHECK(set.out.find("reload (SIGHUP)") != set.out.npos);
  CHECK(RunCommand({"-c", file, "config", "set", "rund.default_umask", "0027"}).code == kDone);
  CHECK(RunCommand({"-c", file, "config", "set", "rund.runtimes.kata.path", "/k"}).code == kDone);
  CHECK(RunCommand({"-c", file, "config", "set", "rund.runtimes.crun", "null"}).code == kDone);
  CHECK(RunCommand({"-c", file, "config", "set", "imaged.pinned_images", "[a, b:1]"}).code ==
        kDone);
  const auto settings = settings::Load(file);
  REQUIRE(settings.ok());
  CHECK(settings->log.level == "debug");
  CHECK(settings->rund.default_umask == "0027");
  CHECK(settings->rund.runtimes.at("kata").path == "/k");
  CHECK_FALSE(settings->rund.runtimes.contains("crun"));
  CHECK(settings->imaged.pinned_images == std::vector<std::string>{"a", "b:1"});

  const std::string before = os::ReadFile(ours).value();
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"log.level", "loud"},          {"log.nope", "x"},  {"log", "debug"},
      {"rund.default_runtime", "no"}, {"log.level", "["}, {"rund.runtimes.kata.path", "k"}};
  for (const auto& [key, value] : wrong) {
    const Ran ran = RunCommand({"-c", file, "config", "set", key, value});
    INFO(key << " " << value << ": " << ran.err);
    CHECK(ran.code == kFailed);
    CHECK(os::ReadFile(ours).value() == before);
  }
}

TEST_CASE("What is converted from a file that not everybody may read is read by its owner alone") {
  const testing::TestRoot root;
  const std::string file = root.Write("crio.conf", "[crio.runtime]\ndefault_env = ['A=b']\n", 0600);
  REQUIRE(RunCommand({"config", "convert", file, "-o", root / "crisp.yaml"}).code == kDone);
  struct stat info {};
  REQUIRE(::stat((root / "crisp.yaml").c_str(), &info) == 0);
  CHECK((info.st_mode & 0777U) == 0600);
}

TEST_CASE("config convert writes a file once, and the report beside it") {
  const testing::TestRoot root;
  const std::string out = root / "crisp.yaml";
  const std::vector<std::string> words = {"config", "convert",  kSamples + "/crio", "-o",
                                          out,      "--report", root / "report"};
  const Ran first = RunCommand(words);
  INFO(first.err);
  CHECK(first.code == kDone);
  CHECK(first.out.empty());
  CHECK(first.err.empty());
  CHECK(root.Read("report").find("taken (") != std::string::npos);
  CHECK(RunCommand({"config", "check", out}).code == kDone);

  struct stat info {};
  REQUIRE(::stat(out.c_str(), &info) == 0);
  CHECK((info.st_mode & 0777U) == 0644);

  const Ran again = RunCommand(words);
  CHECK(again.code == kFailed);
  CHECK(again.err.find("--force") != again.err.npos);
  auto forced = words;
  forced.emplace_back("--force");
  CHECK(RunCommand(forced).code == kDone);

  const Ran shown =
      RunCommand({"config", "convert", "--from", "containerd", kSamples + "/containerd"});
  CHECK(shown.out.starts_with("# What containerd was told in "));
  CHECK(shown.err.find("no longer needed") != shown.err.npos);
  CHECK(RunCommand({"config", "convert", root / "none"}).code == kFailed);
}
