#include "integration/bench/stats_bench.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <stdexcept>
#include <thread>

namespace crisp::bench {
namespace {

namespace fs = std::filesystem;
namespace cri = ::runtime::v1;
using harness::Cri;
using std::chrono::steady_clock;
using Runtime = cri::RuntimeService::StubInterface;

constexpr int kCalls = 60;
constexpr std::chrono::milliseconds kApart{
    300};  // more than the time for which readings are shared
/// Threads of the calls before end after ten idle seconds.
constexpr std::chrono::seconds kSettle{12};

/// CPU time of the processes with these names in our own mount namespace, in ms.
double CpuMs(const std::vector<std::string>& names) {
  double ms = 0;
  std::error_code error;
  const fs::path ours = fs::read_symlink("/proc/self/ns/mnt", error);
  for (const auto& entry : fs::directory_iterator("/proc", error)) {
    std::ifstream in(entry.path() / "stat");
    std::stringstream text;
    text << in.rdbuf();
    const std::string stat = text.str();
    const std::size_t open = stat.find('(');
    const std::size_t close = stat.rfind(')');
    if (open == std::string::npos || close == std::string::npos) continue;
    const std::string name = stat.substr(open + 1, close - open - 1);
    const bool wanted = std::any_of(names.begin(), names.end(), [&name](const std::string& one) {
      return name == one.substr(0, 15);  // the kernel cuts names
    });
    if (!wanted || fs::read_symlink(entry.path() / "ns/mnt", error) != ours) continue;
    // To the nanosecond, where stat has it in ticks of 10 ms.
    clockid_t clock = 0;
    timespec used = {};
    if (::clock_getcpuclockid(std::atoi(stat.c_str()), &clock) != 0) continue;
    if (::clock_gettime(clock, &used) != 0) continue;
    ms += static_cast<double>(used.tv_sec) * 1e3 + static_cast<double>(used.tv_nsec) / 1e6;
  }
  return ms;
}

template <typename Request, typename Response>
void Calls(const Cri& cri, Samples& samples, const std::string& name,
           grpc::Status (Runtime::*method)(grpc::ClientContext*, const Request&, Response*),
           std::chrono::milliseconds apart) {
  for (int i = -3; i < kCalls; ++i) {
    std::this_thread::sleep_for(apart);
    const auto start = steady_clock::now();
    const auto answer = cri.Call(method, Request());
    const auto took = steady_clock::now() - start;
    if (!answer.ok()) throw std::runtime_error(name + ": " + harness::Describe(answer.status));
    if (i >= 0) samples.AddTime(name, took);
  }
}

}  // namespace

void MeasureStats(const Cri& cri, Samples& samples, const std::vector<std::string>& daemons,
                  int pods) {
  const std::string with = fmt::format(", {} pods", pods);
  Calls(cri, samples, "ListContainerStats" + with + ", shared", &Runtime::ListContainerStats,
        std::chrono::milliseconds(0));
  std::this_thread::sleep_for(kSettle);
  const double idle_from = CpuMs(daemons);
  std::this_thread::sleep_for(kApart * kCalls);
  const double idle = CpuMs(daemons) - idle_from;
  samples.Add("CPU of the daemons, idle" + with, "ms/s",
              idle / std::chrono::duration<double>(kApart * kCalls).count());
  const double from = CpuMs(daemons);
  Calls(cri, samples, "ListContainerStats" + with, &Runtime::ListContainerStats, kApart);
  const double each = (CpuMs(daemons) - from - idle) / (kCalls + 3);
  samples.Add("CPU of a collection" + with, "ms", each);
  samples.Add("CPU of a collection every 10 s, for 100 containers", "ms/s", each * 10 / pods);
  Calls(cri, samples, "ListPodSandboxStats" + with, &Runtime::ListPodSandboxStats, kApart);
  Calls(cri, samples, "ListPodSandboxMetrics" + with, &Runtime::ListPodSandboxMetrics, kApart);
}

}  // namespace crisp::bench
