#include "libs/os/pidfd.h"

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "libs/base/try.h"

// <sys/pidfd.h> of glibc 2.36 lacks extern "C": the system calls are made directly.
namespace crisp::os {

Result<PidFd> PidFd::Open(pid_t pid) {
  const long fd = ::syscall(SYS_pidfd_open, pid, 0);
  if (fd < 0) {
    const int error = errno == EINVAL ? ESRCH : errno;  // EINVAL: no leader of a thread group
    return Status::Errno(error, "pidfd of process {}", pid);
  }
  return PidFd(UniqueFd(static_cast<int>(fd)));
}

Result<PidFd> PidFd::Open(const ProcessId& process) {
  PidFd opened = CRISP_TRY(Open(process.pid));
  // Looked at after the opening: the descriptor can then only be of the process that we see.
  const ProcessId now = CRISP_TRY(ProcessId::Of(process.pid));
  if (now != process) return NotFound("process {} is another one now", process.pid);
  return opened;
}

Status PidFd::Signal(int signal) const {
  if (::syscall(SYS_pidfd_send_signal, fd_.get(), signal, nullptr, 0) == 0) return Status::Ok();
  return Status::Errno(errno, "send signal {}", signal);
}

Result<bool> PidFd::Exited() const {
  pollfd poll = {fd_.get(), POLLIN, 0};
  const int ready = ::poll(&poll, 1, 0);
  if (ready < 0) return Status::Errno(errno, "poll a pidfd");
  return ready > 0;
}

}  // namespace crisp::os
