// crisp-exec [--tied] PID_FILE STATUS_FD PROGRAM [ARGUMENT...]
//
// Stands between rund and an OCI runtime's `exec --detach`: the nearest subreaper, so that the
// command in the container becomes its child when the runtime ends, and its exit code can be known.
// (Without --detach runc waits for everybody who holds the command's output, a daemon that it
// started for instance; and stays in memory for as long.)
//
// Writes one line to STATUS_FD and ends: "runtime N" when PROGRAM itself failed, "exit N" with the
// command's exit code, 128 + n for signal n. What the command has left behind goes on. Before that,
// without --tied, "started N" with the command's process: from then on its output is its own, and
// not what PROGRAM has to say.
// With --tied nobody but the reader of STATUS_FD ends a command that takes too long: when the
// reader is gone (rund was killed), the command is killed, with all that descends from it. Static
// and small on purpose: it lives as long as the command does.
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <string_view>

namespace {

constexpr int kUsage = 64;
constexpr int kDepth = 64;

int Code(int status) { return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status); }

int Report(int fd, std::string_view what, int code) {
  std::array<char, 32> line{};
  std::memcpy(line.data(), what.data(), what.size());
  char* end = std::to_chars(line.data() + what.size(), line.data() + line.size() - 1, code).ptr;
  *end++ = '\n';
  return write(fd, line.data(), static_cast<std::size_t>(end - line.data())) > 0 ? 0 : 1;
}

/// 0 when it cannot be read.
pid_t ReadPid(const char* path) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  std::array<char, 32> text{};
  const ssize_t size = read(fd, text.data(), text.size());
  close(fd);
  pid_t pid = 0;
  if (size > 0) std::from_chars(text.data(), text.data() + size, pid);
  return pid;
}

/// The status of `wanted`, -1 when it is no child of ours. Whoever else ends meanwhile is reaped
/// and noted as far as there is room.
int WaitFor(pid_t wanted, pid_t* others, int* other_statuses, std::size_t* other_count,
            std::size_t capacity) {
  while (true) {
    int status = 0;
    const pid_t pid = waitpid(-1, &status, 0);
    if (pid == wanted) return status;
    if (pid < 0 && errno == EINTR) continue;
    if (pid < 0) return -1;
    if (*other_count < capacity) {
      others[*other_count] = pid;
      other_statuses[(*other_count)++] = status;
    }
  }
}

bool IsNumber(const char* text) {
  return *text != '\0' && std::strspn(text, "0123456789") == std::strlen(text);
}

/// Stops `pid` and all that descends from it, then kills them, from the leaves up: nobody has a
/// child that we do not see. Deeper than `depth` nobody is looked for.
void KillTree(pid_t pid, int depth) {
  kill(pid, SIGSTOP);
  std::array<char, 64> path{};
  std::snprintf(path.data(), path.size(), "/proc/%d/task", static_cast<int>(pid));
  DIR* threads = depth > 0 ? opendir(path.data()) : nullptr;
  while (const dirent* thread = threads != nullptr ? readdir(threads) : nullptr) {
    if (!IsNumber(thread->d_name)) continue;
    std::snprintf(path.data(), path.size(), "/proc/%d/task/%.20s/children", static_cast<int>(pid),
                  thread->d_name);
    FILE* children = std::fopen(path.data(), "re");
    if (children == nullptr) continue;
    int child = 0;
    while (std::fscanf(children, "%d", &child) == 1) KillTree(child, depth - 1);
    std::fclose(children);
  }
  if (threads != nullptr) closedir(threads);
  kill(pid, SIGKILL);
}

/// Those that the command left to us; it itself is for later.
void ReapOthers(pid_t command) {
  siginfo_t info{};
  while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0 &&
         info.si_pid != command) {
    waitpid(info.si_pid, nullptr, 0);
    info.si_pid = 0;
  }
}

/// Until `pid` has ended: true; false as soon as nobody reads `status_fd` any more. Meanwhile, if
/// `reaps`, the orphans of `pid` do not stay zombies.
bool AwaitEnd(pid_t pid, int status_fd, bool reaps) {
  constexpr int kRound = 1000;  // milliseconds
  const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  if (pidfd < 0) return true;
  std::array<pollfd, 2> watched = {{{pidfd, POLLIN, 0}, {status_fd, 0, 0}}};
  bool read_on = true;
  while (watched[0].revents == 0 && read_on) {
    if (poll(watched.data(), watched.size(), reaps ? kRound : -1) < 0 && errno != EINTR) break;
    if (reaps) ReapOthers(pid);
    read_on = (watched[1].revents & POLLERR) == 0;
  }
  close(pidfd);
  return watched[0].revents != 0 || read_on;
}

}  // namespace

int main(int argc, char** argv) {
  const bool tied = argc > 1 && std::string_view(argv[1]) == "--tied";
  if (tied) {
    ++argv;
    --argc;
  }
  if (argc < 4) return kUsage;
  int status_fd = -1;
  const std::string_view number = argv[2];
  if (std::from_chars(number.data(), number.data() + number.size(), status_fd).ec != std::errc()) {
    return kUsage;
  }
  // Neither the runtime nor the command may hold it open.
  if (fcntl(status_fd, F_SETFD, FD_CLOEXEC) != 0) return kUsage;
  if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0) return Report(status_fd, "runtime ", errno);

  pid_t runtime = 0;
  if (const int error = posix_spawn(&runtime, argv[3], nullptr, nullptr, argv + 3, environ);
      error != 0) {
    return Report(status_fd, "runtime ", 127);
  }
  if (tied && !AwaitEnd(runtime, status_fd, /*reaps=*/false)) {
    KillTree(runtime, kDepth);
    if (const pid_t command = ReadPid(argv[1]); command > 0) KillTree(command, kDepth);
    return 1;
  }
  // A short command may end before we know that it is the one.
  std::array<pid_t, 16> early{};
  std::array<int, 16> early_statuses{};
  std::size_t early_count = 0;
  const int started =
      WaitFor(runtime, early.data(), early_statuses.data(), &early_count, early.size());
  if (started != 0) return Report(status_fd, "runtime ", Code(started));

  // From here on only the command, and what it starts, hold its streams: whoever has the other ends
  // sees when they are closed.
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) close(fd);
  const pid_t command = ReadPid(argv[1]);
  if (command <= 0) return Report(status_fd, "runtime ", 126);
  // Nobody may read it any more: the command goes on, and we reap it.
  std::signal(SIGPIPE, SIG_IGN);
  if (!tied) Report(status_fd, "started ", command);
  for (std::size_t i = 0; i < early_count; ++i) {
    if (early[i] == command) return Report(status_fd, "exit ", Code(early_statuses[i]));
  }
  if (tied && !AwaitEnd(command, status_fd, /*reaps=*/true)) {
    KillTree(command, kDepth);
    return 1;
  }
  std::size_t none = 0;
  const int ended = WaitFor(command, nullptr, nullptr, &none, 0);
  if (ended < 0) return Report(status_fd, "runtime ", 125);
  return Report(status_fd, "exit ", Code(ended));
}
