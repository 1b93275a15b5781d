/* crisp-pause [NAMESPACE_FILE...]
 * crisp-pause --hold KIND...
 *
 * PID 1 of a pod whose containers share one PID namespace. Enters the namespaces given, makes a new PID and a new
 * mount namespace, and starts the one process that stays: it has an empty read-only root, no capabilities and no
 * descriptors but /dev/null, reaps what the pod's containers orphan, and ends at SIGTERM (or SIGKILL), which ends
 * everything in its PID namespace. Prints its pid once it stands, then returns 0; else says why on stderr, 1.
 * The process that stays ends again at the end of stdin, until it has got a byte from there: then somebody knows of it
 * who will end it. A daemon that dies before that leaves nothing.
 *
 * With --hold it makes new namespaces (user, ipc, uts, net; a user namespace owns the others), prints a line, and keeps
 * them until its stdin ends. Whoever started it pins them meanwhile. A daemon with threads cannot: only a process with
 * a single thread gets a user namespace. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/capability.h>

static void Say(const char* what) { dprintf(2, "%s: %s\n", what, strerror(errno)); }

/* The whole of its file system: one empty tmpfs, read-only; /proc is a directory that there always is. */
static int EmptyRoot(void) {
  if (mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) return -1;
  if (mount("pause", "/proc", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4k,mode=555") != 0) return -1;
  if (chdir("/proc") != 0) return -1;
  if (syscall(SYS_pivot_root, ".", ".") != 0) return -1;
  if (umount2(".", MNT_DETACH) != 0) return -1;
  if (mount("", "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) != 0) return -1;
  return chdir("/");
}

static int DropAll(void) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct none[2];
  int cap;
  memset(none, 0, sizeof none);
  for (cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; ++cap) {
    if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0) return -1;
  }
  if (syscall(SYS_capset, &header, none) != 0) return -1;
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

static int Stay(int ready, int null_fd) {
  sigset_t all;
  int signal = 0;
  char byte;
  sigfillset(&all);
  /* Nothing interrupts: signals are waited for. */
  if (sigprocmask(SIG_SETMASK, &all, NULL) != 0) return 1;
  if (setsid() < 0 || EmptyRoot() != 0 || DropAll() != 0) {
    Say("pause");
    return 1;
  }
  /* Who reads our output waits for its end. */
  if (dup2(null_fd, 1) < 0 || dup2(null_fd, 2) < 0) return 1;
  if (write(ready, "1", 1) != 1 || read(0, &byte, 1) != 1) return 1;
  if (dup2(null_fd, 0) < 0) return 1;
  syscall(SYS_close_range, 1U, ~0U, 0U);
  for (;;) {
    if (sigwait(&all, &signal) != 0) continue;
    if (signal == SIGTERM || signal == SIGINT) return 0;
    while (signal == SIGCHLD && waitpid(-1, NULL, WNOHANG) > 0) {
    }
  }
}

static int Hold(int count, char** kinds) {
  static const struct {
    const char* name;
    int flag;
  } known[] = {{"user", CLONE_NEWUSER}, {"ipc", CLONE_NEWIPC}, {"uts", CLONE_NEWUTS}, {"net", CLONE_NEWNET}};
  int flags = 0;
  int i;
  size_t k;
  char byte;
  for (i = 0; i < count; ++i) {
    for (k = 0; k < sizeof known / sizeof known[0]; ++k) {
      if (strcmp(kinds[i], known[k].name) == 0) flags |= known[k].flag;
    }
  }
  if (unshare(flags) != 0) {
    Say("unshare");
    return 1;
  }
  if (write(1, "1\n", 2) != 2) return 1;
  while (read(0, &byte, 1) > 0) {
  }
  return 0;
}

int main(int argc, char** argv) {
  int pipe_fds[2];
  int i;
  int null_fd;
  char byte;
  pid_t pid;
  if (argc > 1 && strcmp(argv[1], "--hold") == 0) return Hold(argc - 2, argv + 2);
  for (i = 1; i < argc; ++i) {
    int fd = open(argv[i], O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, 0) != 0) {
      Say(argv[i]);
      return 1;
    }
    close(fd);
  }
  if (pipe2(pipe_fds, O_CLOEXEC) != 0 || unshare(CLONE_NEWPID | CLONE_NEWNS) != 0) {
    Say("unshare");
    return 1;
  }
  pid = fork();
  if (pid < 0) {
    Say("fork");
    return 1;
  }
  if (pid == 0) {
    null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null_fd < 0) return 1;
    close(pipe_fds[0]);
    return Stay(pipe_fds[1], null_fd);
  }
  close(pipe_fds[1]);
  if (read(pipe_fds[0], &byte, 1) != 1) {
    waitpid(pid, NULL, 0);
    dprintf(2, "the pause process did not start\n");
    return 1;
  }
  printf("%d\n", (int)pid);
  return 0;
}
