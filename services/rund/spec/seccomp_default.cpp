#include "services/rund/spec/seccomp.h"
#include "services/rund/spec/security.h"

namespace crisp::rund {
namespace {

using nlohmann::json;
using Names = std::vector<std::string_view>;

constexpr int kEperm = 1;
constexpr int kEnosys = 38;

/// Denied to a container without the capability. A call may come back by any of several.
struct Gate {
  std::string_view capability;
  Names calls;
};

const std::vector<Gate>& Gates() {
  static const std::vector<Gate> kGates = {
      {"CAP_SYS_ADMIN",
       {"bpf",         "clone3",        "fanotify_init",   "fsconfig",   "fsmount",
        "fsopen",      "fspick",        "lookup_dcookie",  "mount",      "mount_setattr",
        "move_mount",  "open_tree",     "perf_event_open", "pivot_root", "quotactl",
        "quotactl_fd", "setdomainname", "sethostname",     "setns",      "syslog",
        "umount",      "umount2",       "unshare"}},
      {"CAP_BPF", {"bpf"}},
      {"CAP_PERFMON", {"perf_event_open"}},
      {"CAP_SYSLOG", {"syslog"}},
      {"CAP_DAC_READ_SEARCH", {"open_by_handle_at"}},
      {"CAP_SYS_BOOT", {"reboot"}},
      {"CAP_SYS_CHROOT", {"chroot"}},
      {"CAP_SYS_MODULE", {"delete_module", "finit_module", "init_module"}},
      {"CAP_SYS_PACCT", {"acct"}},
      {"CAP_SYS_PTRACE", {"kcmp", "pidfd_getfd", "process_madvise", "userfaultfd"}},
      {"CAP_SYS_RAWIO", {"ioperm", "iopl"}},
      {"CAP_SYS_TIME", {"clock_settime", "clock_settime64", "settimeofday", "stime"}},
      {"CAP_SYS_TTY_CONFIG", {"vhangup"}},
      {"CAP_SYS_NICE",
       {"get_mempolicy", "mbind", "migrate_pages", "move_pages", "set_mempolicy",
        "set_mempolicy_home_node"}},
  };
  return kGates;
}

/// Denied whatever the capabilities: they reach the kernel's own state or its keys, which no
/// namespace parts, or are a broad and young attack surface.
const Names& NeverAllowed() {
  static const Names kNames = {"_sysctl",        "add_key",
                               "create_module",  "get_kernel_syms",
                               "io_uring_enter", "io_uring_register",
                               "io_uring_setup", "kexec_file_load",
                               "kexec_load",     "keyctl",
                               "nfsservctl",     "query_module",
                               "request_key",    "swapoff",
                               "swapon",         "sysfs",
                               "uselib",         "ustat",
                               "vm86",           "vm86old"};
  return kNames;
}

/// Reserved numbers without an implementation, and calls older than any program in an image: they
/// answer ENOSYS, which is what the kernel says itself.
const Names& NotThere() {
  static const Names kNames = {"afs_syscall",    "bdflush", "break",    "epoll_ctl_old",
                               "epoll_wait_old", "ftime",   "getpmsg",  "gtty",
                               "idle",           "lock",    "mpx",      "prof",
                               "profil",         "putpmsg", "security", "sgetmask",
                               "ssetmask",       "stty",    "tuxcall",  "ulimit",
                               "vserver"};
  return kNames;
}

/// Allowed for some arguments only.
const Names& Conditional() {
  static const Names kNames = {"clone", "personality", "socket"};
  return kNames;
}

json Rule(const std::vector<std::string>& names, const char* action) {
  return {{"names", names}, {"action", action}};
}

json Argument(unsigned index, std::uint64_t value, std::uint64_t value_two, const char* op) {
  return {{"index", index}, {"value", value}, {"valueTwo", value_two}, {"op", op}};
}

json Denied(const std::vector<std::string>& names) {
  json rule = Rule(names, "SCMP_ACT_ERRNO");
  rule["errnoRet"] = kEperm;
  return rule;
}

void AddConditional(bool admin, json& rules) {
  // New namespaces are for CAP_SYS_ADMIN: CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}.
  if (admin) {
    rules.push_back(Rule({"clone"}, "SCMP_ACT_ALLOW"));
  } else {
    constexpr std::uint64_t kNamespaces = 0x7E020000;
    json allowed = Rule({"clone"}, "SCMP_ACT_ALLOW");
    allowed["args"] = json::array({Argument(0, kNamespaces, 0, "SCMP_CMP_MASKED_EQ")});
    rules.push_back(std::move(allowed));
    for (std::uint64_t bit = 1; bit <= kNamespaces; bit <<= 1U) {
      if ((kNamespaces & bit) == 0) continue;
      json denied = Denied({"clone"});
      denied["args"] = json::array({Argument(0, bit, bit, "SCMP_CMP_MASKED_EQ")});
      rules.push_back(std::move(denied));
    }
  }
  // PER_LINUX, PER_LINUX32, each also with UNAME26, and the question for the present one. Above all
  // not ADDR_NO_RANDOMIZE and READ_IMPLIES_EXEC.
  for (const std::uint64_t persona : {0x0ULL, 0x8ULL, 0x20000ULL, 0x20008ULL, 0xFFFFFFFFULL}) {
    json rule = Rule({"personality"}, "SCMP_ACT_ALLOW");
    rule["args"] = json::array({Argument(0, persona, 0, "SCMP_CMP_EQ")});
    rules.push_back(std::move(rule));
  }
  // AF_VSOCK reaches the hypervisor and no network namespace holds it back.
  constexpr std::uint64_t kVsock = 40;
  json others = Rule({"socket"}, "SCMP_ACT_ALLOW");
  others["args"] = json::array({Argument(0, kVsock, 0, "SCMP_CMP_NE")});
  rules.push_back(std::move(others));
  json vsock = Denied({"socket"});
  vsock["args"] = json::array({Argument(0, kVsock, 0, "SCMP_CMP_EQ")});
  rules.push_back(std::move(vsock));
}

}  // namespace

json DefaultSeccomp(const CapabilitySets& capabilities) {
  std::set<std::string_view> denied(NeverAllowed().begin(), NeverAllowed().end());
  for (const Gate& gate : Gates()) denied.insert(gate.calls.begin(), gate.calls.end());
  for (const Gate& gate : Gates()) {
    if (!capabilities.Has(gate.capability)) continue;
    for (const std::string_view call : gate.calls) denied.erase(call);
  }
  std::set<std::string_view> unlisted(NotThere().begin(), NotThere().end());
  unlisted.insert(Conditional().begin(), Conditional().end());
  // Its flags are behind a pointer, where no filter sees them; on ENOSYS every libc takes clone.
  if (denied.erase("clone3") > 0) unlisted.insert("clone3");

  std::vector<std::string> allow;
  std::vector<std::string> deny;
  for (const std::string& name : KnownSyscalls()) {
    if (unlisted.contains(name)) continue;
    (denied.contains(name) ? deny : allow).push_back(name);
  }
  json rules = json::array();
  rules.push_back(Rule(allow, "SCMP_ACT_ALLOW"));
  AddConditional(capabilities.Has("CAP_SYS_ADMIN"), rules);
  rules.push_back(Denied(deny));
  return {{"defaultAction", "SCMP_ACT_ERRNO"},
          {"defaultErrnoRet", kEnosys},
          {"architectures", SeccompArchitectures()},
          {"syscalls", std::move(rules)}};
}

}  // namespace crisp::rund
