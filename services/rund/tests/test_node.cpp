#include "services/rund/tests/test_node.h"

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <cstdlib>
#include <filesystem>

#include "libs/base/check.h"
#include "libs/os/files.h"
#include "libs/os/mount.h"
#include "services/rund/core/status.h"

namespace crisp::rund {

namespace cri = runtime::v1;
namespace fs = std::filesystem;

namespace {

void MakeRootfs(const std::string& rootfs) {
  for (const char* dir : {"/bin", "/etc", "/tmp", "/proc", "/dev", "/sys"}) {
    CRISP_CHECK(os::MakeDirs(rootfs + dir).ok());
  }
  fs::copy_file("/bin/busybox", rootfs + "/bin/busybox");
  for (const char* applet : {"sh", "sleep", "echo", "cat", "true", "false", "dd", "ps", "kill"}) {
    fs::create_hard_link(rootfs + "/bin/busybox", rootfs + "/bin/" + applet);
  }
  CRISP_CHECK(os::WriteFile(rootfs + "/etc/passwd", "root:x:0:0::/root:/bin/sh\n").ok());
  CRISP_CHECK(os::WriteFile(rootfs + "/etc/group", "root:x:0:\n").ok());
}

}  // namespace

TestNode::TestNode() {
  config_.layout = Layout::Make(root_ / "state", root_ / "run", "1");
  config_.conmon = "/usr/bin/conmon";
  config_.pause = CRISP_TEST_PAUSE;
  config_.exec_helper = CRISP_TEST_EXEC;
  config_.log_helper = CRISP_TEST_LOG;
  config_.default_runtime = "runc";
  config_.runtimes["runc"] = {runc_, config_.layout.RuntimesDir() + "/runc"};
  config_.capabilities = {"CHOWN", "KILL", "SETUID", "SETGID"};
  config_.runtime_timeout = std::chrono::seconds(30);
  // Where there is a systemd: see integration/vm.
  const char* driver = std::getenv("CRISP_TEST_CGROUP_DRIVER");
  config_.systemd_cgroups = driver != nullptr && std::string_view(driver) == "systemd";
  MakeRootfs(root_ / "rootfs");
  StartEngine();
}

TestNode::~TestNode() {
  KillAt("", false);
  if (!engine_) StartEngine();
  for (const PodRef& pod : state().Pods()) pods().Remove(Call(), PodId(pod->id())).ok();
  Stop();
}

void TestNode::StartEngine() {
  pool_ = std::make_unique<work::Pool>(pool_options_);
  auto engine = Engine::Open(config_, *pool_, Clock::System(), metrics_);
  if (!engine.ok()) FAIL(engine.status().ToString());
  engine_ = *std::move(engine);
  engine_->Continue();
}

void TestNode::Stop() {
  if (pool_) {
    // The engine's threads may still submit: refused, not lost in a pool that is gone.
    pool_->Stop();
    CHECK(pool_->WaitEnded(std::chrono::seconds(60)));
  }
  engine_.reset();
  pool_.reset();
}

std::future<Status> TestNode::BeginEnd(const ContainerId& id, std::chrono::seconds grace) {
  auto promise = std::make_shared<std::promise<Status>>();
  containers().Stop(id, grace, [promise](Result<std::uint64_t> seq) {
    promise->set_value(seq.ok() ? Status::Ok() : seq.status());
  });
  return promise->get_future();
}

Status TestNode::End(const ContainerId& id, std::chrono::seconds grace) {
  return BeginEnd(id, grace).get();
}

void TestNode::Restart() {
  Stop();
  StartEngine();
}

void TestNode::Reboot() {
  Stop();
  {
    auto records = Records::Open(config_.layout.DatabasePath());
    REQUIRE(records.ok());
    REQUIRE(records->SetBootId("another boot").ok());
  }
  StartEngine();
}

bool TestNode::RunAndDie(const std::function<void(TestNode&)>& fn) {
  Stop();
  const pid_t child = fork();
  if (child == 0) {
    StartEngine();
    os::WriteFile(root_ / "daemon.pid", std::to_string(getpid())).ok();
    fn(*this);
    _exit(0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  KillAt("", false);
  StartEngine();
  return WIFSIGNALED(status);
}

void TestNode::KillAt(const std::string& command, bool after) {
  if (command.empty()) {
    config_.runtimes["runc"].path = runc_;
    return;
  }
  const std::string run = runc_ + " \"$@\"";
  const std::string kill_it = "kill -9 $(cat " + (root_ / "daemon.pid") + ")";
  const std::string body = "case \" $* \" in *\" " + command + " \"*) " +
                           (after ? run + "; " + kill_it : kill_it + "; exec " + run) +
                           " ;; *) exec " + run + " ;; esac\n";
  config_.runtimes["runc"].path = root_.Script("runc", body);
}

void TestNode::UseRuntime(const std::string& path) {
  runc_ = path;
  config_.runtimes["runc"].path = path;
}

void TestNode::FailAt(const std::string& command, const std::string& words) {
  Instead(command, "echo '" + words + "' >&2; exit 1");
}

void TestNode::Instead(const std::string& command, const std::string& script) {
  const std::string body = "case \" $* \" in *\" " + command + " \"*) " + script + " ;; *) exec " +
                           runc_ + " \"$@\" ;; esac\n";
  config_.runtimes["runc"].path = root_.Script("runc", body);
}

cri::PodSandboxConfig TestNode::SandboxConfig(const PodId& pod) const {
  cri::PodSandboxConfig config;
  config.mutable_metadata()->set_name(pod.str());
  config.mutable_metadata()->set_namespace_("test");
  config.mutable_metadata()->set_uid("uid");
  config.set_log_directory(root_ / "logs");
  auto* context = config.mutable_linux()->mutable_security_context();
  context->mutable_namespace_options()->set_network(cri::NODE);
  context->mutable_namespace_options()->set_pid(cri::CONTAINER);
  return config;
}

PodId TestNode::Pod(const std::string& name,
                    const std::function<void(cri::PodSandboxConfig&)>& change) {
  v1::ReservePodRequest reserve;
  reserve.set_pod_id(ids_.Next());
  all_ids_.push_back(reserve.pod_id());
  const PodId id(reserve.pod_id());
  cri::PodSandboxConfig config = SandboxConfig(id);
  config.mutable_metadata()->set_name(name);
  if (change) change(config);
  *reserve.mutable_metadata() = config.metadata();
  const auto reserved = pods().Reserve(reserve);
  if (!reserved.ok()) FAIL(reserved.status().ToString());
  v1::PreparePodRequest prepare;
  prepare.set_pod_id(id.str());
  *prepare.mutable_config() = config;
  const auto prepared = pods().Prepare(Call(), prepare);
  if (!prepared.ok()) FAIL(prepared.status().ToString());
  v1::StartPodRequest start;
  start.set_pod_id(id.str());
  const auto started = pods().Start(Call(), start);
  if (!started.ok()) FAIL(started.status().ToString());
  return id;
}

ContainerId TestNode::Reserve(const PodId& pod, const std::string& name) {
  v1::ReserveContainerRequest request;
  request.set_container_id(ids_.Next());
  request.set_pod_id(pod.str());
  request.mutable_metadata()->set_name(name);
  const auto reserved = containers().Reserve(request);
  if (!reserved.ok()) FAIL(reserved.status().ToString());
  all_ids_.push_back(reserved->container_id());
  return ContainerId(reserved->container_id());
}

v1::CreateContainerRequest TestNode::CreateRequest(const PodId& pod, const ContainerId& id,
                                                   const ContainerOptions& options) {
  v1::CreateContainerRequest request;
  request.set_container_id(id.str());
  *request.mutable_sandbox_config() = SandboxConfig(pod);
  if (const PodRef record = state().FindPod(pod)) {
    *request.mutable_sandbox_config() = record->config();
  }
  cri::ContainerConfig& config = *request.mutable_config();
  config.mutable_metadata()->set_name(options.name);
  config.mutable_image()->set_image("busybox");
  for (const std::string& word : options.command) config.add_command(word);
  config.set_log_path(options.log_path);
  *config.mutable_linux()->mutable_security_context()->mutable_namespace_options() =
      request.sandbox_config().linux().security_context().namespace_options();
  if (options.change) options.change(config);
  auto& image = *request.mutable_image();
  image.set_image_id("sha256:" + std::string(64, 'a'));
  image.set_image_ref("registry.test/busybox@sha256:" + std::string(64, 'b'));
  image.set_config_json(R"({"config":{"Env":["PATH=/bin"],"Cmd":["sh"]}})");
  auto& mount = *image.add_mounts();
  mount.set_kind("bind");
  mount.set_source(root_ / "rootfs");
  return request;
}

ContainerId TestNode::Create(const PodId& pod, const ContainerOptions& options) {
  const ContainerId id = Reserve(pod, options.name);
  const auto created = containers().Create(Call(), CreateRequest(pod, id, options));
  if (!created.ok()) FAIL(created.status().ToString());
  return id;
}

ContainerId TestNode::Run(const PodId& pod, const ContainerOptions& options) {
  const ContainerId id = Create(pod, options);
  const auto started = containers().Start(Call(), id);
  if (!started.ok()) FAIL(started.status().ToString());
  return id;
}

cri::ContainerStatus TestNode::StatusOf(const ContainerId& id) {
  const auto response = containers().GetStatus(id, false);
  if (!response.ok()) FAIL(response.status().ToString());
  return response->status();
}

cri::ContainerStatus TestNode::Exited(const ContainerId& id) {
  Await([&] { return StatusOf(id).state() == cri::CONTAINER_EXITED; });
  return StatusOf(id);
}

void TestNode::Await(const std::function<bool()>& done) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!done()) {
    if (std::chrono::steady_clock::now() > end) FAIL("what was waited for did not happen");
    poll(nullptr, 0, 2);
  }
}

std::string TestNode::Log(const std::string& log_path) const {
  return root_.Read("logs/" + log_path);
}

std::vector<std::string> TestNode::Leftovers() const {
  std::vector<std::string> found;
  const auto mounts = os::ReadMounts();
  for (const os::MountEntry& mount : *mounts) {
    if (mount.mount_point.starts_with(root_.path())) found.push_back("mount " + mount.mount_point);
  }
  const auto ours = [this](const std::string& text) {
    for (const std::string& id : all_ids_) {
      if (text.find(id) != std::string::npos) return true;
    }
    return false;
  };
  for (const std::string& controller : os::ListDir("/sys/fs/cgroup").value_or({})) {
    const std::string dir = "/sys/fs/cgroup/" + controller;
    for (const std::string& name : os::ListDir(dir).value_or({})) {
      if (ours(name)) found.push_back("cgroup " + dir + "/" + name);
    }
  }
  for (const std::string& pid : os::ListDir("/proc").value_or({})) {
    if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
    const std::string command = os::ReadFile("/proc/" + pid + "/cmdline").value_or("");
    if (ours(command)) found.push_back("process " + pid + " " + command);
  }
  for (const std::string& dir : {layout().ContainersDir(), layout().PodsDir(), layout().ExitsDir(),
                                 layout().VolumesDir(), layout().RuntimesDir() + "/runc"}) {
    for (const std::string& name : os::ListDir(dir).value_or({})) {
      found.push_back(dir + "/" + name);
    }
  }
  return found;
}

bool IsEmpty(const std::vector<std::string>& leftovers) {
  for (const std::string& what : leftovers) UNSCOPED_INFO(what);
  return leftovers.empty();
}

void RemovePod(TestNode& node, const PodId& pod) {
  const auto removed = node.pods().Remove(TestNode::Call(), pod);
  if (!removed.ok()) FAIL(removed.status().ToString());
}

}  // namespace crisp::rund
