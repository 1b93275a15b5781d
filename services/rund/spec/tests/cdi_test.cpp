#include "services/rund/spec/cdi.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <catch2/catch.hpp>

#include "libs/os/files.h"
#include "services/rund/spec/cdi_edits.h"
#include "services/rund/spec/tests/fixture.h"

using namespace crisp;
using namespace crisp::rund;
using nlohmann::json;

namespace {

constexpr const char* kGpu = R"({
  "cdiVersion": "0.6.0", "kind": "vendor.com/gpu",
  "containerEdits": {"env": ["DRIVER=1"], "mounts": [
     {"hostPath": "/usr/lib/gpu.so", "containerPath": "/lib/gpu.so", "options": ["ro", "nosuid"]}]},
  "devices": [
    {"name": "0", "containerEdits": {
       "env": ["GPU=0"],
       "deviceNodes": [{"path": "/dev/gpu0", "hostPath": "/dev/null"},
                       {"path": "/dev/ctl", "type": "c", "major": 10, "minor": 20, "permissions": "r",
                        "uid": 5, "gid": 6, "fileMode": 384}],
       "hooks": [{"hookName": "createContainer", "path": "/bin/ldconfig", "args": ["ldconfig"]}],
       "additionalGids": [44]}},
    {"name": "1", "containerEdits": {"env": ["GPU=1"]}}]})";

struct WithCdi : SpecFixture {
  WithCdi() {
    root.Write("etc/gpu.json", kGpu);
    defaults.cdi =
        std::make_shared<CdiDirs>(std::vector<std::string>{root / "etc", root / "run", "/nowhere"});
  }
  void Ask(const std::string& device) { config.add_cdi_devices()->set_name(device); }
  std::string Error() const { return Build().status().message(); }
};

json Named(const json& list, const char* key, const std::string& value) {
  for (const json& item : list) {
    if (item[key] == value) return item;
  }
  return {};
}

bool Has(const json& list, const json& value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

}  // namespace

TEST_CASE("A CDI device brings its nodes, variables, mounts, hooks and groups") {
  WithCdi fixture;
  fixture.Ask("vendor.com/gpu=0");
  fixture.security().mutable_run_as_user()->set_value(1000);
  const json spec = fixture.Build().value().spec;
  CHECK(Has(spec["process"]["env"], "DRIVER=1"));
  CHECK(Has(spec["process"]["env"], "GPU=0"));
  CHECK(Named(spec["mounts"], "destination", "/lib/gpu.so")["options"] ==
        json{"rbind", "ro", "nosuid"});
  CHECK(Named(spec["linux"]["devices"], "path", "/dev/gpu0") == json{{"path", "/dev/gpu0"},
                                                                     {"type", "c"},
                                                                     {"major", 1},
                                                                     {"minor", 3},
                                                                     {"fileMode", 0666},
                                                                     {"uid", 1000},
                                                                     {"gid", 1001}});
  CHECK(Named(spec["linux"]["devices"], "path", "/dev/ctl") == json{{"path", "/dev/ctl"},
                                                                    {"type", "c"},
                                                                    {"major", 10},
                                                                    {"minor", 20},
                                                                    {"fileMode", 384},
                                                                    {"uid", 5},
                                                                    {"gid", 6}});
  const json& rules = spec["linux"]["resources"]["devices"];
  CHECK(rules[0] == json{{"allow", false}, {"access", "rwm"}});
  CHECK(
      Has(rules, {{"allow", true}, {"type", "c"}, {"major", 10}, {"minor", 20}, {"access", "r"}}));
  CHECK(spec["hooks"]["createContainer"] ==
        json::array({{{"path", "/bin/ldconfig"}, {"args", {"ldconfig"}}}}));
  CHECK(Has(spec["process"]["user"]["additionalGids"], 44));
}

TEST_CASE("CDI devices are also asked for by annotation, each once") {
  runtime::v1::ContainerConfig config;
  config.add_cdi_devices()->set_name("vendor.com/gpu=0");
  (*config.mutable_annotations())["cdi.k8s.io/plugin_b"] = "vendor.com/gpu=1,vendor.com/gpu=0";
  (*config.mutable_annotations())["cdi.k8s.io/plugin_a"] = "vendor.com/net=eth:0";
  (*config.mutable_annotations())["unrelated"] = "x";
  CHECK(CdiDevicesOf(config).value() ==
        std::vector<std::string>{"vendor.com/gpu=0", "vendor.com/net=eth:0", "vendor.com/gpu=1"});
  for (const char* bad : {"", "gpu=0", "vendor.com/gpu", "vendor.com/gpu=", "a/b=c d", "/b=c"}) {
    (*config.mutable_annotations())["cdi.k8s.io/plugin_b"] = bad;
    INFO(bad);
    CHECK(CdiDevicesOf(config).code() == Code::kInvalidArgument);
  }
}

TEST_CASE("A CDI device that nobody describes is an error with its name, until a file does") {
  WithCdi fixture;
  fixture.Ask("vendor.com/gpu=7");
  CHECK(fixture.Build().code() == Code::kInvalidArgument);
  CHECK(fixture.Error().find("vendor.com/gpu=7") != std::string::npos);
  fixture.root.Write("run/broken.json", "{");
  CHECK(fixture.Error().find("broken.json") != std::string::npos);
  // A YAML file that comes, and wins over the earlier directory.
  fixture.root.Write("run/gpu.yaml", R"(
cdiVersion: "0.5.0"
kind: vendor.com/gpu
devices:
- name: "7"
  containerEdits:
    env: [GPU=7]
    deviceNodes:
    - {path: /dev/gpu7, type: c, major: 1, minor: 5, fileMode: 0o600}
- name: "1"
  containerEdits: {env: [GPU=one]}
)");
  fixture.Ask("vendor.com/gpu=1");
  const json spec = fixture.Build().value().spec;
  CHECK(Has(spec["process"]["env"], "GPU=one"));
  CHECK(Named(spec["linux"]["devices"], "path", "/dev/gpu7")["fileMode"] == 0600);
  REQUIRE(os::RemoveFile(fixture.root / "run/gpu.yaml").ok());
  CHECK(fixture.Build().code() == Code::kInvalidArgument);
}

TEST_CASE("Two files of one directory that describe a device are a conflict") {
  WithCdi fixture;
  fixture.root.Write("etc/other.json", kGpu);
  fixture.Ask("vendor.com/gpu=0");
  CHECK(fixture.Error().find("other.json") != std::string::npos);
}

TEST_CASE("CDI files with what we do not know are refused") {
  const auto parse = [](const std::string& devices, const std::string& kind = "v.com/c") {
    return CdiSpec::Parse(json::parse(R"({"cdiVersion":"0.6.0","kind":")" + kind +
                                      R"(","devices":)" + devices + "}"))
        .code();
  };
  const auto edits = [&parse](const std::string& text) {
    return parse(R"([{"name":"a","containerEdits":)" + text + "}]");
  };
  CHECK(edits("{}") == Code::kOk);
  CHECK(parse("[]", "nothing") == Code::kInvalidArgument);
  CHECK(parse(R"([{"name":"a"},{"name":"a"}])") == Code::kInvalidArgument);
  CHECK(parse(R"([{"name":"-"}])") == Code::kInvalidArgument);
  CHECK(edits(R"({"future":1})") == Code::kInvalidArgument);
  CHECK(edits(R"({"intelRdt":{"closID":"x","enableCMT":true}})") == Code::kOk);
  CHECK(edits(R"({"intelRdt":{"closID":"../x"}})") == Code::kInvalidArgument);
  CHECK(edits(R"({"intelRdt":{"closId":"x"}})") == Code::kInvalidArgument);
  CHECK(edits(R"({"env":["=x"]})") == Code::kInvalidArgument);
  CHECK(edits(R"({"deviceNodes":[{"path":"dev/x"}]})") == Code::kInvalidArgument);
  CHECK(edits(R"({"deviceNodes":[{"path":"/dev/x","type":"z"}]})") == Code::kInvalidArgument);
  CHECK(edits(R"({"mounts":[{"hostPath":"/a","containerPath":"b"}]})") == Code::kInvalidArgument);
  CHECK(edits(R"({"hooks":[{"hookName":"never","path":"/a"}]})") == Code::kInvalidArgument);
  CHECK(edits(R"({"additionalGids":[-1]})") == Code::kInvalidArgument);
}

TEST_CASE("A CDI device may bring a class of RDT") {
  const auto spec = CdiSpec::Parse(nlohmann::json::parse(R"({
      "cdiVersion": "0.7.0", "kind": "vendor.com/device",
      "devices": [{"name": "a", "containerEdits": {"intelRdt": {"closID": "gold"}}}]})"));
  INFO(spec.status().ToString());
  REQUIRE(spec.ok());
  nlohmann::json oci = {{"process", {{"env", {}}}}};
  REQUIRE(ApplyCdiEdits(spec->devices.at("a"), {}, false, oci).ok());
  CHECK(oci["linux"]["intelRdt"] == nlohmann::json{{"closID", "gold"}});
}

TEST_CASE("What is null in a CDI file is not there") {
  const auto spec = CdiSpec::Parse(nlohmann::json::parse(R"({
      "cdiVersion": "0.6.0", "kind": "vendor.com/device", "containerEdits": null,
      "devices": [{"name": "a", "containerEdits": {"env": null, "hooks": null, "mounts": [
        {"hostPath": "/x", "containerPath": "/y", "options": null, "type": null}]}}]})"));
  INFO(spec.status().ToString());
  REQUIRE(spec.ok());
  nlohmann::json oci = {{"mounts", nlohmann::json::array()}, {"process", {{"env", {}}}}};
  REQUIRE(ApplyCdiEdits(spec->devices.at("a"), {}, false, oci).ok());
  CHECK(oci["mounts"][0]["type"] == "bind");
}
