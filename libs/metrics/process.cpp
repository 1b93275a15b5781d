#include <sys/resource.h>
#include <unistd.h>

#include <charconv>
#include <ctime>
#include <string>
#include <string_view>

#include "libs/metrics/registry.h"
#include "libs/os/files.h"

namespace crisp::metrics {
namespace {

double CpuSeconds() {
  timespec used{};
  if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used) != 0) return 0;
  return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) / 1e9;
}

/// "VmRSS:\t  1234 kB" of /proc/self/status; 0 when it is not there.
double StatusValue(std::string_view key) {
  const auto text = os::ReadFile("/proc/self/status");
  if (!text.ok()) return 0;
  const std::size_t at = text->find(key);
  if (at == std::string::npos) return 0;
  const std::size_t digit = text->find_first_of("0123456789", at + key.size());
  if (digit == std::string::npos) return 0;
  double value = 0;
  std::from_chars(text->data() + digit, text->data() + text->size(), value);
  return value;
}

double OpenFds() {
  const auto names = os::ListDir("/proc/self/fd");
  return names.ok() ? static_cast<double>(names->size()) : 0;
}

}  // namespace

void AddProcessMetrics(Registry& registry) {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  const double started = static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
  registry.AddCounter("process_cpu_seconds_total", "User and system CPU time", {}, &CpuSeconds);
  registry.AddGauge("process_start_time_seconds", "Start of the process since the epoch", {},
                    [started] { return started; });
  registry.AddGauge("process_resident_memory_bytes", "Resident memory", {},
                    [] { return StatusValue("VmRSS:") * 1024; });
  registry.AddGauge("process_threads", "Threads", {}, [] { return StatusValue("Threads:"); });
  registry.AddGauge("process_open_fds", "Open file descriptors", {}, &OpenFds);
}

}  // namespace crisp::metrics
