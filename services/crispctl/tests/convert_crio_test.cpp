#include <algorithm>

#include "libs/settings/settings.h"
#include "libs/testing/test_root.h"
#include "services/crispctl/convert/convert.h"

using namespace crisp;
using namespace crisp::ctl::convert;

namespace {

const std::string kSamples = CRISP_SOURCE_DIR "/services/crispctl/tests/samples/crio";

struct Converted {
  Source source;
  Conversion conversion;

  const Entry* Find(const std::string& option) const {
    const auto& all = conversion.entries;
    const auto found = std::find_if(all.begin(), all.end(), [&option](const Entry& one) {
      return one.option.Name() == option;
    });
    return found == all.end() ? nullptr : &*found;
  }
  Outcome OutcomeOf(const std::string& option) const {
    const Entry* entry = Find(option);
    REQUIRE(entry != nullptr);
    return entry->finding.outcome;
  }
};

Converted ConvertPaths(const std::vector<std::string>& paths) {
  auto source = ReadSource(std::nullopt, paths);
  INFO(source.status().message());
  REQUIRE(source.ok());
  auto conversion = Convert(*source);
  INFO(conversion.status().message());
  REQUIRE(conversion.ok());
  return {*std::move(source), *std::move(conversion)};
}

Converted ConvertText(const std::string& toml) {
  const testing::TestRoot root;
  return ConvertPaths({root.Write("crio.conf", toml)});
}

settings::Settings SettingsOf(const Converted& converted) {
  auto settings = settings::Parse(converted.conversion.yaml, "crisp.yaml");
  INFO(settings.status().message());
  REQUIRE(settings.ok());
  return *std::move(settings);
}

std::string ErrorOf(const std::string& toml) {
  const testing::TestRoot root;
  const auto source = ReadSource(Runtime::kCrio, {root.Write("crio.conf", toml)});
  REQUIRE_FALSE(source.ok());
  return source.status().message().substr(root.path().size() + 1);
}

}  // namespace

TEST_CASE("A configuration of CRI-O becomes a crisp.yaml that says the same") {
  const Converted converted = ConvertPaths({kSamples});
  CHECK(converted.source.files == std::vector<std::string>{kSamples + "/crio.conf",
                                                           kSamples + "/crio.conf.d/10-crun.conf",
                                                           kSamples + "/crio.conf.d/20-logs.conf"});
  const settings::Settings settings = SettingsOf(converted);
  CHECK(settings.log.level == "debug");
  CHECK(settings.state_root == "/data/containers/storage/crisp");
  CHECK(settings.crid.metrics_address == "0.0.0.0:9537");
  CHECK(settings.crid.create_timeout == std::chrono::seconds(300));
  CHECK(settings.imaged.image_root == "/images/crio/crisp");
  CHECK(settings.imaged.auth_files.front() == "/var/lib/kubelet/config.json");
  CHECK(settings.imaged.pinned_images == std::vector<std::string>{"registry.corp/base/*"});
  CHECK(settings.imaged.policy == "/etc/crio/policy.json");
  CHECK(settings.imaged.stall_timeout == std::chrono::seconds(90));
  CHECK(settings.netd.default_network == "pods");
  CHECK(settings.netd.bin_dirs == std::vector<std::string>{"/opt/cni/bin/", "/usr/libexec/cni"});
  CHECK(settings.netd.status_grace == std::chrono::seconds(30));
  CHECK(settings.netd.hostports == "plugin");
  CHECK(settings.rund.default_runtime == "crun");
  CHECK(settings.rund.cgroup_driver == "systemd");
  CHECK(settings.rund.default_ulimits == std::vector<std::string>{"nofile=1024:4096", "core=0:0"});
  CHECK(settings.rund.default_capabilities == std::vector<std::string>{"CHOWN", "KILL", "NET_RAW"});
  CHECK(settings.rund.default_sysctls ==
        std::vector<std::string>{"net.ipv4.ping_group_range=0 2147483647"});
  CHECK(settings.rund.max_log_size == MiB(16));
  CHECK(settings.rund.streaming_address == "[::1]:10010");
  CHECK(settings.rund.streaming_tls_cert == "/etc/crio/stream.crt");
  CHECK(settings.rund.streaming_tls_min_version == "1.3");
  CHECK(settings.rund.streaming_idle_timeout == std::chrono::minutes(90));
  CHECK(settings.rund.conmon == "/usr/libexec/crio/conmon");
  CHECK(settings.rund.apparmor_profile == "node-default");
  const settings::Runtime& runc = settings.rund.runtimes.at("runc");
  CHECK(runc.path == "/usr/sbin/runc");
  CHECK(runc.root == "/run/runc");
  CHECK(runc.monitor_env == std::vector<std::string>{"LANG=C"});
  CHECK(runc.privileged_without_host_devices);
  CHECK(settings.rund.runtimes.at("crun").root == "/run/crun");
  CHECK(settings.rund.runtimes.at("crun").monitor_env ==
        std::vector<std::string>{"PATH=/usr/sbin:/usr/bin"});
  CHECK_FALSE(settings.rund.runtimes.contains("kata"));
}

TEST_CASE("CRI-O's traces go where they went, when they are on") {
  const testing::TestRoot root;
  const auto converted = [&root](const std::string& enable) {
    root.Write("crio.conf", "[crio.tracing]\nenable_tracing = " + enable +
                                "\ntracing_endpoint = '127.0.0.1:4317'\n"
                                "tracing_sampling_rate_per_million = 1000\n");
    return SettingsOf(ConvertPaths({root / "crio.conf"}));
  };
  CHECK(converted("true").tracing.endpoint == "127.0.0.1:4317");
  CHECK(converted("true").tracing.sampling_per_million == 1000);
  CHECK(converted("false").tracing.endpoint.empty());
}

TEST_CASE("Only what is not crisp's default is written, each with where it came from") {
  const Converted converted = ConvertText(
      "[crio.runtime]\n"
      "conmon = '/usr/libexec/crio/conmon'\n"
      "cgroup_manager = 'cgroupfs'\n"
      "default_runtime = 'runc'\n"
      "selinux = true\n"
      "disable_hostport_mapping = true\n");
  const std::string& file = converted.source.files.front();
  const std::string& yaml = converted.conversion.yaml;
  CHECK(yaml.substr(yaml.find("\nrund") + 1) ==
        "rund:\n"
        "  # crio.runtime.conmon, " +
            file +
            ":2\n"
            "  conmon: /usr/libexec/crio/conmon\n");
  CHECK(yaml.starts_with("# What CRI-O was told in " + file));
}

TEST_CASE("Every option of CRI-O has an outcome, and unknown ones are told with file and line") {
  const Converted converted = ConvertPaths({kSamples});
  for (const Entry& entry : converted.conversion.entries) {
    INFO(entry.option.Name());
    CHECK(entry.finding.outcome != Outcome::kUnknown);
  }
  CHECK(converted.conversion.entries.size() > 150);
  const Converted wrong = ConvertText("[crio.runtime]\n\nconmom = '/x'\n");
  CHECK(wrong.OutcomeOf("crio.runtime.conmom") == Outcome::kUnknown);
  const std::string report = Report(wrong.source, wrong.conversion.entries);
  CHECK(report.find("unknown (1)") != report.npos);
  CHECK(report.find("crio.conf:3\n    crio.runtime.conmom") != report.npos);
}

TEST_CASE("What crisp has not is told with what to do instead, and not when it is off") {
  const Converted converted = ConvertPaths({kSamples});
  CHECK(converted.OutcomeOf("crio.runtime.read_only") == Outcome::kNotSupported);
  CHECK(converted.OutcomeOf("crio.runtime.pids_limit") == Outcome::kNotSupported);
  CHECK(converted.OutcomeOf("crio.runtime.no_pivot") == Outcome::kNotNeeded);
  CHECK(converted.OutcomeOf("crio.runtime.minimum_mappable_uid") == Outcome::kNotNeeded);
  CHECK(converted.OutcomeOf("crio.image.pause_image") == Outcome::kNotNeeded);
  CHECK(converted.OutcomeOf("crio.api.listen") == Outcome::kChanged);
  CHECK(converted.OutcomeOf("crio.runtime.runtimes.kata.runtime_type") == Outcome::kNotSupported);
  const std::string report = Report(converted.source, converted.conversion.entries);
  CHECK(report.find("set readOnlyRootFilesystem in the pods") != report.npos);
  // What it came over, too.
  CHECK(report.find("20-logs.conf:2 (over " + kSamples + "/crio.conf:") != report.npos);
}

TEST_CASE("What CRI-O does by default and crisp does not is written, too") {
  const Converted converted = ConvertText("[crio]\n");
  const settings::Settings settings = SettingsOf(converted);
  CHECK(settings.rund.cgroup_driver == "systemd");
  CHECK(settings.rund.default_runtime == "crun");
  CHECK(settings.netd.hostports == "builtin");
  CHECK_FALSE(settings.rund.selinux);
  CHECK(converted.conversion.yaml.find("# crio.runtime.cgroup_manager, not set\n") !=
        std::string::npos);
}

TEST_CASE("A handler in a later file replaces the earlier one as a whole") {
  const testing::TestRoot root;
  root.Write("crio.conf",
             "[crio.runtime.runtimes.runc]\nruntime_path = '/old/runc'\nruntime_root = '/old'\n"
             "[crio.runtime.runtimes.kata]\n");
  root.Write("crio.conf.d/10.conf", "[crio.runtime.runtimes.runc]\nruntime_path = '/new/runc'\n");
  const settings::Settings settings = SettingsOf(ConvertPaths({root / "crio.conf"}));
  CHECK(settings.rund.runtimes.at("runc").path == "/new/runc");
  CHECK(settings.rund.runtimes.at("runc").root.empty());
  // CRI-O searches PATH for a handler that has only its name.
  CHECK(settings.rund.runtimes.at("kata").path == "/usr/bin/kata");
}

TEST_CASE("A value that crisp.yaml does not take is no reason to write none") {
  const Converted converted = ConvertText(
      "[crio.runtime]\ndefault_runtime = 'kata'\nseccomp_profile = 'relative.json'\n"
      "default_env = 'no list'\nlog_level = 'loud'\n[crio.image]\npull_progress_timeout = '48h'\n");
  for (const char* option :
       {"crio.runtime.default_runtime", "crio.runtime.seccomp_profile", "crio.runtime.default_env",
        "crio.runtime.log_level", "crio.image.pull_progress_timeout"}) {
    INFO(option);
    CHECK(converted.OutcomeOf(option) == Outcome::kNotSupported);
  }
  CHECK(SettingsOf(converted).rund.default_runtime == "runc");
}

TEST_CASE("Bad files are told with file and line") {
  CHECK(ErrorOf("[crio.runtime]\nconmon = \n").starts_with("crio.conf:2: "));
  const testing::TestRoot root;
  CHECK(ReadSource(std::nullopt, {root / "none.conf"}).code() == Code::kNotFound);
  CHECK(ReadSource(std::nullopt, {root.path()}).code() == Code::kNotFound);
  const auto other = ReadSource(std::nullopt, {root.Write("other.toml", "a = 1\n")});
  CHECK(other.status().message().find("say --from") != std::string::npos);
}

TEST_CASE("No value is in the report") {
  const Converted converted = ConvertPaths({kSamples});
  for (const std::string& report : {Report(converted.source, converted.conversion.entries),
                                    ReportJson(converted.source, converted.conversion.entries)}) {
    CHECK(report.find("hunter2") == report.npos);
  }
}

TEST_CASE("Lengths of time are read as Go writes them") {
  CHECK(GoDuration("1h30m")->count() == 5400);
  CHECK(GoDuration("1.5s")->count() == 2);
  CHECK(GoDuration("300ms")->count() == 1);
  CHECK(GoDuration("0")->count() == 0);
  for (const char* wrong : {"", "5", "1d", "-1s", "s", "1h 2m"}) {
    INFO(wrong);
    CHECK_FALSE(GoDuration(wrong).ok());
  }
}
