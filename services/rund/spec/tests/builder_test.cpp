#include "services/rund/spec/builder.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "services/rund/spec/devices.h"
#include "services/rund/spec/namespaces.h"
#include "services/rund/spec/resources.h"
#include "services/rund/spec/tests/fixture.h"

using namespace crisp;
using namespace crisp::rund;
using nlohmann::json;
using Texts = std::vector<std::string>;

TEST_CASE("PID modes make, join or share the namespace that they name") {
  SpecFixture fixture;
  const auto pid = [&fixture]() -> json {
    const Result<BuiltSpec> built = fixture.Build();
    if (!built.ok()) return CodeName(built.code());
    for (const json& item : built->spec["linux"]["namespaces"]) {
      if (item["type"] == "pid") return item;
    }
    return "host";
  };
  CHECK(pid() == json{{"type", "pid"}});
  fixture.pod_files.pid_ns_path = "/proc/7/ns/pid";
  CHECK(pid()["path"] == "/proc/7/ns/pid");
  auto& options = *fixture.security().mutable_namespace_options();
  options.set_pid(runtime::v1::CONTAINER);
  CHECK(pid() == json{{"type", "pid"}});
  options.set_pid(runtime::v1::NODE);
  CHECK(pid() == "host");
  options.set_pid(runtime::v1::TARGET);
  CHECK(pid() == "INVALID_ARGUMENT");
  fixture.target_pid_ns = "/proc/9/ns/pid";
  CHECK(pid()["path"] == "/proc/9/ns/pid");
  auto& userns = *options.mutable_userns_options();
  userns.set_mode(runtime::v1::NODE);
  CHECK(fixture.Build().ok());
  userns.set_mode(runtime::v1::CONTAINER);
  CHECK(fixture.Build().code() == Code::kInvalidArgument);
  userns.set_mode(runtime::v1::POD);
  userns.add_uids()->set_length(65536);
  CHECK(fixture.Build().code() == Code::kInvalidArgument);
}

TEST_CASE("A container has its pod's network and IPC, and says so or nothing") {
  SpecFixture fixture;
  auto& own = *fixture.security().mutable_namespace_options();
  auto& of_pod = *fixture.sandbox.mutable_linux()->mutable_security_context();
  using Mode = runtime::v1::NamespaceMode;
  using Set = void (runtime::v1::NamespaceOption::*)(Mode);
  for (const auto& [name, set] :
       {std::pair<const char*, Set>{"network", &runtime::v1::NamespaceOption::set_network},
        std::pair<const char*, Set>{"ipc", &runtime::v1::NamespaceOption::set_ipc}}) {
    for (const Mode mode : {runtime::v1::NODE, runtime::v1::CONTAINER, runtime::v1::TARGET}) {
      (own.*set)(mode);
      const Status refused = fixture.Build().status();
      CHECK(refused.code() == Code::kInvalidArgument);
      CHECK(refused.message().find(std::string("namespace_options.") + name) != std::string::npos);
    }
    (of_pod.mutable_namespace_options()->*set)(runtime::v1::NODE);
    (own.*set)(runtime::v1::NODE);
    CHECK(fixture.Build().ok());
    (own.*set)(runtime::v1::POD);
    CHECK(fixture.Build().ok());
  }
}

TEST_CASE("The PIDs of a pod that has the host's are the host's, unless a container has its own") {
  SpecFixture fixture;
  auto& own = *fixture.security().mutable_namespace_options();
  fixture.sandbox.mutable_linux()->mutable_security_context()->mutable_namespace_options()->set_pid(
      runtime::v1::NODE);
  const auto has_own = [&fixture] {
    const json spec = fixture.Build().value().spec;
    const json& namespaces = spec["linux"]["namespaces"];
    return std::any_of(namespaces.begin(), namespaces.end(),
                       [](const json& item) { return item["type"] == "pid"; });
  };
  CHECK_FALSE(has_own());
  own.set_pid(runtime::v1::NODE);
  CHECK_FALSE(has_own());
  own.set_pid(runtime::v1::CONTAINER);
  CHECK(has_own());
}

TEST_CASE("A pod's user namespace has one mapping of uids and one of gids, from id 0 on") {
  runtime::v1::NamespaceOption options;
  CHECK_FALSE(UsernsIdsOf(options)->has_value());
  auto& userns = *options.mutable_userns_options();
  userns.set_mode(runtime::v1::NODE);
  CHECK_FALSE(UsernsIdsOf(options)->has_value());
  userns.set_mode(runtime::v1::POD);
  CHECK(UsernsIdsOf(options).code() == Code::kInvalidArgument);
  for (auto* ids : {userns.add_uids(), userns.add_gids()}) {
    ids->set_host_id(100000);
    ids->set_length(65536);
  }
  REQUIRE(UsernsIdsOf(options)->has_value());
  CHECK((*UsernsIdsOf(options))->uids == os::IdRange{0, 100000, 65536});
  const auto refused =
      [&options](const std::function<void(runtime::v1::NamespaceOption&)>& change) {
        runtime::v1::NamespaceOption changed = options;
        change(changed);
        return UsernsIdsOf(changed).code() == Code::kInvalidArgument;
      };
  using Options = runtime::v1::NamespaceOption;
  CHECK(refused([](Options& o) { o.mutable_userns_options()->add_uids()->set_length(1); }));
  CHECK(refused([](Options& o) { o.mutable_userns_options()->clear_gids(); }));
  CHECK(
      refused([](Options& o) { o.mutable_userns_options()->mutable_gids(0)->set_length(65535); }));
  CHECK(refused(
      [](Options& o) { o.mutable_userns_options()->mutable_uids(0)->set_container_id(1); }));
  CHECK(refused(
      [](Options& o) { o.mutable_userns_options()->mutable_uids(0)->set_host_id(4294967295U); }));
  CHECK(refused([](Options& o) { o.mutable_userns_options()->mutable_uids(0)->set_length(0); }));
  CHECK(refused([](Options& o) { o.mutable_userns_options()->set_mode(runtime::v1::CONTAINER); }));
  CHECK(refused([](Options& o) { o.mutable_userns_options()->set_mode(runtime::v1::TARGET); }));
  CHECK(refused([](Options& o) { o.mutable_userns_options()->set_mode(runtime::v1::NODE); }));
  CHECK(refused([](Options& o) { o.set_network(runtime::v1::NODE); }));
  CHECK(refused([](Options& o) { o.set_ipc(runtime::v1::NODE); }));
  CHECK(refused([](Options& o) { o.set_pid(runtime::v1::NODE); }));
}

TEST_CASE("A container is in its pod's user namespace, and in no other") {
  SpecFixture fixture;
  fixture.pod_files.userns =
      UserNamespace{"/run/pod/user", os::IdRange{0, 100000, 65536}, os::IdRange{0, 200000, 65536}};
  // MakeWorkingDir finds it there.
  fixture.config.set_working_dir("/");
  const json spec = fixture.Build().value().spec;
  CHECK(spec["linux"]["namespaces"][0] == json{{"type", "user"}, {"path", "/run/pod/user"}});
  CHECK(spec["linux"]["uidMappings"] ==
        json::array({{{"containerID", 0}, {"hostID", 100000}, {"size", 65536}}}));
  CHECK(spec["linux"]["gidMappings"][0]["hostID"] == 200000);
  auto& userns = *fixture.security().mutable_namespace_options()->mutable_userns_options();
  userns.set_mode(runtime::v1::NODE);
  CHECK(fixture.Build().code() == Code::kInvalidArgument);
  userns.set_mode(runtime::v1::POD);
  CHECK(fixture.Build().ok());
  for (auto* ids : {userns.add_uids(), userns.add_gids()}) ids->set_length(65536);
  userns.mutable_uids(0)->set_host_id(100000);
  userns.mutable_gids(0)->set_host_id(200000);
  CHECK(fixture.Build().ok());
  fixture.security().mutable_namespace_options()->set_pid(runtime::v1::NODE);
  CHECK(fixture.Build().status().message().find("namespace_options.pid") != std::string::npos);
  fixture.security().mutable_namespace_options()->set_pid(runtime::v1::POD);
  userns.mutable_gids(0)->set_host_id(100000);
  CHECK(fixture.Build().code() == Code::kInvalidArgument);
  userns.Clear();
  fixture.security().mutable_run_as_user()->set_value(70000);
  const auto outside = fixture.Build();
  CHECK(outside.code() == Code::kInvalidArgument);
  CHECK(outside.status().message().find("70000") != std::string::npos);
}

TEST_CASE("A runtime gets the annotations that it is allowed, and ours") {
  SpecFixture fixture;
  (*fixture.sandbox.mutable_annotations())["run.oci.a"] = "pod";
  (*fixture.sandbox.mutable_annotations())["run.oci.b"] = "pod";
  (*fixture.config.mutable_annotations())["run.oci.b"] = "container";
  (*fixture.config.mutable_annotations())["other"] = "x";
  CHECK_FALSE(fixture.Build().value().spec["annotations"].contains("run.oci.a"));
  fixture.runtime.allowed_annotations = {"run.oci.", "io.crisp."};
  (*fixture.config.mutable_annotations())["io.crisp.pod.id"] = "forged";
  const json annotations = fixture.Build().value().spec["annotations"];
  CHECK(annotations["run.oci.a"] == "pod");
  CHECK(annotations["run.oci.b"] == "container");
  CHECK_FALSE(annotations.contains("other"));
  CHECK(annotations["io.crisp.pod.id"] == std::string(64, 'b'));
}

TEST_CASE("An update changes what it names, and keeps the amount of swap") {
  runtime::v1::LinuxContainerResources now;
  now.set_cpu_shares(512);
  now.set_memory_limit_in_bytes(100);
  now.set_memory_swap_limit_in_bytes(130);
  now.set_cpuset_cpus("0");
  runtime::v1::LinuxContainerResources change;
  CHECK(MergeResources(now, change).SerializeAsString() == now.SerializeAsString());
  change.set_memory_limit_in_bytes(200);
  change.set_cpu_quota(-1);
  auto merged = MergeResources(now, change);
  CHECK(merged.cpu_shares() == 512);
  CHECK(merged.cpu_quota() == -1);
  CHECK(merged.cpuset_cpus() == "0");
  CHECK(merged.memory_limit_in_bytes() == 200);
  CHECK(merged.memory_swap_limit_in_bytes() == 230);
  change.set_memory_swap_limit_in_bytes(200);
  CHECK(MergeResources(now, change).memory_swap_limit_in_bytes() == 200);
  change.Clear();
  auto& hugepage = *change.add_hugepage_limits();
  hugepage.set_page_size("2MB");
  hugepage.set_limit(1);
  merged = MergeResources(now, change);
  hugepage.set_limit(2);
  merged = MergeResources(merged, change);
  REQUIRE(merged.hugepage_limits_size() == 1);
  CHECK(merged.hugepage_limits(0).limit() == 2);
}

TEST_CASE("A cgroup namespace is for cgroup v2 and the unprivileged") {
  SpecFixture fixture;
  const auto has = [&fixture] {
    const json namespaces = fixture.Build().value().spec["linux"]["namespaces"];
    return std::any_of(namespaces.begin(), namespaces.end(),
                       [](const json& item) { return item["type"] == "cgroup"; });
  };
  CHECK_FALSE(has());
  fixture.defaults.host.cgroup_v2 = true;
  CHECK(has());
}

TEST_CASE("Sysctls that would reach the host are refused") {
  google::protobuf::Map<std::string, std::string> asked;
  const auto code = [&asked](bool net, bool ipc, bool uts) {
    return BuildSysctls(asked, net, ipc, uts).code();
  };
  asked["net.ipv4.ip_forward"] = "1";
  CHECK(code(false, false, false) == Code::kOk);
  CHECK(BuildSysctls(asked, false, false, false)->empty());
  CHECK(code(true, false, false) == Code::kInvalidArgument);
  asked.clear();
  asked["fs.mqueue.msg_max"] = "100";
  CHECK(code(false, false, false) == Code::kOk);
  CHECK(code(false, true, false) == Code::kInvalidArgument);
  asked.clear();
  asked["kernel.domainname"] = "x";
  CHECK(code(false, false, true) == Code::kInvalidArgument);
  for (const char* bad : {"vm.swappiness", "kernel.hostname", "kernel.panic", "", "fs.file-max"}) {
    asked.clear();
    asked[bad] = "1";
    CHECK(code(false, false, false) == Code::kInvalidArgument);
  }
}

TEST_CASE("Resources that this node cannot limit are dropped when that changes nothing") {
  HostFacts host;
  runtime::v1::LinuxContainerResources resources;
  resources.set_memory_limit_in_bytes(1000);
  resources.set_memory_swap_limit_in_bytes(1000);
  auto& hugepages = *resources.add_hugepage_limits();
  hugepages.set_page_size("2MB");
  CHECK(BuildResources(resources, host).value() == json{{"memory", {{"limit", 1000}}}});
  hugepages.set_limit(1);
  CHECK(BuildResources(resources, host).code() == Code::kInvalidArgument);
  HostFacts huge = host;
  huge.controllers.insert("hugetlb");
  CHECK(BuildResources(resources, huge).ok());
  // Zero is a limit too where there are such pages.
  huge.huge_page_sizes = {"2MB"};
  resources.add_hugepage_limits()->set_page_size("1GB");
  hugepages.set_limit(0);
  CHECK(BuildResources(resources, huge).value()["hugepageLimits"] ==
        json::array({{{"pageSize", "2MB"}, {"limit", 0}}}));
  hugepages.set_limit(1);
  for (const char* size : {"x/../../other/hugetlb.1GB", "GB", "1TB", "1 MB", ""}) {
    hugepages.set_page_size(size);
    CHECK(BuildResources(resources, huge).code() == Code::kInvalidArgument);
  }
  resources.clear_hugepage_limits();
  resources.set_memory_swap_limit_in_bytes(2000);
  CHECK(BuildResources(resources, host).code() == Code::kInvalidArgument);
  resources.set_memory_swap_limit_in_bytes(999);
  host.swap_accounting = true;
  CHECK(BuildResources(resources, host).code() == Code::kInvalidArgument);
  resources.Clear();
  CHECK(BuildResources(resources, host).value() == json::object());
  (*resources.mutable_unified())["memory.high"] = "1";
  CHECK(BuildResources(resources, host).code() == Code::kInvalidArgument);
  host.cgroup_v2 = true;
  CHECK(BuildResources(resources, host).value() == json{{"unified", {{"memory.high", "1"}}}});
  (*resources.mutable_unified())["../x"] = "1";
  CHECK(BuildResources(resources, host).code() == Code::kInvalidArgument);
}

TEST_CASE("An oom_score_adj that there is not is refused by name") {
  runtime::v1::LinuxContainerResources resources;
  for (const int good : {-1000, 0, 1000}) {
    resources.set_oom_score_adj(good);
    CHECK(BuildResources(resources, HostFacts()).ok());
  }
  for (const int bad : {-1001, 1001}) {
    resources.set_oom_score_adj(bad);
    const auto built = BuildResources(resources, HostFacts());
    CHECK(built.code() == Code::kInvalidArgument);
    CHECK(built.status().message().starts_with("linux.resources.oom_score_adj: "));
  }
}

TEST_CASE("A directory of devices stands for the device nodes in it") {
  google::protobuf::RepeatedPtrField<runtime::v1::Device> asked;
  runtime::v1::Device& device = *asked.Add();
  device.set_host_path("/dev");
  device.set_container_path("/hostdev");
  const BuiltDevices built = BuildDevices(asked, false, "/dev").value();
  const auto null = std::find_if(built.nodes.begin(), built.nodes.end(),
                                 [](const json& n) { return n["path"] == "/hostdev/null"; });
  REQUIRE(null != built.nodes.end());
  CHECK((*null)["major"] == 1);
  CHECK((*null)["minor"] == 3);
  CHECK(built.rules[0] == json{{"allow", false}, {"access", "rwm"}});
  CHECK(built.rules.size() == built.nodes.size() + 1);

  device.set_host_path("/dev/null");
  device.set_permissions("rx");
  CHECK(BuildDevices(asked, false, "/dev").code() == Code::kInvalidArgument);
  device.set_permissions("");
  device.set_host_path("/dev/does-not-exist");
  CHECK(BuildDevices(asked, false, "/dev").code() == Code::kNotFound);
  device.set_host_path("/etc/passwd");
  CHECK(BuildDevices(asked, false, "/dev").code() == Code::kInvalidArgument);
}

TEST_CASE("A privileged container sees the host's devices") {
  const BuiltDevices built = BuildDevices({}, true, "/dev").value();
  CHECK(built.rules == json::array({{{"allow", true}, {"access", "rwm"}}}));
  const auto has = [&built](const std::string& path) {
    return std::any_of(built.nodes.begin(), built.nodes.end(),
                       [&path](const json& n) { return n["path"] == path; });
  };
  CHECK(has("/dev/zero"));
  CHECK_FALSE(has("/dev/pts/0"));
  CHECK_FALSE(has("/dev/ptmx/0"));
}

TEST_CASE("The node's own devices are in every container, and may belong to its user") {
  SpecFixture fixture;
  fixture.defaults.devices.emplace_back().set_host_path("/dev/zero");
  auto& own = *fixture.config.add_devices();
  own.set_host_path("/dev/null");
  own.set_permissions("r");
  const auto nodes = [&fixture] { return fixture.Build().value().spec["linux"]["devices"]; };
  REQUIRE(nodes().size() == 2);
  CHECK(nodes()[0]["path"] == "/dev/null");
  CHECK(nodes()[1]["path"] == "/dev/zero");
  CHECK(nodes()[1]["uid"] == 0);
  fixture.security().mutable_run_as_user()->set_value(1000);
  fixture.security().mutable_run_as_group()->set_value(50);
  CHECK(nodes()[1]["uid"] == 0);
  fixture.defaults.device_ownership = true;
  CHECK(nodes()[0]["uid"] == 1000);
  CHECK(nodes()[1]["gid"] == 50);
}

TEST_CASE("A default umask and default variables are the node's") {
  SpecFixture fixture;
  CHECK_FALSE(fixture.Build().value().spec["process"]["user"].contains("umask"));
  fixture.defaults.umask = 027;
  fixture.defaults.env = {"A=node", "B=node", "PATH=/node"};
  fixture.image.set_config_json(R"({"config":{"Env":["B=image"]}})");
  const json process = fixture.Build().value().spec["process"];
  CHECK(process["user"]["umask"] == 027);
  CHECK(process["env"] == json{"PATH=/node", "HOSTNAME=web-0", "A=node", "B=image", "HOME=/root"});
}

TEST_CASE("A sandbox and a container without any linux part work") {
  SpecFixture fixture;
  fixture.config.clear_linux();
  fixture.sandbox.clear_linux();
  CHECK(fixture.Build().ok());
}

TEST_CASE("The facts of this machine can be found out") {
  const Result<HostFacts> facts = DetectHost();
  REQUIRE(facts.ok());
  CHECK_FALSE(facts->controllers.empty());
  CHECK(facts->lowest_oom_score_adj <= 1000);
}
