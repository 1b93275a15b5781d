#include "services/rund/spec/opt_ins.h"

#include <catch2/catch.hpp>

#include "services/rund/spec/tests/fixture.h"

namespace crisp::rund {
namespace {

using nlohmann::json;

/// A pod that asks by annotation, of a handler that allows what CRI-O's users allow.
struct Fixture : SpecFixture {
  Fixture() {
    runtime.allowed_annotations = {"umask.crio.io", "io.kubernetes.cri-o.", "devices.crio.io",
                                   "unified-cgroup.crio.io", "shm-size.crio.io"};
    defaults.annotation_devices = {"/dev/full", "/dev/zero"};
  }
  void Ask(const std::string& name, const std::string& value) {
    (*sandbox.mutable_annotations())[name] = value;
  }
  bool Refuses(const std::string& name, const std::string& value, const std::string& words = "") {
    Ask(name, value);
    const Status status = Build().status();
    sandbox.mutable_annotations()->erase(name);
    INFO(status.ToString());
    return status.code() == Code::kInvalidArgument &&
           status.message().find("annotation " + name) != std::string::npos &&
           status.message().find(words) != std::string::npos;
  }
  bool Notes(const std::string& words) const {
    const auto notes = Build().value().notes;
    return std::any_of(notes.begin(), notes.end(), [&words](const std::string& note) {
      return note.find(words) != std::string::npos;
    });
  }
  json Umask() const { return Build().value().spec["process"]["user"].value("umask", json()); }
  std::string CgroupMount() const {
    const json mounts = Build().value().spec["mounts"];
    for (const json& mount : mounts) {
      if (mount["destination"] == "/sys/fs/cgroup") return mount["options"].back();
    }
    return "none";
  }
};

TEST_CASE("A umask by annotation is over the node's, the container's own over the pod's") {
  Fixture f;
  CHECK(f.Umask().is_null());
  f.defaults.umask = 027;
  CHECK(f.Umask() == 027);
  f.Ask("io.kubernetes.cri-o.umask", "0077");
  CHECK(f.Umask() == 077);
  f.Ask("umask.crio.io", "7");
  CHECK(f.Umask() == 07);
  (*f.config.mutable_annotations())["umask.crio.io"] = "0";
  CHECK(f.Umask() == 0);
  f.config.clear_annotations();
  for (const char* bad : {"", "8", "0o22", "1000", "-1", "022 "}) {
    INFO(bad);
    CHECK(f.Refuses("umask.crio.io", bad, "octal"));
  }
}

TEST_CASE("What the handler does not allow counts for nothing, and is told of") {
  Fixture f;
  f.runtime.allowed_annotations = {"run.oci."};
  f.Ask("umask.crio.io", "0077");
  CHECK(f.Umask().is_null());
  CHECK(
      f.Notes("the annotation umask.crio.io counts for nothing: it is not among the "
              "allowed_annotations of runtime handler \"runc\""));
}

TEST_CASE("Annotations of CRI-O's that mean nothing here are told of, others are not") {
  Fixture f;
  f.Ask("example.com/x", "1");
  f.Ask("io.kubernetes.cri-o.TrySkipVolumeSELinuxLabel", "true");
  f.Ask("unified-cgroup.crio.io/another", "pids.max=1");
  CHECK(f.Build().value().notes.empty());
  f.Ask("cpu-quota.crio.io", "disable");
  f.Ask("cpu-shared.crio.io/main", "enable");
  f.Ask("io.kubernetes.cri-o.userns-mode", "auto");
  f.Ask("seccomp-profile.kubernetes.cri-o.io/POD", "x");
  CHECK(f.Build().value().notes.size() == 4);
  CHECK(f.Notes("cpu-quota.crio.io means nothing to crisp"));
}

TEST_CASE("Devices by annotation are those that the node allows, with the rights asked for") {
  Fixture f;
  f.Ask("devices.crio.io", "/dev/full:/dev/fuller:r,/dev/zero");
  json nodes = json::object();
  const json spec = f.Build().value().spec["linux"];
  for (const json& node : spec["devices"]) nodes[node["path"].get<std::string>()] = node["minor"];
  CHECK(nodes == json{{"/dev/fuller", 7}, {"/dev/zero", 5}});
  const json rule = {{"allow", true}, {"type", "c"}, {"major", 1}, {"minor", 7}, {"access", "r"}};
  const json& rules = spec["resources"]["devices"];
  CHECK(std::find(rules.begin(), rules.end(), rule) != rules.end());
  CHECK(f.Refuses("devices.crio.io", "/dev/kmsg", "rund.allowed_devices has no /dev/kmsg"));
  CHECK(f.Refuses("devices.crio.io", "/dev/full/../kmsg", "rund.allowed_devices"));
  CHECK(f.Refuses("devices.crio.io", "/dev/full,", "rund.allowed_devices"));
  f.Ask("devices.crio.io", "/dev/full:/dev/full:x");
  CHECK(f.Build().code() == Code::kInvalidArgument);
}

TEST_CASE("Files of the unified cgroup by annotation are the named container's") {
  Fixture f;
  f.Ask("io.kubernetes.cri-o.UnifiedCgroup.main", "pids.max=7;memory.high=1G=2");
  CHECK(f.Build().code() == Code::kInvalidArgument);  // a node with cgroup v1
  f.defaults.host.cgroup_v2 = true;
  const auto unified = [&f] {
    return f.Build().value().spec["linux"]["resources"].value("unified", json());
  };
  CHECK(unified() == json{{"pids.max", "7"}, {"memory.high", "1G=2"}});
  f.Ask("unified-cgroup.crio.io/main", "pids.max=8");
  CHECK(unified() == json{{"pids.max", "8"}});
  (*f.config.mutable_linux()->mutable_resources()->mutable_unified())["pids.max"] = "9";
  CHECK(unified() == json{{"pids.max", "9"}});
  for (const char* bad : {"", "pids.max", "=1", "pids.max=1;"}) {
    INFO(bad);
    CHECK(f.Refuses("unified-cgroup.crio.io/main", bad, "file=value"));
  }
  f.Ask("unified-cgroup.crio.io/main", "../x=1");
  CHECK(f.Build().code() == Code::kInvalidArgument);
  f.config.mutable_metadata()->set_name("other");
  f.config.clear_linux();
  CHECK(unified().is_null());
}

TEST_CASE("A container may write to its cgroups where it has a namespace of them") {
  Fixture f;
  const std::string name = "io.kubernetes.cri-o.cgroup2-mount-hierarchy-rw";
  CHECK(f.Refuses(name, "true", "cgroup v1"));
  f.defaults.host.cgroup_v2 = true;
  CHECK(f.CgroupMount() == "ro");
  CHECK(f.Refuses(name, "yes", "neither true nor false"));
  f.Ask(name, "false");
  CHECK(f.CgroupMount() == "ro");
  f.Ask(name, "true");
  CHECK(f.CgroupMount() == "rw");
}

TEST_CASE("The size of /dev/shm is a quantity, of pods that have one") {
  Fixture f;
  std::vector<std::string> notes;
  const auto size = [&] { return ShmSizeOf(f.sandbox, f.runtime, notes); };
  CHECK(size()->count() == 64 << 20);
  f.Ask("io.kubernetes.cri-o.ShmSize", "1Gi");
  CHECK(size()->count() == 1 << 30);
  f.Ask("shm-size.crio.io", "100M");
  CHECK(size()->count() == 100'000'000);
  for (const char* bad : {"", "0", "-1", "much"}) {
    INFO(bad);
    f.Ask("shm-size.crio.io", bad);
    CHECK(size().code() == Code::kInvalidArgument);
    CHECK(size().status().message().find("annotation shm-size.crio.io") != std::string::npos);
  }
  f.Ask("shm-size.crio.io", "1Gi");
  auto& namespaces =
      *f.sandbox.mutable_linux()->mutable_security_context()->mutable_namespace_options();
  namespaces.set_ipc(runtime::v1::NODE);
  CHECK(size().code() == Code::kInvalidArgument);
  namespaces.clear_ipc();
  CHECK(notes.empty());
  f.runtime.allowed_annotations.clear();
  CHECK(size()->count() == 64 << 20);
  CHECK_FALSE(notes.empty());
}

}  // namespace
}  // namespace crisp::rund
