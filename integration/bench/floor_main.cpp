// The floor: what pods and pulls cost without any daemon. See README.md beside this file.
#include <fmt/core.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "integration/bench/floor_pod.h"
#include "integration/bench/floor_pull.h"
#include "integration/bench/samples.h"
#include "libs/base/try.h"
#include "libs/os/files.h"

namespace crisp::bench {
namespace {

using std::chrono::steady_clock;

struct Settings {
  FloorOptions pod;
  std::string cni_conf;
  std::string spec_host;
  std::string spec_cni;
  std::string image;
  std::vector<std::string> pulls;
  std::string json;
  int count = 20;
  int pods = 50;
  int at_once = 10;
  int parallel_layers = 4;
  int pause_ms = 0;
};

void AddStages(const FloorPod& pod, const std::string& label, Samples& samples) {
  const FloorStages& stages = pod.stages();
  samples.AddTime("pod start, " + label, stages.sandbox + stages.create + stages.start);
  samples.AddTime("  sandbox, " + label, stages.sandbox);
  samples.AddTime("  create, " + label, stages.create);
  samples.AddTime("  start, " + label, stages.start);
  samples.AddTime("  create + start, " + label, stages.create + stages.start);
}

Status SerialPods(const FloorOptions& options, const Settings& settings, const std::string& name,
                  Samples& samples) {
  std::vector<std::unique_ptr<FloorPod>> pods;
  for (int i = -2; i < settings.count; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(settings.pause_ms));
    auto pod = CRISP_TRY(FloorPod::Start(options, fmt::format("{}{}-{}", name, i + 2, ::getpid())));
    if (i >= 0) AddStages(*pod, name, samples);
    pods.push_back(std::move(pod));
  }
  for (int i = 0; options.cni_conf.empty() && i < settings.count; ++i) {
    const auto start = steady_clock::now();
    CRISP_TRY(pods.front()->Exec({"/bin/true"}));
    samples.AddTime("ExecSync /bin/true", steady_clock::now() - start);
  }
  for (auto& pod : pods) {
    const auto start = steady_clock::now();
    CRISP_TRY(pod->Stop());
    samples.AddTime("pod removal, " + name, steady_clock::now() - start);
  }
  return Status::Ok();
}

Status ManyPods(const FloorOptions& options, const Settings& settings, const std::string& name,
                Samples& samples) {
  std::vector<std::unique_ptr<FloorPod>> pods(static_cast<std::size_t>(settings.pods));
  std::mutex mutex;
  Status failed;
  const auto fail = [&](const Status& status) {
    const std::lock_guard lock(mutex);
    if (failed.ok()) failed = status;
  };
  const auto rate = [&](steady_clock::duration took) {
    return settings.pods / std::chrono::duration<double>(took).count();
  };
  const auto up = InParallel(settings.pods, settings.at_once, [&](int number) {
    auto pod = FloorPod::Start(options, fmt::format("m{}{}-{}", name, number, ::getpid()));
    if (!pod.ok()) return fail(pod.status());
    pods[static_cast<std::size_t>(number)] = std::move(pod).value();
    const std::lock_guard lock(mutex);
    AddStages(*pods[static_cast<std::size_t>(number)],
              fmt::format("{}, {} at a time", name, settings.at_once), samples);
  });
  CRISP_TRY(failed);
  samples.Add(fmt::format("{} pods up, {}", settings.pods, name), "pods/s", rate(up));
  const auto down = InParallel(settings.pods, settings.at_once, [&](int number) {
    if (const Status stopped = pods[static_cast<std::size_t>(number)]->Stop(); !stopped.ok())
      fail(stopped);
  });
  CRISP_TRY(failed);
  samples.Add(fmt::format("{} pods down, {}", settings.pods, name), "pods/s", rate(down));
  return Status::Ok();
}

/// User and system time of this process.
double CpuMs() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto ms = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_usec) / 1e3;
  };
  return ms(usage.ru_utime) + ms(usage.ru_stime);
}

Status Pulls(const Settings& settings, Samples& samples) {
  for (const std::string& image : settings.pulls) {
    const std::size_t slash = image.find('/') + 1;
    const std::string name = image.substr(slash, image.rfind(':') - slash);
    // A fresh directory each time, nothing deleted in between: see the README for why.
    std::string tag = image.substr(slash);
    std::replace(tag.begin(), tag.end(), '/', '_');
    const double cpu_before = CpuMs();
    const Pulled pulled = CRISP_TRY(
        PullByItself(image, fmt::format("{}/pull-{}/{}", settings.pod.directory, ::getpid(), tag),
                     settings.parallel_layers));
    samples.Add("pull " + name, "ms", pulled.seconds * 1e3);
    samples.Add("pull " + name + ", CPU", "ms", CpuMs() - cpu_before);
    samples.Add("pull " + name + ", of tar", "MB/s", pulled.tar_mb / pulled.seconds);
  }
  return Status::Ok();
}

Status Run(const Settings& settings, Samples& samples) {
  CRISP_TRY(os::MakeDirs(settings.pod.directory));
  if (!settings.image.empty()) {
    const std::string unpacked = settings.pod.directory + "/image";
    if (!os::Exists(unpacked)) CRISP_TRY(PullByItself(settings.image, unpacked, 1));
    FloorOptions options = settings.pod;
    options.lower = unpacked + "/0";
    for (const bool cni : {false, true}) {
      const std::string& spec = cni ? settings.spec_cni : settings.spec_host;
      if (spec.empty()) continue;
      options.spec = nlohmann::json::parse(CRISP_TRY(os::ReadFile(spec)), nullptr, false);
      options.cni_conf = cni ? settings.cni_conf : "";
      const std::string name = cni ? "CNI" : "host network";
      if (settings.count > 0)
        CRISP_TRY(SerialPods(options, settings, name == "CNI" ? "CNI" : "host", samples));
      if (settings.pods > 0 && cni) CRISP_TRY(ManyPods(options, settings, "CNI", samples));
    }
  }
  return Pulls(settings, samples);
}

}  // namespace
}  // namespace crisp::bench

int main(int argc, char** argv) {
  using namespace crisp::bench;
  Settings settings;
  CLI::App app("What pods and image pulls cost without any daemon");
  app.add_option("--dir", settings.pod.directory,
                 "work directory, on the file system that crisp uses")
      ->required();
  app.add_option("--runtime", settings.pod.runtime, "OCI runtime");
  app.add_option("--cni-conf", settings.cni_conf,
                 "conflist for the pods with a network of their own");
  app.add_option("--spec-host", settings.spec_host, "config.json of a container with host network");
  app.add_option("--spec-cni", settings.spec_cni, "config.json of a container on the CNI network");
  app.add_option("--image", settings.image, "HOST:PORT/REPO:TAG of the pods' image");
  app.add_option("--pull", settings.pulls, "images to pull, HOST:PORT/REPO:TAG")->delimiter(',');
  app.add_option("--parallel-layers", settings.parallel_layers, "layers of an image side by side");
  app.add_option("--cgroup-parent", settings.pod.cgroup_parent, "cgroup of the pods");
  app.add_option("--count", settings.count, "serial pod starts");
  app.add_option("--pods", settings.pods, "pods that are started --at-once at a time");
  app.add_option("--at-once", settings.at_once, "how many at a time");
  app.add_option("--pause-ms", settings.pause_ms, "idle time before each serial start");
  app.add_option("--json", settings.json, "file for the figures");
  CLI11_PARSE(app, argc, argv);
  Samples samples;
  const crisp::Status status = Run(settings, samples);
  samples.Print();
  if (!settings.json.empty() && !samples.WriteJson(settings.json)) return 1;
  if (!status.ok()) fmt::print(stderr, "floor: {}\n", status.ToString());
  return status.ok() ? 0 : 1;
}
