#define CATCH_CONFIG_EXTERNAL_INTERFACES
#include "integration/vm/vm_node.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "libs/os/cgroup.h"
#include "libs/os/files.h"
#include "libs/os/mount.h"

namespace crisp::harness {
namespace {

namespace fs = std::filesystem;
using std::chrono::seconds;

/// Software emulation is about twenty times slower than the machine that it runs on.
constexpr seconds kPatience{60};

std::string Environment(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : value;
}

/// One line for each test case, which integration/vm/run shows and counts.
struct Lines final : Catch::TestEventListenerBase {
  using TestEventListenerBase::TestEventListenerBase;
  void testCaseEnded(const Catch::TestCaseStats& stats) override {
    const bool passed = stats.totals.assertions.allPassed() && !stats.aborting;
    Catch::cout() << (passed ? "PASS " : "FAIL ") << (Vm::systemd() ? "systemd" : "cgroupfs") << '/'
                  << Vm::handler() << ": " << stats.testInfo.name << std::endl;
  }
};

/// "kubepods-burstable-podX.slice" → "/kubepods.slice/kubepods-burstable.slice/…".
std::string Expanded(const std::string& slice) {
  std::string path;
  for (std::size_t dash = slice.find('-'); dash != std::string::npos;
       dash = slice.find('-', dash + 1)) {
    path += "/" + slice.substr(0, dash) + ".slice";
  }
  return path + "/" + slice;
}

}  // namespace

CATCH_REGISTER_LISTENER(Lines)

std::string FileText(const std::string& path) {
  std::string text = os::ReadFile(path).value_or("(none)");
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

std::string Sh(const std::string& script) {
  const Ran ran = RunProgram({"sh", "-c", script}, kPatience);
  INFO(script << ": " << ran.err);
  CHECK(ran.code == 0);
  std::string text = ran.out;
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

bool Vm::systemd() { return Environment("CRISP_VM_DRIVER", "cgroupfs") == "systemd"; }

const std::string& Vm::handler() {
  static const std::string name = Environment("CRISP_VM_HANDLER", "runc");
  return name;
}

Vm::Vm() { WaitReady(); }

Vm::~Vm() {
  const auto pods = cri.ListPods();
  for (const auto& pod : pods->items()) {
    const auto removed = cri.RemovePod(pod.id());
    if (!removed.ok()) UNSCOPED_INFO("remove pod: " << Describe(removed.status));
    CHECK(removed.ok());
  }
  std::vector<std::string> left;
  Eventually([&] { return (left = Leftovers()).empty(); }, seconds(20));
  for (const std::string& line : left) UNSCOPED_INFO(line);
  CHECK(left.empty());
  for (const std::string& parent : parents_) {
    // What the kubelet does with its pods' cgroups.
    if (systemd()) RunProgram({"systemctl", "stop", parent.substr(parent.rfind('/') + 1)});
    std::error_code error;
    fs::remove("/sys/fs/cgroup" + parent, error);
    CHECK_FALSE(os::Exists("/sys/fs/cgroup" + parent));
  }
}

std::string Vm::MakePodCgroup(const std::string& uid) {
  std::string parent;
  if (systemd()) {
    const std::string slice = "kubepods-burstable-pod" + uid + ".slice";
    Sh("busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 "
       "org.freedesktop.systemd1.Manager StartTransientUnit 'ssa(sv)a(sa(sv))' " +
       slice + " replace 4 MemoryAccounting b true CPUAccounting b true TasksAccounting b true " +
       "IOAccounting b true 0");
    parent = Expanded(slice);
    Eventually([&] { return os::Exists("/sys/fs/cgroup" + parent); });
  } else {
    parent = "/kubepods/burstable/pod" + uid;
    const auto cgroups = os::Cgroups::Detect();
    REQUIRE(cgroups.ok());
    const Status made = cgroups->Create(parent);
    INFO(made.ToString());
    REQUIRE(made.ok());
  }
  parents_.push_back(parent);
  return parent;
}

cri::PodSandboxConfig Vm::PodConfig(const std::string& name) {
  static int counter = 0;
  const std::string unique = name + std::to_string(::getpid()) + "n" + std::to_string(++counter);
  cri::PodSandboxConfig config;
  config.mutable_metadata()->set_name(unique);
  config.mutable_metadata()->set_uid("uid" + unique);
  config.mutable_metadata()->set_namespace_("tests");
  config.set_hostname(name);
  config.set_log_directory("/var/log/pods/" + unique);
  config.mutable_linux()->set_cgroup_parent(MakePodCgroup(unique));
  auto* namespaces =
      config.mutable_linux()->mutable_security_context()->mutable_namespace_options();
  namespaces->set_network(cri::NamespaceMode::NODE);
  namespaces->set_pid(cri::NamespaceMode::CONTAINER);
  return config;
}

cri::ContainerConfig Vm::ContainerConfig(const std::vector<std::string>& command) {
  cri::ContainerConfig config;
  config.mutable_metadata()->set_name("c");
  config.mutable_image()->set_image(kImage);
  for (const std::string& word : command) config.add_command(word);
  config.set_log_path("c/0.log");
  auto* namespaces =
      config.mutable_linux()->mutable_security_context()->mutable_namespace_options();
  namespaces->set_network(cri::NamespaceMode::NODE);
  namespaces->set_pid(cri::NamespaceMode::CONTAINER);
  return config;
}

std::string Vm::Pod(const cri::PodSandboxConfig& config) {
  const auto answer = cri.RunPod(config, handler());
  REQUIRE_OK(answer);
  Remember(answer->pod_sandbox_id());
  return answer->pod_sandbox_id();
}

std::string Vm::Created(const std::string& pod, const cri::PodSandboxConfig& pod_config,
                        const cri::ContainerConfig& config) {
  const auto answer = cri.Create(pod, config, pod_config);
  REQUIRE_OK(answer);
  Remember(answer->container_id());
  return answer->container_id();
}

std::string Vm::Running(const std::string& pod, const cri::PodSandboxConfig& pod_config,
                        const cri::ContainerConfig& config) {
  const std::string id = Created(pod, pod_config, config);
  REQUIRE_OK(cri.Start(id));
  return id;
}

cri::ContainerStatus Vm::StatusOf(const std::string& container) const {
  const auto answer = cri.ContainerStatus(container);
  REQUIRE_OK(answer);
  return answer->status();
}

cri::ContainerStatus Vm::Exited(const std::string& container) const {
  const bool exited = Eventually(
      [&] { return StatusOf(container).state() == cri::ContainerState::CONTAINER_EXITED; },
      kPatience);
  CHECK(exited);
  return StatusOf(container);
}

std::string Vm::Said(const std::string& container, const std::string& script) const {
  const auto answer = cri.ExecSync(container, {"sh", "-c", script}, kPatience.count());
  INFO(script << ": " << Describe(answer.status) << answer->stderr());
  CHECK(answer.ok());
  CHECK(answer->exit_code() == 0);
  std::string text = answer->stdout();
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

int Vm::Pid(const std::string& container) const {
  const auto answer = cri.ContainerStatus(container, true);
  REQUIRE_OK(answer);
  return nlohmann::json::parse(answer->info().at("info")).at("pid").get<int>();
}

std::string Vm::CgroupDir(const std::string& container) const {
  const auto path = os::CgroupOf(Pid(container), "");
  INFO(path.status().ToString());
  REQUIRE(path.ok());
  return "/sys/fs/cgroup" + *path;
}

std::string Vm::CgroupFile(const std::string& container, const std::string& file) const {
  return FileText(CgroupDir(container) + "/" + file);
}

std::vector<std::string> Vm::Leftovers() const {
  std::vector<std::string> found;
  const auto ours = [this](const std::string& text) {
    return std::any_of(ids_.begin(), ids_.end(),
                       [&](const std::string& id) { return text.find(id) != std::string::npos; });
  };
  const auto mounts = os::ReadMounts();
  for (const os::MountEntry& mount : mounts.value()) {
    if (ours(mount.mount_point)) found.push_back("mount " + mount.mount_point);
  }
  std::error_code error;
  for (fs::recursive_directory_iterator walk("/sys/fs/cgroup", error), end; walk != end;
       walk.increment(error)) {
    if (error) break;
    if (ours(walk->path().filename())) found.push_back("cgroup " + walk->path().string());
  }
  for (const char* top : {"/run/crisp/rund", "/var/lib/crisp/rund", "/run/systemd/transient"}) {
    for (fs::recursive_directory_iterator walk(top, error), end; walk != end;
         walk.increment(error)) {
      if (error) break;
      if (ours(walk->path().filename())) found.push_back("file " + walk->path().string());
    }
  }
  for (const std::string& pid : os::ListDir("/proc").value_or({})) {
    if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
    const std::string command = os::ReadFile("/proc/" + pid + "/cmdline").value_or("");
    if (ours(command)) found.push_back("process " + pid + " " + command);
  }
  const Ran units = RunProgram(
      {"systemctl", "list-units", "--all", "--plain", "--no-legend", "--full", "*crisp-*"});
  for (const std::string& id : ids_) {
    const std::size_t at = units.out.find(id);
    if (at != std::string::npos) {
      const std::size_t line = units.out.rfind('\n', at) + 1;
      found.push_back("unit " + units.out.substr(line, units.out.find('\n', at) - line));
    }
  }
  return found;
}

void Vm::KillDaemon(const std::string& service) {
  Sh("systemctl kill --kill-whom=main --signal=KILL " + service);
  WaitReady();
}

void Vm::WaitReady() const {
  const bool ready = Eventually(
      [&] {
        const auto status = cri.Status(false, seconds(5));
        if (!status.ok() || status->status().conditions().empty()) return false;
        const auto& conditions = status->status().conditions();
        return std::all_of(conditions.begin(), conditions.end(),
                           [](const auto& condition) { return condition.status(); });
      },
      kPatience);
  if (ready) return;
  const Ran journal = RunProgram({"journalctl", "-n", "30", "--no-pager", "-o", "cat"});
  FAIL("the node does not get ready:\n" << journal.out);
}

}  // namespace crisp::harness
