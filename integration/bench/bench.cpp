// crisp-bench: measures any CRI runtime through its socket. See README.md beside this file.
#include <fmt/core.h>
#include <fmt/ranges.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <future>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "integration/bench/processes.h"
#include "integration/bench/samples.h"
#include "integration/bench/stats_bench.h"
#include "integration/harness/cri.h"

namespace crisp::bench {
namespace {

namespace fs = std::filesystem;
namespace cri = ::runtime::v1;
using harness::Cri;
using harness::Describe;
using std::chrono::steady_clock;

struct Settings {
  std::string socket;
  std::string image;
  std::vector<std::string> pulls;
  int pulls_at_once = 1;
  std::vector<std::string> cases = {"version", "exec", "host", "cni", "pods", "pull", "restart"};
  std::string handler;
  std::string cgroup_parent = "/crisp-bench";
  std::string log_dir = "/tmp/crisp-bench-logs";
  std::string json;
  std::string dump_spec;
  std::vector<std::string> daemons;  // names of processes (comm)
  std::vector<std::string> helpers = {"conmon", "crisp-pause", "containerd-shim"};
  std::vector<std::string> pid_files;
  int count = 20;
  int calls = 300;
  int pods = 50;
  int at_once = 10;
  int pause_ms = 0;
};

constexpr auto kPullDeadline = std::chrono::minutes(10);
/// After work: a daemon gives back memory when it is idle, and threads end, in so many seconds.
constexpr auto kRest = std::chrono::seconds(15);

template <typename Answer>
void Need(const Answer& answer, const std::string& what) {
  if (!answer.ok()) throw std::runtime_error(what + ": " + Describe(answer.status));
}

bool Listens(std::string socket) {
  if (socket.starts_with("unix://")) socket.erase(0, 7);
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  socket.copy(static_cast<char*>(address.sun_path), sizeof address.sun_path - 1);
  const auto* generic = static_cast<const sockaddr*>(static_cast<const void*>(&address));
  const bool listens = ::connect(fd, generic, sizeof address) == 0;
  ::close(fd);
  return listens;
}

/// What these processes use while something is done.
class UseMeter {
 public:
  explicit UseMeter(const std::vector<std::string>& names) : processes_(ProcessesOf(names)) {
    // "5" sets the peak back to what is resident now (proc_pid_clear_refs(5)).
    for (const std::string& process : processes_) std::ofstream(process + "/clear_refs") << 5;
    cpu_before_ = CpuMs(processes_);
    resident_before_ = SumMb(processes_, "status", "VmRSS:");
  }
  double CpuMsSince() const { return CpuMs(processes_) - cpu_before_; }
  double PeakMbAbove() const { return SumMb(processes_, "status", "VmHWM:") - resident_before_; }

 private:
  const std::vector<std::string> processes_;
  double cpu_before_ = 0;
  double resident_before_ = 0;
};

class Bench {
 public:
  explicit Bench(const Settings& settings)
      : settings_(settings), cri_(settings.socket), run_(std::to_string(::getpid())) {}

  void Run() {
    Need(cri_.Version(), "Version");
    for (const std::string& one : settings_.cases) {
      if (one == "version") Versions();
      if (one == "exec") Execs();
      if (one == "host") SerialPods(true);
      if (one == "cni") SerialPods(false);
      if (one == "pods") ManyPods(false);
      if (one == "restart") ManyPods(true);
      if (one == "pull") Pulls();
      if (one == "beside") BesidePulls();
      if (one == "memory") AddMemory("idle");
      if (one == "stuck") ListsWhileStuck();
    }
  }
  /// config.json of a sample container, for the floor.
  void DumpSpecs() {
    for (const bool host : {true, false}) {
      const Pod pod = StartPod(host, "spec");
      const auto status = cri_.ContainerStatus(pod.container, true);
      Need(status, "ContainerStatus");
      const auto info = nlohmann::json::parse(status->info().at("info"));
      std::ofstream(settings_.dump_spec + (host ? ".host" : ".cni"))
          << info.at("runtimeSpec").dump(1);
      RemovePod(pod);
    }
  }
  const Samples& samples() const { return samples_; }
  Samples& samples() { return samples_; }

 private:
  struct Pod {
    std::string id;
    std::string container;
  };

  template <typename Work>
  auto Time(const std::string& name, const Work& work) {
    const auto start = steady_clock::now();
    auto result = work();
    samples_.AddTime(name, steady_clock::now() - start);
    return result;
  }

  Pod StartPod(bool host, const std::string& name, const std::string& measure = "",
               const std::vector<std::string>& command = {"sleep", "100000"}) {
    cri::PodSandboxConfig config;
    config.mutable_metadata()->set_name(name);
    config.mutable_metadata()->set_uid(run_ + "-" + name);
    config.mutable_metadata()->set_namespace_("bench");
    config.set_hostname("bench");
    config.set_log_directory(settings_.log_dir + "/" + run_ + "/" + name);
    if (!host) config.mutable_dns_config()->add_servers("10.0.0.10");
    auto* linux_config = config.mutable_linux();
    linux_config->set_cgroup_parent(settings_.cgroup_parent + "/" + run_ + "-" + name);
    auto* spaces = linux_config->mutable_security_context()->mutable_namespace_options();
    spaces->set_network(host ? cri::NamespaceMode::NODE : cri::NamespaceMode::POD);
    spaces->set_pid(cri::NamespaceMode::CONTAINER);
    auto* seccomp = linux_config->mutable_security_context()->mutable_seccomp();
    seccomp->set_profile_type(cri::SecurityProfile::RuntimeDefault);

    cri::ContainerConfig container;
    container.mutable_metadata()->set_name("c");
    container.mutable_image()->set_image(settings_.image);
    for (const std::string& word : command) container.add_command(word);
    container.set_log_path("c/0.log");
    auto* resources = container.mutable_linux()->mutable_resources();
    resources->set_cpu_period(100000);
    resources->set_cpu_quota(200000);
    resources->set_cpu_shares(102);
    resources->set_memory_limit_in_bytes(256 << 20);
    resources->set_oom_score_adj(500);
    auto* security = container.mutable_linux()->mutable_security_context();
    security->mutable_namespace_options()->set_pid(cri::NamespaceMode::CONTAINER);
    security->mutable_namespace_options()->set_network(spaces->network());
    security->mutable_seccomp()->set_profile_type(cri::SecurityProfile::RuntimeDefault);
    for (const char* path :
         {"/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list",
          "/proc/sched_debug", "/proc/scsi", "/sys/firmware"}) {
      security->add_masked_paths(path);
    }
    for (const char* path :
         {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}) {
      security->add_readonly_paths(path);
    }

    Pod pod;
    const auto start = steady_clock::now();
    const auto sandbox = cri_.RunPod(config, settings_.handler);
    const auto sandboxed = steady_clock::now();
    Need(sandbox, "RunPodSandbox");
    pod.id = sandbox->pod_sandbox_id();
    const auto created = cri_.Create(pod.id, container, config);
    const auto made = steady_clock::now();
    Need(created, "CreateContainer");
    pod.container = created->container_id();
    Need(cri_.Start(pod.container), "StartContainer");
    const auto started = steady_clock::now();
    if (!measure.empty()) {
      const std::lock_guard lock(mutex_);
      samples_.AddTime("pod start, " + measure, started - start);
      samples_.AddTime("  sandbox, " + measure, sandboxed - start);
      samples_.AddTime("  create, " + measure, made - sandboxed);
      samples_.AddTime("  start, " + measure, started - made);
      samples_.AddTime("  create + start, " + measure, started - sandboxed);
    }
    return pod;
  }

  void RemovePod(const Pod& pod) {
    Need(cri_.StopPod(pod.id), "StopPodSandbox");
    Need(cri_.RemovePod(pod.id), "RemovePodSandbox");
  }

  void Versions() {
    for (int i = 0; i < settings_.calls; ++i) {
      Time("Version", [&] { return cri_.Version(); });
    }
  }

  void Execs() {
    const Pod pod = StartPod(true, "exec");
    for (int i = 0; i < settings_.count; ++i) {
      Need(Time("ExecSync /bin/true", [&] { return cri_.ExecSync(pod.container, {"/bin/true"}); }),
           "ExecSync");
    }
    RemovePod(pod);
  }

  void SerialPods(bool host) {
    const std::string name = host ? "host" : "CNI";
    std::vector<Pod> pods;
    for (int i = -2; i < settings_.count; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(settings_.pause_ms));
      pods.push_back(
          StartPod(host, fmt::format("{}{}", host ? "host" : "cni", i + 2), i < 0 ? "" : name));
    }
    for (const Pod& pod : pods) {
      Time("pod removal, " + name, [&] {
        RemovePod(pod);
        return 0;
      });
    }
  }

  void AddMemory(const std::string& when) {
    std::vector<std::string> all = settings_.daemons;
    const double daemons = SumMb(ProcessesOf(all), "smaps_rollup", "Pss:");
    all.insert(all.end(), settings_.helpers.begin(), settings_.helpers.end());
    const std::vector<std::string> both = ProcessesOf(all);
    samples_.Add(fmt::format("PSS of the daemons, {}", when), "MB", daemons);
    samples_.Add(fmt::format("PSS with the pods' helpers, {}", when), "MB",
                 SumMb(both, "smaps_rollup", "Pss:"));
    samples_.Add(fmt::format("processes, {}", when), "", static_cast<double>(both.size()));
  }

  /// Lists and memory with many pods; with `restart` the daemons are killed under them instead.
  void ManyPods(bool restart) {
    if (!restart) AddMemory("before the pods");
    std::vector<Pod> pods(static_cast<std::size_t>(settings_.pods));
    const std::string label = fmt::format("CNI, {} at a time", settings_.at_once);
    const auto rate = [&](steady_clock::duration took) {
      return settings_.pods / std::chrono::duration<double>(took).count();
    };
    const auto up = InParallel(settings_.pods, settings_.at_once, [&](int number) {
      pods[static_cast<std::size_t>(number)] = StartPod(
          false, fmt::format("{}{}", restart ? "restart" : "many", number), restart ? "" : label);
    });
    if (restart) {
      Restarts();
    } else {
      samples_.Add(fmt::format("{} pods up, CNI", settings_.pods), "pods/s", rate(up));
      AddMemory(fmt::format("{} pods", settings_.pods));
      Lists(pods);
      AddMemory(fmt::format("{} pods, after the lists", settings_.pods));
      std::this_thread::sleep_for(kRest);
      AddMemory(fmt::format("{} pods, at rest", settings_.pods));
      MeasureStats(cri_, samples_, settings_.daemons, settings_.pods);
    }
    const auto down = InParallel(settings_.pods, settings_.at_once, [&](int number) {
      RemovePod(pods[static_cast<std::size_t>(number)]);
    });
    if (!restart)
      samples_.Add(fmt::format("{} pods down, CNI", settings_.pods), "pods/s", rate(down));
  }

  /// Interleaved, so that whatever else the machine does hits all alike.
  void Lists(const std::vector<Pod>& pods) {
    const std::string with = fmt::format(", {} pods", settings_.pods);
    for (int i = -20; i < settings_.calls; ++i) {
      Samples unused;
      Samples& into = i < 0 ? unused : samples_;
      const auto timed = [&](const std::string& name, const auto& call) {
        const auto start = steady_clock::now();
        Need(call(), name);
        into.AddTime(name + with, steady_clock::now() - start);
      };
      const Pod& pod = pods[static_cast<std::size_t>(i + 20) % pods.size()];
      timed("Version", [&] { return cri_.Version(); });
      timed("ListContainers", [&] { return cri_.ListContainers(); });
      timed("ListPodSandbox", [&] { return cri_.ListPods(); });
      timed("ContainerStatus", [&] { return cri_.ContainerStatus(pod.container); });
      timed("PodSandboxStatus", [&] { return cri_.PodStatus(pod.id); });
      timed("Status", [&] { return cri_.Status(); });
    }
  }

  /// Lists while containers that ignore their stop signal are in a long grace, and callers wait for
  /// each of them.
  void ListsWhileStuck() {
    constexpr int kStuck = 20;
    constexpr std::int64_t kGraceSeconds = 60;  // longer than the lists take
    std::vector<Pod> pods(kStuck);
    InParallel(kStuck, settings_.at_once, [&](int number) {
      pods[static_cast<std::size_t>(number)] = StartPod(true, fmt::format("stuck{}", number), "",
                                                        {"sh", "-c", "trap '' TERM; sleep 100000"});
    });
    std::vector<std::future<void>> stops;
    for (const Pod& pod : pods) {
      // Whatever it answers: the removal below ends it.
      stops.push_back(std::async(std::launch::async,
                                 [this, id = pod.container] { cri_.Stop(id, kGraceSeconds); }));
    }
    std::this_thread::sleep_for(std::chrono::seconds(1));
    const auto all = cri_.ListContainers();
    Need(all, "ListContainers");
    if (std::count_if(all->containers().begin(), all->containers().end(), [](const auto& one) {
          return one.state() == cri::ContainerState::CONTAINER_RUNNING;
        }) < kStuck) {
      throw std::runtime_error("containers that ignore SIGTERM ended by it");
    }
    const std::string with = fmt::format(", {} stuck in stop", kStuck);
    for (int i = 0; i < settings_.calls; ++i) {
      Need(Time("ListContainers" + with, [&] { return cri_.ListContainers(); }), "ListContainers");
      Need(Time("ListPodSandbox" + with, [&] { return cri_.ListPods(); }), "ListPodSandbox");
    }
    for (const Pod& pod : pods) RemovePod(pod);
  }

  /// kill -9 of one daemon after the other (whoever supervises them starts them again): until
  /// ListContainers is whole.
  void Restarts() {
    // A client of its own for each try, and only once somebody listens: gRPC waits at least 100 ms
    // from one attempt to connect to the next, which is not what is measured here.
    const auto whole = [&] {
      if (!Listens(settings_.socket)) return false;
      const Cri fresh(settings_.socket);
      const auto pods = fresh.ListPods();
      const auto containers = fresh.ListContainers();
      return pods.ok() && containers.ok() && pods->items_size() >= settings_.pods &&
             containers->containers_size() >= settings_.pods;
    };
    for (int round = 0; round < 5; ++round) {
      for (const std::string& file : settings_.pid_files) {
        const std::string name = fs::path(file).stem().string();
        const auto restart = [&](const std::vector<std::string>& files, const std::string& label) {
          const auto start = steady_clock::now();
          for (const std::string& one : files) ::kill(std::stoi(ReadText(one)), SIGKILL);
          // A list that was answered by the dying process does not count.
          std::this_thread::sleep_for(std::chrono::milliseconds(2));
          while (!whole()) std::this_thread::sleep_for(std::chrono::microseconds(500));
          samples_.AddTime(label, steady_clock::now() - start);
          std::this_thread::sleep_for(std::chrono::milliseconds(1500));
        };
        restart({file}, "kill -9 " + name + " to a full list");
        if (&file == &settings_.pid_files.back()) {
          restart(settings_.pid_files, "kill -9 of all to a full list");
        }
      }
    }
  }

  /// Each image once: whoever wants more figures brings more images. Nothing is deleted in between:
  /// ext4 avoids inodes that were deleted a short time ago, which costs more than the pull itself.
  void Pulls() {
    for (const std::string& image : settings_.pulls) {
      const std::size_t slash = image.find('/') + 1;
      const std::string name = image.substr(slash, image.rfind(':') - slash);
      const UseMeter use(settings_.daemons);
      if (settings_.pulls_at_once > 1) {
        PullAtOnce(image, name);
        continue;
      }
      Need(Time("pull " + name, [&] { return cri_.Pull(image, kPullDeadline); }),
           "PullImage " + image);
      samples_.Add("pull " + name + ", CPU", "ms", use.CpuMsSince());
      samples_.Add("pull " + name + ", peak memory above idle", "MB", use.PeakMbAbove());
    }
    AddMemory("after the pulls");
  }

  /// What a node sees when many pods of one image come at once.
  void PullAtOnce(const std::string& image, const std::string& name) {
    const int count = settings_.pulls_at_once;
    const auto took = InParallel(
        count, count, [&](int) { Need(cri_.Pull(image, kPullDeadline), "PullImage " + image); });
    samples_.AddTime(fmt::format("pull {}, {} at once", name, count), took);
  }

  /// What a pull costs the pods that start while it runs.
  void BesidePulls() {
    std::vector<Pod> pods;
    const auto start = [&](const std::string& measure) {
      pods.push_back(StartPod(false, fmt::format("beside{}", pods.size()), measure));
    };
    for (int i = 0; i < 2; ++i) start("");
    for (const std::string& image : settings_.pulls) {
      for (int i = 0; i < settings_.count; ++i) start("CNI, no pull");
      auto pull = std::async(std::launch::async, [&] { return cri_.Pull(image, kPullDeadline); });
      while (pull.wait_for(std::chrono::seconds(0)) != std::future_status::ready)
        start("CNI, beside a pull");
      Need(pull.get(), "PullImage " + image);
    }
    for (const Pod& pod : pods) RemovePod(pod);
  }

  const Settings& settings_;
  Cri cri_;
  std::string run_;
  Samples samples_;
  std::mutex mutex_;
};

}  // namespace
}  // namespace crisp::bench

int main(int argc, char** argv) {
  using namespace crisp::bench;
  Settings settings;
  CLI::App app("Measures a CRI runtime through its socket");
  app.add_option("--socket", settings.socket, "CRI socket, a path or unix://path")->required();
  app.add_option("--image", settings.image, "image of the pods; must have /bin/true, sh and sleep")
      ->required();
  app.add_option("--case", settings.cases,
                 "version exec host cni pods restart pull beside memory stuck")
      ->delimiter(',');
  app.add_option("--pull", settings.pulls, "images to pull, HOST:PORT/REPO:TAG")->delimiter(',');
  app.add_option("--pulls-at-once", settings.pulls_at_once, "pulls of each image at the same time");
  app.add_option("--handler", settings.handler, "runtime handler; empty = the default");
  app.add_option("--cgroup-parent", settings.cgroup_parent, "above the pods' cgroups");
  app.add_option("--log-dir", settings.log_dir, "above the pods' log directories");
  app.add_option("--daemon", settings.daemons, "process names whose memory is counted")
      ->delimiter(',');
  app.add_option("--helper", settings.helpers, "process names that come with pods")->delimiter(',');
  app.add_option("--pid-file", settings.pid_files, "of the daemons that the restart case kills")
      ->delimiter(',');
  app.add_option("--count", settings.count, "serial pod starts and execs");
  app.add_option("--calls", settings.calls, "of each cheap call");
  app.add_option("--pods", settings.pods, "pods that are started --at-once at a time");
  app.add_option("--at-once", settings.at_once, "how many at a time");
  app.add_option("--pause-ms", settings.pause_ms, "idle time before each serial start");
  app.add_option("--dump-spec", settings.dump_spec,
                 "write FILE.host and FILE.cni (config.json) and end");
  app.add_option("--json", settings.json, "file for the figures");
  CLI11_PARSE(app, argc, argv);
  Bench bench(settings);
  int code = 0;
  try {
    if (settings.dump_spec.empty()) {
      bench.Run();
    } else {
      bench.DumpSpecs();
    }
  } catch (const std::exception& error) {
    fmt::print(stderr, "crisp-bench: {}\n", error.what());
    code = 1;
  }
  if (settings.dump_spec.empty()) bench.samples().Print();
  if (!settings.json.empty() && !bench.samples().WriteJson(settings.json)) code = 1;
  return code;
}
