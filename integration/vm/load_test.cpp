// A node at work while systemd and dpkg do with our daemons what they do on a node.
#include <iostream>

#include "integration/vm/load.h"
#include "integration/vm/vm_node.h"
#include "libs/os/files.h"

namespace crisp::harness {
namespace {

using std::chrono::seconds;

/// Some pods that stay, among those that come and go.
class Residents {
 public:
  explicit Residents(Vm& vm) : vm_(vm) {
    for (int number = 0; number < 3; ++number) {
      auto config = vm.PodConfig("resident");
      config.mutable_linux()->clear_cgroup_parent();
      Options(config)->set_network(cri::NamespaceMode::POD);
      auto container = vm.ContainerConfig({"sleep", "100000"});
      Options(container)->set_network(cri::NamespaceMode::POD);
      const std::string id = vm.Running(vm.Pod(config), config, container);
      pids_.emplace_back(id, vm.Pid(id));
    }
  }

  void CheckAlive() const {
    for (const auto& [id, pid] : pids_) {
      CHECK(vm_.StatusOf(id).state() == cri::ContainerState::CONTAINER_RUNNING);
      CHECK(vm_.Pid(id) == pid);
      CHECK(vm_.Said(id, "echo here") == "here");
    }
  }

 private:
  template <typename Config>
  static cri::NamespaceOption* Options(Config& config) {
    return config.mutable_linux()->mutable_security_context()->mutable_namespace_options();
  }

  Vm& vm_;
  std::vector<std::pair<std::string, int>> pids_;
};

Load::Options LoadOptions() { return {.handler = Vm::handler(), .image = std::string(Vm::kImage)}; }

/// Its end, with nothing to complain about; what it did is a line of the run.
void CheckQuiet(Vm& vm, Load& load, const std::string& name) {
  const Load::Report report = load.End();
  for (const std::string& id : report.ids) vm.Remember(id);
  std::cout << "# " << name << ": " << report.pods << " pods, " << report.calls << " calls, "
            << report.excused << " of them tried again" << std::endl;
  CHECK(report.complaints == std::vector<std::string>());
}

/// A program that may take minutes here.
void Run(const std::vector<std::string>& argv) {
  const Ran ran = RunProgram(argv, seconds(600));
  INFO(ran.out << ran.err);
  CHECK(ran.code == 0);
}

int ProcessesOf(const std::string& unit) {
  return std::stoi(
      Sh("cat $(find /sys/fs/cgroup/crisp.slice/" + unit + ".service -name cgroup.procs) | wc -l"));
}

TEST_CASE("Restarts of each daemon by systemd under load: no pod dies, other calls succeed",
          "[.load]") {
  Vm vm;
  const Residents residents(vm);
  Load load(LoadOptions());
  REQUIRE(load.AwaitPods(3));
  for (const std::string daemon : {"crid", "netd", "imaged", "rund"}) {
    INFO(daemon);
    {
      const auto away = load.Away(daemon);
      Run({"systemctl", "restart", "crisp-" + daemon + (daemon == "crid" ? "" : "@1")});
      vm.WaitReady();
    }
    CHECK(load.AwaitPods(5));
    residents.CheckAlive();
  }
  CheckQuiet(vm, load, "restarts");
}

TEST_CASE("One, three and one instance of rund and imaged under load", "[.load]") {
  Vm vm;
  const Residents residents(vm);
  Load load(LoadOptions());
  REQUIRE(load.AwaitPods(3));
  Run({"systemctl", "start", "crisp-rund@2", "crisp-rund@3", "crisp-imaged@2", "crisp-imaged@3"});
  // New pods go to all of them.
  CHECK(
      Eventually([] { return ProcessesOf("crisp-rund@2") > 1 && ProcessesOf("crisp-rund@3") > 1; },
                 seconds(300)));
  {
    const auto away = load.Away("imaged");
    Run({"systemctl", "stop", "crisp-imaged@2", "crisp-imaged@3"});
  }
  CHECK(load.AwaitPods(5));
  {
    // Their pods run on, and wait for them; the others come and go.
    const auto away = load.Away("rund");
    const int monitors = ProcessesOf("crisp-rund@2") - 1;
    Run({"systemctl", "stop", "crisp-rund@2"});
    CHECK(ProcessesOf("crisp-rund@2") >= monitors);
    CHECK(load.AwaitPods(5));
    residents.CheckAlive();
    Run({"systemctl", "start", "crisp-rund@2"});
    vm.WaitReady();
  }
  CHECK(load.AwaitPods(5));
  CheckQuiet(vm, load, "instances");
  // With nothing on record they leave for good.
  Run({"systemctl", "stop", "crisp-rund@2", "crisp-rund@3"});
  CHECK(Eventually([] { return RunProgram({"crispctl", "status"}).code == 0; }, seconds(60)));
  residents.CheckAlive();
}

TEST_CASE("An upgrade of the packages, one by one, under load", "[.upgrade]") {
  Vm vm;
  const Residents residents(vm);
  Load load(LoadOptions());
  REQUIRE(load.AwaitPods(3));
  const auto packages = os::ListDir("/var/crisp-vm/newer");
  REQUIRE(packages.ok());
  REQUIRE_FALSE(packages->empty());
  const std::string before = Sh("systemctl show -P MainPID crisp-rund@1");
  for (const std::string& package : *packages) {
    const auto rund = load.Away("rund");
    const auto netd = load.Away("netd");
    const auto imaged = load.Away("imaged");
    Run({"apt-get", "-q", "-y", "install", "/var/crisp-vm/newer/" + package});
    vm.WaitReady();
  }
  CHECK(load.AwaitPods(5));
  residents.CheckAlive();
  CheckQuiet(vm, load, "upgrade");
  CHECK(Sh("dpkg-query -W -f '${Version}' crisp").ends_with(".1"));
  CHECK(Sh("systemctl show -P MainPID crisp-rund@1") != before);
  for (const std::string unit : {"crisp-crid", "crisp-netd@1", "crisp-imaged@1", "crisp-rund@1"}) {
    INFO(unit);
    CHECK(Sh("readlink /proc/$(systemctl show -P MainPID " + unit + ")/exe").find("(deleted)") ==
          std::string::npos);
  }
}

}  // namespace
}  // namespace crisp::harness
