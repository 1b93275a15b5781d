#include "services/rund/spec/base_spec.h"

#include <catch2/catch.hpp>

#include "services/rund/spec/tests/fixture.h"

using namespace crisp;
using namespace crisp::rund;
using nlohmann::json;

TEST_CASE("A base spec lies beneath what the pod asks for") {
  SpecFixture fixture;
  fixture.runtime.base_spec = LoadBaseSpec(fixture.root.Write("base.json", R"({
    "process": {"env": ["LANG=C", "HOME=/base"],
                "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
                            {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1}]},
    "mounts": [{"destination": "/base", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]},
               {"destination": "/proc/", "type": "bind", "source": "/x"}],
    "hooks": {"poststop": [{"path": "/bin/after"}]},
    "annotations": {"run.oci.keep": "1", "io.crisp.pod.name": "forged"},
    "linux": {"sysctl": {"kernel.shm_rmid_forced": "1"},
              "resources": {"pids": {"limit": 100}, "cpu": {"shares": 2, "quota": 3},
                            "devices": [{"allow": true, "type": "c", "major": 10, "minor": 229}]},
              "maskedPaths": ["/proc/kcore", "/proc/secret"]}})"))
                                  .value();
  fixture.defaults.ulimits = {{"nofile", 10, 20}};
  fixture.config.mutable_linux()->mutable_resources()->set_cpu_shares(512);
  fixture.security().add_masked_paths("/proc/kcore");
  const json spec = fixture.Build().value().spec;
  const json& env = spec["process"]["env"];
  CHECK(env[0] == "LANG=C");
  CHECK(std::count(env.begin(), env.end(), json("HOME=/root")) == 1);
  CHECK(std::count(env.begin(), env.end(), json("HOME=/base")) == 0);
  CHECK(spec["process"]["rlimits"] ==
        json::array({{{"type", "RLIMIT_CORE"}, {"soft", 0}, {"hard", 0}},
                     {{"type", "RLIMIT_NOFILE"}, {"soft", 10}, {"hard", 20}}}));
  const auto mounts_at = [&spec](const std::string& path) {
    return std::count_if(spec["mounts"].begin(), spec["mounts"].end(),
                         [&path](const json& m) { return m["destination"] == path; });
  };
  CHECK(mounts_at("/base") == 1);
  CHECK(mounts_at("/proc") == 1);
  CHECK(mounts_at("/proc/") == 0);
  CHECK(spec["hooks"]["poststop"] == json::array({{{"path", "/bin/after"}}}));
  CHECK(spec["annotations"]["run.oci.keep"] == "1");
  CHECK(spec["annotations"]["io.crisp.pod.name"] == "web-0");
  CHECK(spec["linux"]["sysctl"] == json{{"kernel.shm_rmid_forced", "1"}});
  const json& resources = spec["linux"]["resources"];
  CHECK(resources["pids"] == json{{"limit", 100}});
  CHECK(resources["cpu"] == json{{"shares", 512}, {"quota", 3}});
  CHECK(resources["devices"][0] == json{{"allow", false}, {"access", "rwm"}});
  CHECK(resources["devices"][1]["minor"] == 229);
  CHECK(spec["linux"]["maskedPaths"] == json{"/proc/secret", "/proc/kcore"});
}

TEST_CASE("A base spec cannot say what the CRI says") {
  SpecFixture fixture;
  const auto error = [&fixture](const std::string& text) {
    const auto base = LoadBaseSpec(fixture.root.Write("base.json", text));
    CHECK(base.code() == Code::kInvalidArgument);
    CHECK(base.status().message().find("base.json") != std::string::npos);
    return base.status().message();
  };
  CHECK(error(R"({"root":{}})").find("root") != std::string::npos);
  CHECK(error(R"({"process":{"args":["x"]}})").find("process.args") != std::string::npos);
  CHECK(error(R"({"linux":{"seccomp":{}}})").find("linux.seccomp") != std::string::npos);
  error(R"({"mounts":[{}]})");
  error(R"({"process":{"env":"x"}})");
  error("[]");
  error("{");
  error(R"({"linux":{"resources":{"devices":{}}}})");
  CHECK(LoadBaseSpec(fixture.root / "absent").code() == Code::kNotFound);
}

TEST_CASE("What is null in a base spec is not there") {
  SpecFixture fixture;
  const auto base = LoadBaseSpec(fixture.root.Write(
      "base.json",
      R"({"process":{"env":null,"rlimits":null},"mounts":null,"hooks":{"prestart":null},
          "annotations":null,"linux":{"sysctl":null,"resources":{"devices":null,"pids":null}}})"));
  INFO(base.status().ToString());
  REQUIRE(base.ok());
  fixture.runtime.base_spec = *base;
  CHECK(fixture.Build().ok());
}
