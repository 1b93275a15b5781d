#include "libs/os/namespaces.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <memory>
#include <string_view>
#include <system_error>
#include <thread>

#include "libs/base/try.h"
#include "libs/os/files.h"

namespace crisp::os {
namespace {

constexpr decltype(std::declval<struct statfs>().f_type) kNsfsMagic = 0x6e736673;

int CloneFlag(NamespaceKind kind) {
  switch (kind) {
    case NamespaceKind::kNet: return CLONE_NEWNET;
    case NamespaceKind::kIpc: return CLONE_NEWIPC;
    case NamespaceKind::kUts: return CLONE_NEWUTS;
    case NamespaceKind::kUser: return CLONE_NEWUSER;
    case NamespaceKind::kPid: return CLONE_NEWPID;
  }
  return 0;
}

const char* ProcName(NamespaceKind kind) {
  switch (kind) {
    case NamespaceKind::kNet: return "net";
    case NamespaceKind::kIpc: return "ipc";
    case NamespaceKind::kUts: return "uts";
    case NamespaceKind::kUser: return "user";
    case NamespaceKind::kPid: return "pid";
  }
  return "";
}

Status MakePinFile(const std::string& path) {
  constexpr mode_t kMode = 0444;
  if (CRISP_TRY(IsPinnedNamespace(path))) {
    return AlreadyExists("pin a namespace: {} holds one already", path);
  }
  CRISP_TRY(Open(path, O_RDONLY | O_CREAT | O_NOFOLLOW, kMode));
  return Status::Ok();
}

struct NetnsRequest {
  int userns;
  int netns = -1;
  int error = 0;
};

/// Runs in the child of NewNetnsIn: only system calls.
int MakeNetns(void* argument) {
  auto* request = static_cast<NetnsRequest*>(argument);
  if (::setns(request->userns, CLONE_NEWUSER) != 0 || ::unshare(CLONE_NEWNET) != 0) {
    request->error = errno;
  } else {
    request->netns = ::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    if (request->netns < 0) request->error = errno;
  }
  return 0;
}

/// A network namespace that belongs to a user namespace. The kernel lets no thread of a process
/// with several enter a user namespace, so that a child does it: as with vfork(2) it has our memory
/// while the calling thread stands still, and it has our descriptors, which is how the namespace
/// gets out.
Result<UniqueFd> NewNetnsIn(int userns) {
  constexpr std::size_t kStackBytes = std::size_t{64} << 10U;
  const auto stack = std::make_unique<std::byte[]>(kStackBytes);
  NetnsRequest request{.userns = userns};
  // No handler of ours may run in the child.
  sigset_t all = {};
  sigset_t before = {};
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t child = ::clone(MakeNetns, stack.get() + kStackBytes,
                              CLONE_VM | CLONE_VFORK | CLONE_FILES | SIGCHLD, &request);
  const int clone_error = errno;
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (child < 0) return Status::Errno(clone_error, "start a child");
  while (::waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  if (request.error != 0) return Status::Errno(request.error, "make a network namespace");
  return UniqueFd(request.netns);
}

}  // namespace

Status OnOwnThread(const std::function<Status()>& fn, const std::function<void()>& meanwhile) {
  Status status;
  try {
    std::jthread thread([&status, &fn] { status = fn(); });
    if (meanwhile) meanwhile();
  } catch (const std::system_error& error) {
    return ResourceExhausted("start a thread: {}", error.what());
  }
  return status;
}

Result<std::vector<NamespacePin>> NamespacePin::PinAll(
    const std::string& proc_dir, const std::vector<NamespaceTarget>& targets) {
  std::vector<NamespacePin> pins;
  pins.reserve(targets.size());
  for (const NamespaceTarget& target : targets) {
    CRISP_TRY(MakePinFile(target.path));
    pins.push_back(NamespacePin(target.path));
    const std::string source = fmt::format("{}/ns/{}", proc_dir, ProcName(target.kind));
    if (::mount(source.c_str(), target.path.c_str(), nullptr, MS_BIND, nullptr) != 0) {
      return Status::Errno(errno, "pin a namespace at {}", target.path);
    }
  }
  return pins;
}

Result<std::vector<NamespacePin>> NamespacePin::Create(const std::vector<NamespaceTarget>& targets,
                                                       const std::function<Status()>& setup,
                                                       const std::function<void()>& meanwhile) {
  int flags = 0;
  for (const NamespaceTarget& target : targets) flags |= CloneFlag(target.kind);
  if (flags == 0) return std::vector<NamespacePin>();
  if ((flags & (CLONE_NEWUSER | CLONE_NEWPID)) != 0) {
    return InvalidArgument("a thread gets no user and no PID namespace");
  }
  std::vector<NamespacePin> pins;
  const auto make = [&targets, &setup, &pins, flags]() -> Status {
    if (::unshare(flags) != 0) return Status::Errno(errno, "make new namespaces");
    if (setup) CRISP_TRY(setup());
    pins = CRISP_TRY(PinAll("/proc/thread-self", targets));
    return Status::Ok();
  };
  const Status made = OnOwnThread(make, meanwhile);
  if (!made.ok()) return made;
  return pins;
}

Result<NamespacePin> NamespacePin::CreateNetIn(const std::string& userns_path,
                                               const std::string& path,
                                               const std::function<Status()>& setup,
                                               const std::function<void()>& meanwhile) {
  const UniqueFd userns = CRISP_TRY(Open(userns_path, O_RDONLY));
  const UniqueFd netns =
      CRISP_TRY(NewNetnsIn(userns.get()).While("user namespace {}", userns_path));
  NamespacePin pin("");
  const auto make = [&netns, &setup, &pin, &path]() -> Status {
    if (::setns(netns.get(), CLONE_NEWNET) != 0) {
      return Status::Errno(errno, "enter the new network namespace");
    }
    if (setup) CRISP_TRY(setup());
    CRISP_TRY(MakePinFile(path));
    pin = NamespacePin(path);
    if (::mount("/proc/thread-self/ns/net", path.c_str(), nullptr, MS_BIND, nullptr) != 0) {
      return Status::Errno(errno, "pin a namespace at {}", path);
    }
    return Status::Ok();
  };
  const Status made = OnOwnThread(make, meanwhile);
  if (!made.ok()) return made;
  return pin;
}

Result<std::vector<NamespacePin>> NamespacePin::OfProcess(
    pid_t pid, const std::vector<NamespaceTarget>& targets) {
  return PinAll(fmt::format("/proc/{}", pid), targets);
}

NamespacePin& NamespacePin::operator=(NamespacePin&& other) noexcept {
  if (this != &other) {
    if (!path_.empty()) static_cast<void>(UnpinNamespace(path_).ok());
    path_ = std::exchange(other.path_, {});
  }
  return *this;
}

NamespacePin::~NamespacePin() {
  // Best effort: whoever finds the file at the next start unpins it again.
  if (!path_.empty()) static_cast<void>(UnpinNamespace(path_).ok());
}

Status UnpinNamespace(const std::string& path) {
  // Lazily: a copy of the mount in another mount namespace must not make it busy.
  while (::umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0) {
  }
  if (errno != EINVAL && errno != ENOENT && errno != ENOTDIR) {
    return Status::Errno(errno, "unpin the namespace {}", path);
  }
  return RemoveFile(path);
}

Result<bool> IsPinnedNamespace(const std::string& path) {
  struct statfs info = {};
  if (::statfs(path.c_str(), &info) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) return false;
    return Status::Errno(errno, "statfs {}", path);
  }
  return info.f_type == kNsfsMagic;
}

Status RunInNamespaces(const std::vector<std::string>& paths, const std::function<Status()>& fn) {
  std::vector<UniqueFd> namespaces;
  namespaces.reserve(paths.size());
  for (const std::string& path : paths) {
    namespaces.push_back(CRISP_TRY(Open(path, O_RDONLY)));
  }
  return OnOwnThread([&namespaces, &paths, &fn]() -> Status {
    for (std::size_t i = 0; i < namespaces.size(); ++i) {
      if (::setns(namespaces[i].get(), 0) != 0) {
        return Status::Errno(errno, "enter the namespace {}", paths[i]);
      }
    }
    return fn();
  });
}

Status RunInNamespace(const std::string& path, const std::function<Status()>& fn) {
  return RunInNamespaces({path}, fn);
}

Status WriteIdMaps(pid_t pid, const IdRange& uids, const IdRange& gids) {
  const auto write = [pid](std::string_view file, const IdRange& ids) {
    return WriteExisting(fmt::format("/proc/{}/{}", pid, file),
                         fmt::format("{} {} {}\n", ids.inside, ids.outside, ids.count))
        .While("map ids {} to {}", ids.inside, ids.outside);
  };
  CRISP_TRY(write("uid_map", uids));
  return write("gid_map", gids);
}

Status WriteSysctl(const std::string& name, const std::string& value) {
  std::string path = name;
  const std::size_t separator = name.find_first_of("./");
  if (separator != std::string::npos && name[separator] == '.') {
    for (char& c : path) {
      if (c == '.') {
        c = '/';
      } else if (c == '/') {
        c = '.';
      }
    }
  }
  std::string_view rest = path;
  while (true) {
    const std::size_t end = std::min(rest.find('/'), rest.size());
    const std::string_view part = rest.substr(0, end);
    if (part.empty() || part == "." || part == ".." || part.find('\0') != std::string_view::npos) {
      return InvalidArgument("sysctl '{}': not a name", name);
    }
    if (end == rest.size()) break;
    rest.remove_prefix(end + 1);
  }
  return WriteExisting("/proc/sys/" + path, value).While("sysctl {}", name);
}

}  // namespace crisp::os
