#include "services/rund/spec/seccomp_table.h"

namespace crisp::rund {

const std::vector<SeccompDenial>& SeccompDenials() {
  static const std::vector<SeccompDenial> kDenials = {
      {"CAP_SYS_ADMIN",
       {"bpf",         "clone3",        "fanotify_init",   "fsconfig",   "fsmount",
        "fsopen",      "fspick",        "lookup_dcookie",  "mount",      "mount_setattr",
        "move_mount",  "open_tree",     "perf_event_open", "pivot_root", "quotactl",
        "quotactl_fd", "setdomainname", "sethostname",     "setns",      "syslog",
        "umount",      "umount2",       "unshare"},
       "Mounts and namespaces of one's own are a step on most ways out of a container; the rest "
       "reaches what the whole node shares. clone3 answers ENOSYS, upon which every libc takes "
       "clone: its flags are behind a pointer, where no filter sees them."},
      {"CAP_BPF", {"bpf"}, "Loads programs into the kernel."},
      {"CAP_PERFMON", {"perf_event_open"}, "Watches what other processes and the kernel do."},
      {"CAP_SYSLOG", {"syslog"}, "The kernel's log tells of other pods, and of addresses."},
      {"CAP_DAC_READ_SEARCH",
       {"open_by_handle_at"},
       "Opens a file by its number, past the directories, and so past the mount namespace."},
      {"CAP_SYS_BOOT", {"reboot"}, "The node is not the container's to restart."},
      {"CAP_SYS_CHROOT", {"chroot"}, "A root within the root is a known way out of both."},
      {"CAP_SYS_MODULE",
       {"delete_module", "finit_module", "init_module"},
       "Code in the kernel has no container."},
      {"CAP_SYS_PACCT", {"acct"}, "Writes down all processes of the node."},
      {"CAP_SYS_PTRACE",
       {"kcmp", "pidfd_getfd", "process_madvise", "userfaultfd"},
       "Look into other processes or take from them; userfaultfd stops the kernel in the middle of "
       "a copy, which exploits like."},
      {"CAP_SYS_RAWIO", {"ioperm", "iopl"}, "The ports of the hardware."},
      {"CAP_SYS_TIME",
       {"clock_settime", "clock_settime64", "settimeofday", "stime"},
       "The node has one clock for all."},
      {"CAP_SYS_TTY_CONFIG", {"vhangup"}, "Hangs up a terminal for whoever else has it."},
      {"CAP_SYS_NICE",
       {"get_mempolicy", "mbind", "migrate_pages", "move_pages", "set_mempolicy",
        "set_mempolicy_home_node"},
       "Tell and say on which memory nodes pages are; the node's scheduler is better placed."},
      {"",
       {"add_key", "keyctl", "request_key"},
       "No namespace parts the kernel's keys: a container would have those of others."},
      {"",
       {"io_uring_enter", "io_uring_register", "io_uring_setup"},
       "A second way to make system calls, which no filter sees, and a young one."},
      {"", {"kexec_file_load", "kexec_load"}, "Puts another kernel in the place of this one."},
      {"", {"swapoff", "swapon"}, "The swap space is the node's."},
      {"",
       {"_sysctl", "create_module", "get_kernel_syms", "nfsservctl", "query_module", "sysfs",
        "uselib", "ustat", "vm86", "vm86old"},
       "Left over from old kernels; nobody needs them, or looks after them."},
  };
  return kDenials;
}

const std::vector<SeccompCondition>& SeccompConditions() {
  static const std::vector<SeccompCondition> kConditions = {
      {"clone", "Without flags for new namespaces, unless the container has CAP_SYS_ADMIN.",
       "As for unshare above."},
      {"personality",
       "PER_LINUX and PER_LINUX32, each also with UNAME26, and the question for the present one.",
       "Other personas switch off the randomisation of addresses, or make all memory executable."},
      {"socket", "All families but AF_VSOCK.",
       "That one reaches the hypervisor, and no network namespace holds it back."},
  };
  return kConditions;
}

const std::vector<std::string_view>& SeccompNotThere() {
  static const std::vector<std::string_view> kNames = {
      "afs_syscall", "bdflush",  "break",  "epoll_ctl_old", "epoll_wait_old",
      "ftime",       "getpmsg",  "gtty",   "idle",          "lock",
      "mpx",         "prof",     "profil", "putpmsg",       "security",
      "sgetmask",    "ssetmask", "stty",   "tuxcall",       "ulimit",
      "vserver"};
  return kNames;
}

}  // namespace crisp::rund
