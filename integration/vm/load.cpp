#include "integration/vm/load.h"

#include <algorithm>

namespace crisp::harness {
namespace {

using std::chrono::seconds;

// Software emulation is about twenty times slower than the machine that it runs on.
constexpr seconds kCall{120};
constexpr seconds kFewPods{900};
constexpr std::chrono::milliseconds kAgain{500};
constexpr int kTries = 100;

/// The right to start or to end a pod now.
class Turn {
 public:
  explicit Turn(std::counting_semaphore<>& turns) : turns_(turns) { turns_.acquire(); }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;
  ~Turn() { turns_.release(); }

 private:
  std::counting_semaphore<>& turns_;
};

}  // namespace

Load::Load(Options options) : options_(std::move(options)), turns_(options_.at_a_time) {
  for (int number = 0; number < options_.pods; ++number) {
    threads_.emplace_back([this, number](const std::stop_token& end) { Work(end, number); });
  }
  threads_.emplace_back([this](const std::stop_token& end) { Ask(end); });
}

Load::~Load() { End(); }

bool Load::AwaitPods(int more) const {
  const int goal = report_.lock()->pods + more;
  for (const auto until = Clock::now() + kFewPods; Clock::now() < until;) {
    if (report_.lock()->pods >= goal) return true;
    std::this_thread::sleep_for(kAgain);
  }
  return false;
}

std::shared_ptr<void> Load::Away(const std::string& daemon) {
  auto window = std::make_shared<Window>(Window{daemon});
  windows_.lock()->push_back(window);
  return {window.get(), [this, window](void*) {
            const auto locked = windows_.lock();  // Excused reads it
            window->end = Clock::now();
          }};
}

Load::Report Load::End() {
  for (std::jthread& thread : threads_) thread.request_stop();
  threads_.clear();
  return *report_.lock();
}

void Load::Work(const std::stop_token& end, int number) {
  for (int round = 0; !end.stop_requested(); ++round) {
    OnePod(PodConfig(number, round));
    ++report_.lock()->pods;
  }
}

void Load::Ask(const std::stop_token& end) {
  while (!end.stop_requested()) {
    Succeeds("Version", {}, [&] { return cri_.Version(kCall).status; });
    Succeeds("Status", {}, [&] { return cri_.Status(false, kCall).status; });
    Succeeds("ListPodSandbox", {}, [&] { return cri_.ListPods({}, kCall).status; });
    Succeeds("ListContainers", {}, [&] { return cri_.ListContainers({}, kCall).status; });
    Succeeds("ImageStatus", {"imaged"}, [&] { return cri_.ImageStatus(options_.image).status; });
    std::this_thread::sleep_for(kAgain);
  }
}

void Load::OnePod(const cri::PodSandboxConfig& pod_config) {
  std::string pod;
  std::string container;
  {
    const Turn turn(turns_);
    const bool there = Succeeds("RunPodSandbox", {"rund", "netd"}, [&] {
      const auto answer = cri_.RunPod(pod_config, options_.handler, kCall);
      pod = answer->pod_sandbox_id();
      return answer.status;
    });
    if (!there) return;
    report_.lock()->ids.push_back(pod);
    Succeeds("CreateContainer", {"rund", "imaged"},
             [&] {
               const auto answer = cri_.Create(pod, ContainerConfig(), pod_config, kCall);
               container = answer->container_id();
               return answer.status;
             }) &&
        Succeeds("StartContainer", {"rund"}, [&] { return cri_.Start(container, kCall).status; });
    report_.lock()->ids.push_back(container);
  }
  std::this_thread::sleep_for(seconds(1));
  const Turn turn(turns_);
  Succeeds("ContainerStatus", {"rund"}, [&] {
    const auto answer = cri_.ContainerStatus(container);
    if (answer.ok() && answer->status().state() != cri::ContainerState::CONTAINER_RUNNING) {
      Complain("container " + container + " is not running: " + answer->ShortDebugString());
    }
    return answer.status;
  });
  Succeeds("StopPodSandbox", {"rund", "netd"}, [&] { return cri_.StopPod(pod, kCall).status; });
  Succeeds("RemovePodSandbox", {"rund", "netd", "imaged"},
           [&] { return cri_.RemovePod(pod, kCall).status; });
}

cri::PodSandboxConfig Load::PodConfig(int number, int round) const {
  const std::string name = "load" + std::to_string(number) + "r" + std::to_string(round);
  cri::PodSandboxConfig config;
  config.mutable_metadata()->set_name(name);
  config.mutable_metadata()->set_uid("uid" + name);
  config.mutable_metadata()->set_namespace_("load");
  config.set_log_directory("/var/log/pods/" + name);
  auto* namespaces =
      config.mutable_linux()->mutable_security_context()->mutable_namespace_options();
  namespaces->set_pid(cri::NamespaceMode::CONTAINER);
  return config;
}

cri::ContainerConfig Load::ContainerConfig() const {
  cri::ContainerConfig config;
  config.mutable_metadata()->set_name("c");
  config.mutable_image()->set_image(options_.image);
  config.add_command("sleep");
  config.add_command("100000");
  config.set_log_path("c.log");
  auto* namespaces =
      config.mutable_linux()->mutable_security_context()->mutable_namespace_options();
  namespaces->set_pid(cri::NamespaceMode::CONTAINER);
  return config;
}

bool Load::Succeeds(const std::string& name, const Needs& needs,
                    const std::function<grpc::Status()>& call) {
  for (int tries = 0; tries < kTries; ++tries) {
    const auto begin = Clock::now();
    const grpc::Status status = call();
    if (status.ok()) {
      ++report_.lock()->calls;
      return true;
    }
    if (Excused(needs, begin)) {
      ++report_.lock()->excused;
    } else {
      const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - begin);
      Complain(name + " after " + std::to_string(took.count()) + " ms: " + Describe(status));
    }
    std::this_thread::sleep_for(kAgain);
  }
  Complain(name + ": given up");
  return false;
}

bool Load::Excused(const Needs& needs, Clock::time_point begin) const {
  auto windows = windows_.lock();
  return std::any_of(windows->begin(), windows->end(), [&](const auto& window) {
    return window->end >= begin &&
           std::find(needs.begin(), needs.end(), window->daemon) != needs.end();
  });
}

void Load::Complain(const std::string& text) {
  auto report = report_.lock();
  // The first ones say it.
  if (report->complaints.size() < 20) report->complaints.push_back(text);
}

}  // namespace crisp::harness
