#include "services/netd/core/leftovers.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <string_view>
#include <vector>

#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/os/files.h"
#include "libs/os/pidfd.h"

namespace crisp::netd {
namespace {

/// Whether the NUL-separated environment of the process has the variable with that very value.
bool HasVariable(const std::string& proc_root, pid_t pid, std::string_view variable) {
  const Result<std::string> environment =
      os::ReadFile(fmt::format("{}/{}/environ", proc_root, pid));
  if (!environment.ok()) return false;  // gone, a kernel thread, or not ours to read
  std::string_view rest = *environment;
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find('\0'), rest.size());
    if (rest.substr(0, end) == variable) return true;
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return false;
}

Status WaitForEnd(const CallContext& cc, const os::PidFd& process) {
  while (true) {
    if (CRISP_TRY(process.Exited())) return Status::Ok();
    CRISP_TRY(cc.Check().While("wait for a network plugin of an earlier run to end"));
    constexpr std::chrono::milliseconds kRound(100);  // a stop request is seen that soon
    pollfd poll = {process.fd(), POLLIN, 0};
    static_cast<void>(::poll(&poll, 1, static_cast<int>(kRound.count())) == 0);
  }
}

}  // namespace

Status EndLeftovers(const CallContext& cc, const PodId& pod, const std::string& proc_root) {
  const std::string variable = "CNI_CONTAINERID=" + pod.str();
  std::vector<os::PidFd> killed;
  for (const std::string& name : CRISP_TRY(os::ListDir(proc_root))) {
    pid_t pid = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (error != std::errc() || end != name.data() + name.size() || pid == ::getpid()) continue;
    if (!HasVariable(proc_root, pid, variable)) continue;
    Result<os::PidFd> process = os::PidFd::Open(pid);
    // Looked at again: the number may have passed to another process before it was opened.
    if (!process.ok() || !HasVariable(proc_root, pid, variable)) continue;
    log::Warn("network plugin of an earlier run killed", {{"pod", pod}, {"pid", pid}});
    if (process->Signal(SIGKILL).ok()) killed.push_back(std::move(process).value());
  }
  for (const os::PidFd& process : killed) CRISP_TRY(WaitForEnd(cc, process));
  return Status::Ok();
}

}  // namespace crisp::netd
