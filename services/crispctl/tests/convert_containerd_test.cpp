#include <algorithm>

#include "libs/settings/settings.h"
#include "libs/testing/test_root.h"
#include "services/crispctl/convert/convert.h"

using namespace crisp;
using namespace crisp::ctl::convert;

namespace {

const std::string kSamples = CRISP_SOURCE_DIR "/services/crispctl/tests/samples/containerd";

struct Converted {
  Source source;
  Conversion conversion;
  settings::Settings settings;

  /// The outcome and text of the option whose name ends so.
  Finding Of(const std::string& end) const {
    for (const Entry& one : conversion.entries) {
      if (one.option.Name().ends_with(end)) return one.finding;
    }
    FAIL("no " << end);
    return {};
  }
};

Converted ConvertPath(const std::string& path) {
  auto source = ReadSource(std::nullopt, {path});
  INFO(source.status().message());
  REQUIRE(source.ok());
  auto conversion = Convert(*source);
  INFO(conversion.status().message());
  REQUIRE(conversion.ok());
  auto settings = settings::Parse(conversion->yaml, "crisp.yaml");
  INFO(settings.status().message());
  REQUIRE(settings.ok());
  return {*std::move(source), *std::move(conversion), *std::move(settings)};
}

std::string ErrorOf(const std::string& toml) {
  const testing::TestRoot root;
  const auto source = ReadSource(std::nullopt, {root.Write("config.toml", toml)});
  REQUIRE_FALSE(source.ok());
  return source.status().message().substr(root.path().size() + 1);
}

}  // namespace

TEST_CASE("A version 3 configuration of containerd is converted with its imports") {
  const Converted converted = ConvertPath(kSamples);
  CHECK(converted.source.files ==
        std::vector<std::string>{kSamples + "/config.toml", kSamples + "/conf.d/10-runtimes.toml"});
  const settings::Settings& settings = converted.settings;
  CHECK(settings.log.level == "fatal");
  CHECK(settings.log.format == "json");
  CHECK(settings.state_root == "/data/containerd/crisp");
  CHECK(settings.crid.metrics_address == "127.0.0.1:1338");
  CHECK(settings.imaged.parallel_layers == 6);
  CHECK(settings.imaged.stall_timeout == std::chrono::minutes(5));
  CHECK(settings.imaged.hosts_dir == "/etc/containerd/certs.d");
  CHECK(settings.imaged.pinned_images ==
        std::vector<std::string>{"registry.corp/kube-proxy:v1.36"});
  CHECK(settings.netd.bin_dirs == std::vector<std::string>{"/opt/cni/bin"});
  CHECK(settings.rund.selinux);
  CHECK(settings.rund.cgroup_driver == "systemd");
  CHECK(settings.rund.device_ownership_from_security_context);
  CHECK(settings.rund.default_sysctls ==
        std::vector<std::string>{"net.ipv4.ip_unprivileged_port_start=0"});
  CHECK(settings.rund.runtimes.at("runc").allowed_annotations ==
        std::vector<std::string>{"run.oci.", "example.com/device"});
  CHECK(settings.rund.runtimes.at("crun").path == "/usr/local/bin/crun");
  CHECK_FALSE(settings.rund.runtimes.contains("gvisor"));
  CHECK(converted.Of("runtimes.gvisor.runtime_type").outcome == Outcome::kNotSupported);
  CHECK(converted.Of("registry.config_path").outcome == Outcome::kChanged);
  // containerd's containers may send pings by themselves; crisp's may not.
  const auto& capabilities = settings.rund.default_capabilities;
  CHECK(std::find(capabilities.begin(), capabilities.end(), "NET_RAW") != capabilities.end());
}

TEST_CASE("Every option of containerd's default configuration has an outcome") {
  const Converted converted = ConvertPath(kSamples + "/config.toml");
  CHECK(converted.conversion.entries.size() > 80);
  for (const Entry& entry : converted.conversion.entries) {
    INFO(entry.option.Name());
    CHECK(entry.finding.outcome != Outcome::kUnknown);
  }
}

TEST_CASE("A version 2 configuration has its options under their old names") {
  const Converted converted = ConvertPath(kSamples + "/version2.toml");
  const settings::Settings& settings = converted.settings;
  CHECK(settings.imaged.driver == "vfs");
  CHECK(settings.netd.bin_dirs == std::vector<std::string>{"/usr/lib/cni"});
  CHECK(settings.rund.default_runtime == "runc");
  CHECK_FALSE(settings.rund.selinux);
  CHECK(settings.imaged.insecure_registries == std::vector<std::string>{"mirror.corp:5000"});
  CHECK(converted.Of("cni.max_conf_num").outcome == Outcome::kNotSupported);
  CHECK(converted.Of("containerd.default_runtime_name").outcome == Outcome::kNotSupported);
  CHECK(converted.Of("sandbox_image").outcome == Outcome::kNotNeeded);
}

TEST_CASE("Mirrors and credentials are for other files, and no secret is told") {
  const Converted converted = ConvertPath(kSamples + "/version2.toml");
  const Finding mirror = converted.Of("registry.mirrors.\"docker.io\".endpoint");
  CHECK(mirror.outcome == Outcome::kNotSupported);
  CHECK(mirror.text.find("/etc/containerd/certs.d/docker.io/hosts.toml") != std::string::npos);
  CHECK(mirror.text.find("[host.\"https://mirror.corp\"]") != std::string::npos);
  CHECK(converted.Of("auth.password").outcome == Outcome::kNotSupported);
  const std::string all = Report(converted.source, converted.conversion.entries) +
                          ReportJson(converted.source, converted.conversion.entries) +
                          converted.conversion.yaml;
  CHECK(all.find("hunter2") == all.npos);
}

TEST_CASE("What is no configuration of containerd's is told with file and line") {
  CHECK(ErrorOf("version = 9\n").starts_with("config.toml:1: version: "));
  CHECK(ErrorOf("[plugins.cri]\nx = 1\n").find("containerd config migrate") != std::string::npos);
  CHECK(
      ErrorOf("version = 3\n\nimports = ['away.toml']\n").starts_with("config.toml:3: imports: "));
  CHECK(ErrorOf("version = 3\n[debug\n").starts_with("config.toml:2: "));
}

TEST_CASE("Imports that lead in a circle end, and unknown options are told") {
  const testing::TestRoot root;
  root.Write("config.toml", "version = 3\nimports = ['a.toml']\n[debug]\nlevel = 'warn'\n");
  root.Write("a.toml",
             "version = 3\nimports = ['config.toml']\n[debug]\nlevel = 'debug'\n"
             "[plugins.'io.containerd.cri.v1.runtime']\nenable_selinuks = true\n");
  const Converted converted = ConvertPath(root / "config.toml");
  CHECK(converted.settings.log.level == "debug");
  CHECK(converted.Of("enable_selinuks").outcome == Outcome::kUnknown);
  const std::string report = Report(converted.source, converted.conversion.entries);
  CHECK(report.find("a.toml:6\n    plugins.\"io.containerd.cri.v1.runtime\".enable_selinuks") !=
        report.npos);
}
