// crisp-exec PID_FILE STATUS_FD PROGRAM [ARGUMENT...]
//
// Stands between rund and an OCI runtime's `exec --detach`: the nearest subreaper, so that the
// command in the container becomes its child when the runtime ends, and its exit code can be known.
// (Without --detach runc waits for everybody who holds the command's output, a daemon that it
// started for instance; and stays in memory for as long.)
//
// Writes one line to STATUS_FD and ends: "runtime N" when PROGRAM itself failed, "exit N" with the
// command's exit code, 128 + n for signal n. What the command has left behind goes on.
// Static and small on purpose: it lives as long as the command does.
#include <fcntl.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <string_view>

namespace {

constexpr int kUsage = 64;

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

}  // namespace

int main(int argc, char** argv) {
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
  for (std::size_t i = 0; i < early_count; ++i) {
    if (early[i] == command) return Report(status_fd, "exit ", Code(early_statuses[i]));
  }
  std::size_t none = 0;
  const int ended = WaitFor(command, nullptr, nullptr, &none, 0);
  if (ended < 0) return Report(status_fd, "runtime ", 125);
  return Report(status_fd, "exit ", Code(ended));
}
