#include "integration/bench/stats_bench.h"

#include <fmt/core.h>

#include <chrono>
#include <functional>
#include <stdexcept>
#include <thread>

#include "integration/bench/processes.h"

namespace crisp::bench {
namespace {

namespace cri = ::runtime::v1;
using harness::Cri;
using std::chrono::steady_clock;
using Runtime = cri::RuntimeService::StubInterface;

constexpr int kCalls = 60;
constexpr std::chrono::milliseconds kApart{
    300};  // more than the time for which readings are shared
/// Threads of the calls before end after ten idle seconds.
constexpr std::chrono::seconds kSettle{12};

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
  const std::vector<std::string> processes = ProcessesOf(daemons);
  std::this_thread::sleep_for(kSettle);
  const double idle_from = CpuMs(processes);
  std::this_thread::sleep_for(kApart * kCalls);
  const double idle = CpuMs(processes) - idle_from;
  samples.Add("CPU of the daemons, idle" + with, "ms/s",
              idle / std::chrono::duration<double>(kApart * kCalls).count());
  const double from = CpuMs(processes);
  Calls(cri, samples, "ListContainerStats" + with, &Runtime::ListContainerStats, kApart);
  const double each = (CpuMs(processes) - from - idle) / (kCalls + 3);
  samples.Add("CPU of a collection" + with, "ms", each);
  samples.Add("CPU of a collection every 10 s, for 100 containers", "ms/s", each * 10 / pods);
  Calls(cri, samples, "ListPodSandboxStats" + with, &Runtime::ListPodSandboxStats, kApart);
  Calls(cri, samples, "ListPodSandboxMetrics" + with, &Runtime::ListPodSandboxMetrics, kApart);
}

}  // namespace crisp::bench
