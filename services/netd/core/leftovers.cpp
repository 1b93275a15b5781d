#include "services/netd/core/leftovers.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <vector>

#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/os/files.h"
#include "libs/os/pidfd.h"

namespace crisp::netd {
namespace {

/// Whether the NUL-separated environment of the process has the variables with those very values.
bool HasVariables(const std::string& proc_root, pid_t pid,
                  const std::vector<std::string>& variables) {
  const Result<std::string> environment =
      os::ReadFile(fmt::format("{}/{}/environ", proc_root, pid));
  if (!environment.ok()) return false;  // gone, a kernel thread, or not ours to read
  const std::string all = std::string(1, '\0') + *environment;
  return std::all_of(variables.begin(), variables.end(), [&all](const std::string& variable) {
    // The last one may lack its end, when the process has written over it.
    const std::string begun = std::string(1, '\0') + variable;
    return all.find(begun + '\0') != std::string::npos || all.ends_with(begun);
  });
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

/// One pass over the processes; those that were killed.
Result<std::vector<os::PidFd>> KillOnce(const std::vector<std::string>& variables,
                                        const std::string& proc_root) {
  std::vector<os::PidFd> killed;
  for (const std::string& name : CRISP_TRY(os::ListDir(proc_root))) {
    pid_t pid = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (error != std::errc() || end != name.data() + name.size() || pid == ::getpid()) continue;
    if (!HasVariables(proc_root, pid, variables)) continue;
    Result<os::PidFd> process = os::PidFd::Open(pid);
    // Looked at again: the number may have passed to another process before it was opened.
    if (!process.ok() || !HasVariables(proc_root, pid, variables)) continue;
    log::Warn("network plugin of an earlier run killed",
              {{"variable", variables.front()}, {"pid", pid}});
    if (process->Signal(SIGKILL).ok()) killed.push_back(std::move(process).value());
  }
  return killed;
}

}  // namespace

Status EndLeftovers(const CallContext& cc, const std::vector<std::string>& variables,
                    const std::string& proc_root) {
  while (true) {
    const std::vector<os::PidFd> killed = CRISP_TRY(KillOnce(variables, proc_root));
    if (killed.empty()) return Status::Ok();
    // Once more after them: one may have started another behind our back.
    for (const os::PidFd& process : killed) CRISP_TRY(WaitForEnd(cc, process));
  }
}

}  // namespace crisp::netd
