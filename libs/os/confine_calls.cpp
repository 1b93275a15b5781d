#include <sched.h>
#include <seccomp.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <array>
#include <memory>

#include "libs/base/try.h"
#include "libs/os/confine.h"

namespace crisp::os::internal {
namespace {

/// What our daemons' own code and libraries (gRPC, asio, SQLite, OpenSSL, libc) and plain helper
/// programs need. Whatever works on namespaces, mounts, other processes' memory, keys, modules,
/// raw devices or the machine's settings is not among it.
constexpr std::array kAllowed = {
    // memory
    "brk", "madvise", "membarrier", "mincore", "mlock", "mlock2", "mmap", "mprotect", "mremap",
    "msync", "munlock", "munmap", "memfd_create",
    // threads, time, signals
    "arch_prctl", "exit", "exit_group", "futex", "futex_waitv", "get_robust_list", "getcpu",
    "getitimer", "gettid", "prctl", "restart_syscall", "rseq", "sched_get_priority_max",
    "sched_get_priority_min", "sched_getaffinity", "sched_getattr", "sched_getparam",
    "sched_getscheduler", "sched_setaffinity", "sched_setattr", "sched_setscheduler", "sched_yield",
    "set_robust_list", "set_tid_address", "setitimer", "alarm", "clock_getres", "clock_gettime",
    "clock_nanosleep", "gettimeofday", "nanosleep", "time", "timer_create", "timer_delete",
    "timer_getoverrun", "timer_gettime", "timer_settime", "timerfd_create", "timerfd_gettime",
    "timerfd_settime", "times", "kill", "pause", "rt_sigaction", "rt_sigpending", "rt_sigprocmask",
    "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "sigaltstack",
    "signalfd", "signalfd4", "tgkill", "tkill",
    // who we are
    "capget", "getegid", "geteuid", "getgid", "getgroups", "getpgid", "getpgrp", "getpid",
    "getppid", "getpriority", "getrandom", "getresgid", "getresuid", "getrlimit", "getrusage",
    "getsid", "getuid", "prlimit64", "setpriority", "setrlimit", "sysinfo", "umask", "uname",
    "ioprio_get", "ioprio_set",
    // descriptors
    "close", "close_range", "dup", "dup2", "dup3", "fcntl", "ioctl", "lseek", "pipe", "pipe2",
    "poll", "ppoll", "select", "pselect6", "epoll_create", "epoll_create1", "epoll_ctl",
    "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd", "eventfd2", "inotify_add_watch",
    "inotify_init", "inotify_init1", "inotify_rm_watch", "read", "readv", "pread64", "preadv",
    "preadv2", "write", "writev", "pwrite64", "pwritev", "pwritev2", "sendfile", "splice", "tee",
    "vmsplice", "copy_file_range", "readahead", "fadvise64",
    // files
    "access", "faccessat", "faccessat2", "chdir", "fchdir", "chmod", "fchmod", "fchmodat",
    "fchmodat2", "chown", "fchown", "fchownat", "lchown", "creat", "open", "openat", "openat2",
    "fallocate", "flock", "ftruncate", "truncate", "fsync", "fdatasync", "sync_file_range",
    "syncfs", "getcwd", "getdents", "getdents64", "getxattr", "fgetxattr", "lgetxattr", "listxattr",
    "flistxattr", "llistxattr", "setxattr", "fsetxattr", "lsetxattr", "removexattr", "fremovexattr",
    "lremovexattr", "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat", "mkdir",
    "mkdirat", "rmdir", "rename", "renameat", "renameat2", "readlink", "readlinkat", "stat",
    "fstat", "lstat", "newfstatat", "statx", "statfs", "fstatfs", "utime", "utimes", "futimesat",
    "utimensat",
    // sockets
    "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen",
    "recvfrom", "recvmmsg", "recvmsg", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown",
    "socketpair"};

/// For those who start programs.
constexpr std::array kPrograms = {
    "execve",  "fork",  "vfork", "wait4", "waitid", "pidfd_open", "pidfd_send_signal",
    "setpgid", "setsid"};

/// The devices that an image may bring: those that no container is denied.
constexpr std::array kDevices = {
    std::pair{0U, 0U},                                        // overlayfs's whiteout
    std::pair{1U, 3U}, std::pair{1U, 5U}, std::pair{1U, 7U},  // null, zero, full
    std::pair{1U, 8U}, std::pair{1U, 9U},                     // random, urandom
    std::pair{5U, 0U}, std::pair{5U, 1U}, std::pair{5U, 2U}   // tty, console, ptmx
};

constexpr std::uint64_t kNewNamespaces = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS |
                                         CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;

/// The argument has this value.
scmp_arg_cmp Equal(unsigned argument, std::uint64_t value) {
  return {argument, SCMP_CMP_EQ, value, 0};
}
/// The bits of the mask have this value.
scmp_arg_cmp Masked(unsigned argument, std::uint64_t mask, std::uint64_t value) {
  return {argument, SCMP_CMP_MASKED_EQ, mask, value};
}

struct Release {
  void operator()(void* context) const { ::seccomp_release(context); }
};

class Filter {
 public:
  explicit Filter(std::uint32_t otherwise) : context_(::seccomp_init(otherwise)) {}
  Status LoadAbsent();
  Status LoadAllowed(const ConfinePlan& plan);

 private:
  template <typename... Compare>
  void Add(std::uint32_t action, int call, Compare... compare) {
    if (failed_ != 0) return;
    const std::array<scmp_arg_cmp, sizeof...(compare)> list{compare...};
    failed_ = -::seccomp_rule_add_array(context_.get(), action, call, sizeof...(compare),
                                        list.empty() ? nullptr : list.data());
  }
  template <typename... Compare>
  void Allow(const char* name, Compare... compare) {
    const int call = ::seccomp_syscall_resolve_name(name);
    if (call != __NR_SCMP_ERROR) Add(SCMP_ACT_ALLOW, call, compare...);
  }
  void Set(scmp_filter_attr attribute, std::uint32_t value) {
    if (failed_ == 0) failed_ = -::seccomp_attr_set(context_.get(), attribute, value);
  }
  void AllowDevices();
  template <typename Do>
  static void ForYoungCalls(Do&& todo);
  Status Load();

  std::unique_ptr<void, Release> context_;
  int failed_ = 0;
};

void Filter::AllowDevices() {
  const scmp_datum_t kind = S_IFMT;
  const scmp_datum_t all = 0xffffffffU;  // the kernel reads 32 bits
  Allow("mknodat", Masked(2, kind, S_IFIFO));
  Allow("mknodat", Masked(2, kind, S_IFREG));
  for (const auto& [major, minor] : kDevices)
    Allow("mknodat", Masked(2, kind, S_IFCHR), Masked(3, all, major << 8U | minor));
}

/// Calls that must look absent, so that libc goes its older way. clone3: its flags are in memory,
/// where no filter can look; libc takes clone instead. And whatever is younger than libseccomp.
template <typename Do>
void Filter::ForYoungCalls(Do&& todo) {
  todo(::seccomp_syscall_resolve_name("clone3"));
  constexpr int kFirstYoung = 450;
  constexpr int kLastYoung = 511;
  for (int call = kFirstYoung; call <= kLastYoung; ++call) {
    char* name = ::seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, call);
    if (name == nullptr) todo(call);
    std::free(name);
  }
}

Status Filter::Load() {
  if (!context_) return Internal("libseccomp makes no filter");
  Set(SCMP_FLTATR_CTL_TSYNC, 1);
  if (failed_ == 0) failed_ = -::seccomp_load(context_.get());
  if (failed_ != 0) return Status::Errno(failed_, "load the filter of system calls");
  return Status::Ok();
}

/// A filter of its own, because these are daily business and not for the audit log.
Status Filter::LoadAbsent() {
  ForYoungCalls([this](int call) { Add(SCMP_ACT_ERRNO(ENOSYS), call); });
  return Load();
}

Status Filter::LoadAllowed(const ConfinePlan& plan) {
  Set(SCMP_FLTATR_CTL_LOG, 1);
  Set(SCMP_FLTATR_CTL_OPTIMIZE, 2);  // a binary tree
  Set(SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
  for (const char* name : kAllowed) Allow(name);
  AllowDevices();
  for (const int family : {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK})
    Allow("socket", Equal(0, static_cast<std::uint64_t>(family)));
  // A thread's own umask and working directory, no namespace.
  Allow("unshare", Equal(0, CLONE_FS));
  if (plan.programs) {
    for (const char* name : kPrograms) Allow(name);
    Allow("clone", Masked(0, kNewNamespaces, 0));
  } else {
    Allow("clone", Masked(0, kNewNamespaces | CLONE_THREAD, CLONE_THREAD));
  }
  // The other filter has the say about these.
  ForYoungCalls([this](int call) { Add(SCMP_ACT_ALLOW, call); });
  return Load();
}

}  // namespace

Status FilterSystemCalls(const ConfinePlan& plan) {
  // The allow-list knows no seccomp(2): it comes last.
  CRISP_TRY(Filter(SCMP_ACT_ALLOW).LoadAbsent());
  return Filter(SCMP_ACT_ERRNO(EPERM)).LoadAllowed(plan);
}

}  // namespace crisp::os::internal
