#include "services/rund/spec/process.h"

#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "libs/base/text.h"
#include "services/rund/spec/tests/fixture.h"
#include "services/rund/spec/text.h"

using namespace crisp;
using namespace crisp::rund;
using Texts = std::vector<std::string>;

namespace {

Texts Args(const Texts& command, const Texts& args, const Texts& entrypoint, const Texts& cmd) {
  runtime::v1::ContainerConfig config;
  for (const auto& word : command) config.add_command(word);
  for (const auto& word : args) config.add_args(word);
  ImageConfig image;
  image.entrypoint = entrypoint;
  image.cmd = cmd;
  Result<Texts> built = BuildArgs(config, image);
  return built.ok() ? *built : Texts{CodeName(built.code())};
}

void SetEnv(runtime::v1::ContainerConfig& config, const std::string& key,
            const std::string& value) {
  auto& pair = *config.add_envs();
  pair.set_key(key);
  pair.set_value(value);
}

}  // namespace

TEST_CASE("command and args replace the image's entrypoint and cmd as Kubernetes says") {
  CHECK(Args({}, {}, {"ep"}, {"cmd"}) == Texts{"ep", "cmd"});
  CHECK(Args({}, {"a"}, {"ep"}, {"cmd"}) == Texts{"ep", "a"});
  CHECK(Args({"c"}, {}, {"ep"}, {"cmd"}) == Texts{"c"});
  CHECK(Args({"c"}, {"a"}, {"ep"}, {"cmd"}) == Texts{"c", "a"});
  CHECK(Args({}, {"a"}, {}, {"cmd"}) == Texts{"a"});
  CHECK(Args({}, {}, {}, {}) == Texts{"INVALID_ARGUMENT"});
}

TEST_CASE("The environment is the node's, the image's, the CRI's; later ones win in place") {
  runtime::v1::ContainerConfig config;
  config.set_tty(true);
  SetEnv(config, "B", "2");
  SetEnv(config, "A", "x=y");
  SetEnv(config, "B", "");
  ImageConfig image;
  image.env = {"A=image", "PATH=/bin", "EMPTY"};
  Result<Texts> env = BuildEnv(config, image, "pod-1", "/home/me");
  REQUIRE(env.ok());
  CHECK(*env == Texts{"PATH=/bin", "HOSTNAME=pod-1", "TERM=xterm", "A=x=y",
                      "EMPTY=", "B=", "HOME=/home/me"});
}

TEST_CASE("HOME of the CRI or the image is kept") {
  runtime::v1::ContainerConfig config;
  SetEnv(config, "HOME", "/data");
  Result<Texts> env = BuildEnv(config, {}, "", "/home/me");
  REQUIRE(env.ok());
  CHECK(std::find(env->begin(), env->end(), "HOME=/data") != env->end());
  CHECK(std::find(env->begin(), env->end(), "HOME=/home/me") == env->end());
}

TEST_CASE("A variable that no environment or JSON can carry is refused by name") {
  for (const auto& [key, value] : std::vector<std::pair<std::string, std::string>>{
           {"A", std::string("x\0y", 3)}, {"A=B", "x"}, {"", "x"}, {"A", "\xff\xfe"}}) {
    runtime::v1::ContainerConfig config;
    SetEnv(config, key, value);
    CHECK(BuildEnv(config, {}, "", "/").code() == Code::kInvalidArgument);
  }
}

TEST_CASE("UTF-8 is told from what only looks like it") {
  CHECK(IsUtf8("plain"));
  CHECK(IsUtf8("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\x8b"));
  CHECK_FALSE(IsUtf8("\xc0\xaf"));
  CHECK_FALSE(IsUtf8("\xed\xa0\x80"));
  CHECK_FALSE(IsUtf8("\xf4\x90\x80\x80"));
  CHECK_FALSE(IsUtf8("\xe2\x82"));
}

TEST_CASE("Paths are cleaned by letter") {
  CHECK(CleanPath("") == "/");
  CHECK(CleanPath("a//b/./c/../d/") == "/a/b/d");
  CHECK(CleanPath("/../..") == "/");
  CHECK(Base64("f") == "Zg==");
  CHECK(Base64("fo") == "Zm8=");
  CHECK(Base64("foobar") == "Zm9vYmFy");
}

TEST_CASE("The working directory is made inside the rootfs, also through its links") {
  testing::TestRoot root;
  root.Write("rootfs/keep/file", "");
  REQUIRE(symlink("/keep", (root / "rootfs/link").c_str()) == 0);
  REQUIRE(symlink("/nowhere", (root / "rootfs/dangling").c_str()) == 0);
  REQUIRE(symlink("../../../../../../etc", (root / "rootfs/out").c_str()) == 0);
  Result<os::Beneath> rootfs = os::Beneath::Open(root / "rootfs", os::Scope::kInRoot);
  REQUIRE(rootfs.ok());
  const ResolvedUser user{
      static_cast<std::uint32_t>(geteuid()), static_cast<std::uint32_t>(getegid()), {}, "/"};
  CHECK(MakeWorkingDir(*rootfs, "/link/a/b", user).ok());
  struct stat info {};
  CHECK(stat((root / "rootfs/keep/a/b").c_str(), &info) == 0);
  CHECK(S_ISDIR(info.st_mode));
  CHECK(MakeWorkingDir(*rootfs, "/link/a/b", user).ok());
  CHECK(MakeWorkingDir(*rootfs, "/dangling/a", user).code() == Code::kInvalidArgument);
  CHECK_FALSE(MakeWorkingDir(*rootfs, "/keep/file/a", user).ok());
  // "out" is the rootfs's own /etc, which is not there.
  CHECK_FALSE(MakeWorkingDir(*rootfs, "/out/made-by-test", user).ok());
  CHECK(stat("/etc/made-by-test", &info) != 0);
}

TEST_CASE("Signals are known by name and number") {
  CHECK(SignalNumber("SIGTERM") == 15);
  CHECK(SignalNumber("QUIT") == 3);
  CHECK(SignalNumber("9") == 9);
  CHECK(SignalNumber("SIGRTMIN+3") == 37);
  CHECK(SignalNumber("SIGRTMAX-1") == 63);
  CHECK(SignalNumber("SIGRTMIN") == 34);
  CHECK(SignalNumber("SIGIOT") == 6);
  for (const char* bad : {"", "SIG", "0", "65", "-1", "SIGNOPE", "SIGRTMIN+99", "15x"}) {
    CHECK(SignalNumber(bad) == 0);
  }
}

TEST_CASE("Every stop signal of the CRI has a number; the image's comes second") {
  std::vector<std::string> notes;
  ImageConfig image;
  image.stop_signal = "SIGQUIT";
  runtime::v1::ContainerConfig config;
  CHECK(StopSignal(config, image, notes).value() == 3);
  for (int value = runtime::v1::Signal_MIN + 1; value <= runtime::v1::Signal_MAX; ++value) {
    config.set_stop_signal(static_cast<runtime::v1::Signal>(value));
    INFO(runtime::v1::Signal_Name(config.stop_signal()));
    CHECK(StopSignal(config, image, notes).ok());
  }
  config.set_stop_signal(runtime::v1::SIGNAL_SIGRTMAXMINUS14);
  CHECK(StopSignal(config, image, notes).value() == 50);
  config.set_stop_signal(static_cast<runtime::v1::Signal>(999));
  CHECK(StopSignal(config, image, notes).code() == Code::kInvalidArgument);
  config.clear_stop_signal();
  image.stop_signal = "nonsense";
  CHECK(StopSignal(config, image, notes).value() == 15);
  CHECK(notes.size() == 1);
}

TEST_CASE("An oom_score_adj that the daemon may not give is clamped and noted") {
  std::vector<std::string> notes;
  HostFacts host;
  CHECK(OomScoreAdj(-998, host, notes) == -998);
  CHECK(notes.empty());
  host.lowest_oom_score_adj = 0;
  CHECK(OomScoreAdj(-998, host, notes) == 0);
  CHECK(notes.size() == 1);
  CHECK(OomScoreAdj(500, host, notes) == 500);
}

TEST_CASE("Limits are held below the daemon's own") {
  SpecDefaults defaults;
  defaults.ulimits = {{"nofile", 1024, 1048576}, {"RLIMIT_CORE", 0, 0}};
  defaults.host.hard_limits["RLIMIT_NOFILE"] = 20000;
  std::vector<std::string> notes;
  Result<nlohmann::json> limits = BuildRlimits(defaults, notes);
  REQUIRE(limits.ok());
  CHECK((*limits)[0] == nlohmann::json{{"type", "RLIMIT_NOFILE"}, {"soft", 1024}, {"hard", 20000}});
  CHECK((*limits)[1]["type"] == "RLIMIT_CORE");
  CHECK(notes.size() == 1);
  defaults.ulimits = {{"files", 1, 1}};
  CHECK(BuildRlimits(defaults, notes).code() == Code::kInvalidArgument);
}

TEST_CASE("An exec takes over the container's process but for command and terminal") {
  SpecFixture fixture;
  const BuiltSpec built = fixture.Build().value();
  const Texts command = {"ls", "-l"};
  const nlohmann::json process = BuildExecProcess(built.spec, command, true).value();
  CHECK(process["args"] == command);
  CHECK(process["terminal"] == true);
  CHECK(process["env"].back() == "TERM=xterm");
  CHECK(process["user"] == built.spec["process"]["user"]);
  CHECK(process["capabilities"] == built.spec["process"]["capabilities"]);
  CHECK(BuildExecProcess(built.spec, {}, false).code() == Code::kInvalidArgument);
}

TEST_CASE("An image configuration with wrong types is refused; an empty one is fine") {
  CHECK(ParseImageConfig("").ok());
  CHECK(ParseImageConfig("{}").ok());
  CHECK(ParseImageConfig(R"({"config":null})").ok());
  CHECK(ParseImageConfig(R"({"config":{"Env":null,"Cmd":null,"Volumes":null}})").ok());
  const auto image = ParseImageConfig(
      R"({"config":{"User":"web","Volumes":{"/b":{},"/a":{}},"StopSignal":"SIGINT"}})");
  REQUIRE(image.ok());
  CHECK(image->volumes == Texts{"/a", "/b"});
  for (const char* bad : {"[]", "{", R"({"config":[]})", R"({"config":{"Env":"A=1"}})",
                          R"({"config":{"Cmd":[1]}})", R"({"config":{"User":7}})"}) {
    CHECK(ParseImageConfig(bad).code() == Code::kInvalidArgument);
  }
}
