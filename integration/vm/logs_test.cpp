// Logs of containers in a real journal.
#include "integration/vm/vm_node.h"
#include "libs/os/files.h"

namespace crisp::harness {
namespace {

using std::chrono::seconds;

/// rund with these settings over the others, until the end of the scope.
class WithSettings {
 public:
  WithSettings(const Vm& vm, const std::string& yaml) : vm_(vm) {
    REQUIRE(os::MakeDirs("/etc/crisp/crisp.yaml.d").ok());
    REQUIRE(os::WriteFile(kDropIn, yaml).ok());
    Restart();
  }
  WithSettings(const WithSettings&) = delete;
  WithSettings& operator=(const WithSettings&) = delete;
  ~WithSettings() {
    os::RemoveFile(kDropIn).ok();
    Restart();
  }

 private:
  static constexpr const char* kDropIn = "/etc/crisp/crisp.yaml.d/90-logs.yaml";
  void Restart() const {
    Sh("systemctl restart crisp-rund@1");
    vm_.WaitReady();
  }
  const Vm& vm_;
};

TEST_CASE("Lines of containers are in the journal under their names, and in their logs",
          "[short]") {
  Vm vm;
  const WithSettings settings(vm, "rund:\n  log_journald: true\n");
  const auto pod_config = vm.PodConfig("journal");
  const auto config = vm.ContainerConfig({"sh", "-c", "echo to both; echo wrong >&2; sleep 1000"});
  const std::string id = vm.Running(vm.Pod(pod_config), pod_config, config);
  const auto entries = [&](const std::string& fields) {
    return Sh("journalctl --no-pager -o cat CONTAINER_ID_FULL=" + id + " " + fields);
  };
  CHECK(Eventually([&] { return entries("PRIORITY=6").starts_with("to both"); }, seconds(30)));
  CHECK(Eventually([&] { return entries("PRIORITY=3").starts_with("wrong"); }, seconds(30)));
  CHECK(entries("CONTAINER_NAME=k8s_" + config.metadata().name() + "_" +
                pod_config.metadata().name() + "_" + pod_config.metadata().namespace_() + "_" +
                pod_config.metadata().uid() + "_0")
            .find("wrong") != std::string::npos);
  const std::string log = FileText(pod_config.log_directory() + "/" + config.log_path());
  CHECK(log.find(" stdout F to both") != std::string::npos);
  CHECK(log.find(" stderr F wrong") != std::string::npos);
}

TEST_CASE(
    "A limited log is written on through a restart of rund, by a process outside its unit's kill") {
  Vm vm;
  auto pod_config = vm.PodConfig("limited");
  (*pod_config.mutable_annotations())["crisp.logs/rate"] = "1MiB";
  const auto config = vm.ContainerConfig({"sh", "-c", "while :; do echo tick; sleep 0.2; done"});
  const std::string id = vm.Running(vm.Pod(pod_config), pod_config, config);
  const std::string path = pod_config.log_directory() + "/" + config.log_path();
  const std::string logger = Sh("pgrep -x crisp-log");
  Sh("systemctl restart crisp-rund@1");
  vm.WaitReady();
  CHECK(Sh("pgrep -x crisp-log") == logger);
  const std::size_t size = FileText(path).size();
  CHECK(Eventually([&] { return FileText(path).size() > size; }, seconds(20)));
  REQUIRE_OK(vm.cri.Stop(id, 0));
  CHECK(Eventually([] { return Sh("pgrep -xc crisp-log || true") == "0"; }, seconds(20)));
}

}  // namespace
}  // namespace crisp::harness
