#include "integration/harness/node.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <thread>

#include "libs/base/call_context.h"
#include "libs/os/files.h"
#include "libs/os/mount.h"
#include "libs/os/proc_stat.h"
#include "libs/process/command.h"

namespace crisp::harness {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::array kServices = {"crid", "imaged", "netd", "rund"};

template <typename T>
T Must(Result<T> result) {
  if (!result.ok()) throw std::runtime_error(result.status().ToString());
  return std::move(result).value();
}
void Must(const Status& status) {
  if (!status.ok()) throw std::runtime_error(status.ToString());
}

std::string ReadOrEmpty(const std::string& path) {
  return os::ReadFile(path, MiB(64)).value_or(std::string());
}

std::string Trimmed(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines;
  std::size_t start = 0;
  while (start < text.size()) {
    const std::size_t end = std::min(text.find('\n', start), text.size());
    lines.push_back(text.substr(start, end - start));
    start = end + 1;
  }
  return lines;
}

process::Command CommandOf(const std::vector<std::string>& argv) {
  process::Command command;
  command.program = "/usr/bin/env";
  command.args = argv;
  command.env = process::PlainEnvironment();
  command.env.push_back("CRISP_BUILD_DIR=" CRISP_BUILD_DIR);
  command.env.push_back("HOME=/root");
  return command;
}

/// Started and left to itself; stdout and stderr go to `log`.
pid_t SpawnTo(const std::vector<std::string>& argv, const std::string& log) {
  process::Command command = CommandOf(argv);
  const os::UniqueFd out = Must(os::Open(log, O_WRONLY | O_CREAT | O_APPEND, 0644));
  command.out_fd = out.get();
  command.err_fd = out.get();
  return Must(process::Spawn(command)).pid();
}

/// The link of a namespace file: "pid:[4026532]"; empty when the process is gone.
std::string NamespaceOf(const std::string& pid, const char* kind) {
  return os::ReadLink("/proc/" + pid + "/ns/" + kind).value_or(std::string());
}

bool HasAny(const std::string& text, const std::set<std::string>& words) {
  return std::any_of(words.begin(), words.end(),
                     [&](const std::string& word) { return text.find(word) != std::string::npos; });
}

/// Names below `root` with one of the words in them; does not follow symlinks.
void FindNames(const std::string& root, const std::set<std::string>& words,
               const std::set<std::string>& skip, std::vector<std::string>& found) {
  std::error_code error;
  fs::recursive_directory_iterator walk(root, fs::directory_options::skip_permission_denied, error);
  for (; !error && walk != fs::recursive_directory_iterator(); walk.increment(error)) {
    const std::string name = walk->path().filename().string();
    if (skip.contains(name)) {
      walk.disable_recursion_pending();
    } else if (HasAny(name, words)) {
      found.push_back(walk->path().string());
      walk.disable_recursion_pending();
    }
  }
}

void RemoveCgroupsOf(const std::string& cgroup) {
  std::vector<std::string> roots = {"/sys/fs/cgroup" + cgroup};
  for (const auto& entry : fs::directory_iterator("/sys/fs/cgroup")) {
    if (entry.is_directory()) roots.push_back(entry.path().string() + cgroup);
  }
  for (const std::string& root : roots) {
    std::vector<std::string> directories = {root};
    std::error_code error;
    for (fs::recursive_directory_iterator walk(root, error);
         !error && walk != fs::recursive_directory_iterator(); walk.increment(error)) {
      if (walk->is_directory(error)) directories.push_back(walk->path().string());
    }
    for (auto it = directories.rbegin(); it != directories.rend(); ++it) ::rmdir(it->c_str());
  }
}

constexpr const char* kOwner = "/owner";

/// What tests that were killed left: cgroups and directories (the kernel took the rest).
void SweepAfterKilled() {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/tmp", error)) {
    const std::string name = entry.path().filename().string();
    const std::string owner = Trimmed(ReadOrEmpty(entry.path().string() + kOwner));
    if (!name.starts_with("crisp-t.") || owner.empty() || fs::exists("/proc/" + owner)) continue;
    RemoveCgroupsOf("/" + name);
    static_cast<void>(os::RemoveTree(entry.path().string()));
  }
}

}  // namespace

Ran RunProgram(const std::vector<std::string>& argv, seconds timeout) {
  const Result<process::Output> ran =
      process::Run(CallContext::Background(timeout), CommandOf(argv), {.max_output = MiB(16)});
  if (!ran.ok() && ran.code() == Code::kDeadlineExceeded) {
    return {137, "", "time limit: " + ran.status().message()};
  }
  if (!ran.ok()) throw std::runtime_error(argv.at(0) + ": " + ran.status().ToString());
  return {ran->exit_code, ran->out, ran->err};
}

bool Eventually(const std::function<bool()>& done, milliseconds timeout) {
  const auto end = std::chrono::steady_clock::now() + timeout;
  while (!done()) {
    if (std::chrono::steady_clock::now() >= end) return done();
    std::this_thread::sleep_for(milliseconds(5));
  }
  return true;
}

Node::Node(NodeOptions options) : options_(std::move(options)), registry_("127.0.0.1:5000") {
  SweepAfterKilled();
  std::string name = "/tmp/crisp-t.XXXXXX";
  if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp " + name);
  // As /run and /var are: containers with a user namespace of their own go through it.
  fs::permissions(name, fs::perms{0711});
  dir_ = name;
  cgroup_ = "/" + fs::path(dir_).filename().string();
  Must(os::WriteFile(dir_ + kOwner, std::to_string(::getpid())));
  try {
    StartHolder();
    CreateCgroup();
    Configure();
    StartRegistry();
    if (options_.start) StartDaemons();
  } catch (...) {
    if (unshare_ > 0) ::kill(unshare_, SIGKILL);
    throw;
  }
}

Node::~Node() {
  try {
    // run-local would start them again.
    const std::string run_local = Trimmed(ReadOrEmpty(dir_ + "/pid/run-local"));
    if (!run_local.empty()) StopDaemons();
  } catch (const std::exception&) {
    // The kernel does it: see below.
  }
  // The first process of the pid namespace goes, and everything in it.
  const std::string holder = std::to_string(holder_);
  if (unshare_ > 0) ::kill(unshare_, SIGKILL);
  Eventually([&] { return !fs::exists("/proc/" + holder + "/ns"); });
  RemoveCgroupsOf(cgroup_);
  if (std::getenv("CRISP_KEEP") == nullptr) static_cast<void>(os::RemoveTree(dir_));
}

void Node::StartHolder() {
  std::string script = "ip link set lo up && ";
  if (options_.without_unified) {
    script += "{ ! mountpoint -q /sys/fs/cgroup/unified || umount /sys/fs/cgroup/unified; } && ";
  }
  script += "touch " + dir_ + "/held && while :; do tail -f /dev/null & wait; done";
  // SIGKILL of the test ends setpriv's child, that ends its child, and that is the namespace's
  // init.
  unshare_ = SpawnTo(
      {"setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--net", "--pid", "--fork",
       "--kill-child=KILL", "--mount-proc", "--propagation", "private", "bash", "-c", script},
      dir_ + "/holder.log");
  const bool held = Eventually([&] { return os::Exists(dir_ + "/held"); });
  const std::vector<pid_t> children = os::Children(unshare_).value_or({});
  if (!held || children.empty()) {
    throw std::runtime_error("namespaces of the node: " + ReadOrEmpty(dir_ + "/holder.log"));
  }
  holder_ = children.front();
  for (const std::string& mount : Mounts()) base_mounts_.insert(mount);
}

void Node::Configure() const {
  const Ran ran = RunProgram({CRISP_SOURCE_DIR "/scripts/run-local", "--conf-only", dir_});
  if (ran.code != 0) throw std::runtime_error("run-local --conf-only: " + ran.err);
  Must(os::MakeDirs(dir_ + "/crisp.yaml.d"));
  // The same tests, with another storage driver.
  if (const char* driver = std::getenv("CRISP_TEST_DRIVER"))
    Must(os::WriteFile(dir_ + "/crisp.yaml.d/05-driver.yaml",
                       fmt::format("imaged:\n  driver: {}\n", driver)));
  if (options_.yaml.empty()) return;
  Must(os::WriteFile(dir_ + "/crisp.yaml.d/10-test.yaml", options_.yaml));
}

void Node::CreateCgroup() const {
  // As a kubelet does: in every hierarchy there is.
  for (const auto& entry : fs::directory_iterator("/sys/fs/cgroup")) {
    std::error_code ignored;
    if (entry.is_directory() && !entry.is_symlink()) {
      fs::create_directory(entry.path() / cgroup_.substr(1), ignored);
    }
  }
  if (fs::exists("/sys/fs/cgroup/cgroup.controllers")) {
    std::error_code ignored;
    fs::create_directory("/sys/fs/cgroup" + cgroup_, ignored);
  }
  const std::string cpuset = "/sys/fs/cgroup/cpuset";
  for (const char* file : {"cpuset.cpus", "cpuset.mems"}) {
    const std::string value = ReadOrEmpty(cpuset + "/" + file);
    if (!value.empty()) {
      static_cast<void>(os::WriteFile(cpuset + cgroup_ + "/" + file, Trimmed(value)));
    }
  }
}

void Node::StartRegistry() {
  const std::string root = dir_ + "/registry";
  Must(os::MakeDirs(root + "/data"));
  Must(os::WriteFile(root + "/config.yml",
                     "version: 0.1\nlog: {level: warn, accesslog: {disabled: true}}\n"
                     "storage:\n  filesystem: {rootdirectory: " +
                         root + "/data}\n  delete: {enabled: true}\nhttp:\n  addr: " + registry_ +
                         "\n"));
  const std::string holder = std::to_string(holder_);
  SpawnTo({"nsenter", "-t", holder, "-m", "-n", "-p", "bash", "-c",
           "echo $$ > " + root + "/pid; exec docker-registry serve " + root + "/config.yml"},
          root + "/log");
  const bool up = Eventually([&] {
    return Inside({"busybox", "wget", "-q", "-O", "/dev/null", "http://" + registry_ + "/v2/"})
               .code == 0;
  });
  if (!up) throw std::runtime_error("registry: " + ReadOrEmpty(root + "/log"));
}

void Node::StartDaemons() {
  static_cast<void>(os::RemoveFile(dir_ + "/run-local.log"));
  SpawnTo({"nsenter", "-t", std::to_string(holder_), "-m", "-n", "-p",
           std::string(CRISP_SOURCE_DIR) + "/scripts/run-local", dir_},
          dir_ + "/run-local.log");
  const auto log = [&] { return ReadOrEmpty(dir_ + "/run-local.log"); };
  const bool answered = Eventually(
      [&] {
        const std::string text = log();
        return text.find("ready unix://") != std::string::npos ||
               text.find("not healthy") != std::string::npos ||
               text.find("run-local:") != std::string::npos;
      },
      seconds(60));
  if (!answered || log().find("ready unix://") == std::string::npos) {
    throw std::runtime_error("run-local: " + log() + Logs());
  }
  if (cri_ == nullptr) cri_ = NewClient();  // tests hold references
}

int Node::StopDaemons() {
  const std::string pid = Trimmed(ReadOrEmpty(dir_ + "/pid/run-local"));
  Inside({"kill", "-TERM", pid});
  const bool gone = Eventually([&] { return !os::Exists(dir_ + "/pid/run-local"); }, seconds(30));
  return gone ? 0 : 1;
}

std::string Node::DaemonPid(const std::string& service) const {
  return Trimmed(ReadOrEmpty(dir_ + "/pid/" + service));
}

void Node::Signal(const std::string& service, const std::string& signal) const {
  const std::string pid = DaemonPid(service);
  const Ran ran = Inside({"kill", "-" + signal, pid});
  if (ran.code != 0) throw std::runtime_error("kill " + service + " " + pid + ": " + ran.err);
}

std::shared_ptr<void> Node::Away(const std::string& service) {
  const std::string hold = dir_ + "/pid/" + service + ".hold";
  Must(os::WriteFile(hold, ""));
  const std::string pid = DaemonPid(service);
  KillDaemon(service);
  Eventually([&] { return DaemonPid(service) != pid; });
  return {nullptr, [this, hold](void*) {
            static_cast<void>(os::RemoveFile(hold));
            WaitReady();
          }};
}

void Node::WaitReady(seconds timeout) const {
  const bool ready = Eventually(
      [&] {
        const auto status = cri_->Status(false, seconds(2));
        if (!status.ok() || status->status().conditions().empty()) return false;
        const auto& conditions = status->status().conditions();
        return std::all_of(conditions.begin(), conditions.end(),
                           [](const auto& condition) { return condition.status(); });
      },
      timeout);
  if (!ready) throw std::runtime_error("the node does not get ready:\n" + Logs());
}

Ran Node::Inside(const std::vector<std::string>& argv, seconds timeout) const {
  std::vector<std::string> all = {"nsenter", "-t", std::to_string(holder_), "-m", "-n", "-p", "--"};
  all.insert(all.end(), argv.begin(), argv.end());
  return RunProgram(all, timeout);
}

nlohmann::json Node::MakeImage(const std::string& name,
                               const std::vector<std::string>& options) const {
  std::string ref = registry_;
  ref += "/" + name;
  std::vector<std::string> argv = {CRISP_SOURCE_DIR "/scripts/make-image", "--push", ref};
  argv.insert(argv.end(), options.begin(), options.end());
  const Ran ran = Inside(argv, seconds(300));
  if (ran.code != 0) throw std::runtime_error("make-image: " + ran.err);
  nlohmann::json made = nlohmann::json::parse(ran.out);
  made["ref"] = ref;
  return made;
}

const std::string& Node::Busybox() {
  if (busybox_.empty()) {
    MakeImage("busybox:1", {});
    busybox_ = registry_ + "/busybox:1";
  }
  if (!cri_->ImageStatus(busybox_)->has_image()) {
    const auto pulled = cri_->Pull(busybox_);
    if (!pulled.ok()) throw std::runtime_error("pull busybox: " + Describe(pulled.status));
  }
  return busybox_;
}

cri::PodSandboxConfig Node::PodConfig(const std::string& name, bool host_network) {
  cri::PodSandboxConfig config;
  const std::string unique = name + "-" + std::to_string(++counter_);
  config.mutable_metadata()->set_name(unique);
  config.mutable_metadata()->set_uid("uid-" + unique);
  config.mutable_metadata()->set_namespace_("tests");
  config.set_hostname(name);
  config.set_log_directory(dir_ + "/logs/" + unique);
  auto* linux_config = config.mutable_linux();
  linux_config->set_cgroup_parent(cgroup_);
  auto* namespaces = linux_config->mutable_security_context()->mutable_namespace_options();
  namespaces->set_network(host_network ? cri::NamespaceMode::NODE : cri::NamespaceMode::POD);
  namespaces->set_pid(cri::NamespaceMode::CONTAINER);
  return config;
}

cri::ContainerConfig Node::ContainerConfig(const std::string& name,
                                           const std::vector<std::string>& command) {
  cri::ContainerConfig config;
  config.mutable_metadata()->set_name(name);
  config.mutable_image()->set_image(Busybox());
  for (const std::string& word : command) config.add_command(word);
  config.set_log_path(name + "/0.log");
  auto* security = config.mutable_linux()->mutable_security_context();
  security->mutable_namespace_options()->set_pid(cri::NamespaceMode::CONTAINER);
  return config;
}

std::string Node::LogPath(const cri::PodSandboxConfig& pod, const cri::ContainerConfig& config) {
  return pod.log_directory() + "/" + config.log_path();
}

std::vector<std::string> Node::CleanUp(seconds patience) {
  const auto pods = cri_->ListPods();
  std::vector<std::string> problems;
  if (!pods.ok()) problems.push_back("list pods: " + Describe(pods.status));
  for (const auto& pod : pods->items()) {
    Remember(pod.id());
    const auto removed = cri_->RemovePod(pod.id());
    if (!removed.ok()) problems.push_back("remove pod: " + Describe(removed.status));
  }
  const auto containers = cri_->ListContainers();
  for (const auto& container : containers->containers()) {
    problems.push_back("container without a pod: " + container.id());
  }
  std::vector<std::string> left;
  Eventually([&] { return (left = Leftovers()).empty(); }, patience);
  problems.insert(problems.end(), left.begin(), left.end());
  ids_.clear();
  return problems;
}

std::vector<std::string> Node::Mounts() const {
  std::vector<std::string> points;
  const auto mounts = os::ReadMounts("/proc/" + std::to_string(holder_) + "/mountinfo");
  if (!mounts.ok()) return points;
  for (const os::MountEntry& mount : mounts.value()) points.push_back(mount.mount_point);
  return points;
}

std::vector<std::string> Node::Leftovers() const {
  std::vector<std::string> found;
  for (const std::string& mount : Mounts()) {
    if (!base_mounts_.contains(mount)) found.push_back("mount: " + mount);
  }
  // Processes: the node's own are known by name, whatever else is in its pid namespace was left.
  static const std::set<std::string> kOwn = {"bash",       "tail",         "docker-registry",
                                             "crisp-crid", "crisp-imaged", "crisp-netd",
                                             "crisp-rund", "run-local",    "nsenter"};
  const std::string space = NamespaceOf(std::to_string(holder_), "pid");
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/proc", error)) {
    const std::string pid = entry.path().filename().string();
    if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
    if (NamespaceOf(pid, "pid") != space) continue;
    const std::string name = Trimmed(ReadOrEmpty("/proc/" + pid + "/comm"));
    if (name.empty() || kOwn.contains(name)) continue;
    std::string line = ReadOrEmpty("/proc/" + pid + "/cmdline");
    std::replace(line.begin(), line.end(), '\0', ' ');
    if (line == "sleep 1 ") continue;  // the heartbeat of run-local
    found.push_back("process: " + name + ": " + line);
  }
  AddNetworkLeftovers(found);
  const std::string root = "/proc/" + std::to_string(holder_) + "/root" + dir_;
  if (!ids_.empty()) {
    std::vector<std::string> names;
    FindNames("/sys/fs/cgroup", ids_, {}, names);
    FindNames(root, ids_, {"registry", "logs", "log", "layers"}, names);
    for (const std::string& name : names) found.push_back("file: " + name);
  }
  // Whatever it is called: nothing is to be under way, or kept for somebody who is gone. (imaged's
  // trash is emptied at a pace of its own.)
  for (const char* directory :
       {"state/imaged/staging", "state/imaged/snapshots", "state/rund/1/volumes", "run/rund/1/pods",
        "run/rund/1/containers", "run/rund/1/exits", "run/rund/1/execs"}) {
    for (const auto& entry : fs::directory_iterator(root + "/" + directory, error)) {
      found.push_back("in " + std::string(directory) + ": " + entry.path().filename().string());
    }
  }
  for (const auto& hierarchy : fs::directory_iterator("/sys/fs/cgroup", error)) {
    for (const auto& entry : fs::directory_iterator(hierarchy.path().string() + cgroup_, error)) {
      if (entry.is_directory(error)) found.push_back("cgroup: " + entry.path().string());
    }
  }
  return found;
}

std::string Node::Logs(int lines) const {
  std::string text;
  for (const char* service : kServices) {
    const std::vector<std::string> all = Lines(ReadOrEmpty(dir_ + "/log/" + service + ".log"));
    text += "--- " + std::string(service) + "\n";
    const auto skip = static_cast<std::size_t>(
        std::max<std::ptrdiff_t>(0, std::ssize(all) - static_cast<std::ptrdiff_t>(lines)));
    for (std::size_t i = skip; i < all.size(); ++i) text += all[i] + "\n";
  }
  return text;
}

}  // namespace crisp::harness
