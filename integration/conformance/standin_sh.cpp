// The shell of the stand-in images: busybox's, but a command of one word is executed as the file
// that it is.
//
// Debian's busybox-static runs its own applets without looking at the file system; the shell of the
// images that it stands in for looks, and so finds out that the file of a command was masked.
// Everything else is left to busybox.
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string_view>

namespace {

constexpr const char* kBusybox = "/bin/busybox";
constexpr int kNotExecutable = 126;  // POSIX, 2.8.2

/// The name of a program and nothing that a shell would do itself.
bool IsOneProgram(std::string_view command) {
  constexpr std::string_view kPlain = "abcdefghijklmnopqrstuvwxyz0123456789_-./";
  return !command.empty() && command.find_first_not_of(kPlain) == std::string_view::npos;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && std::string_view(argv[1]) == "-c" && IsOneProgram(argv[2])) {
    ::execlp(argv[2], argv[2], nullptr);
    if (errno != ENOENT) {  // absent: a builtin, or the shell's own error
      std::fprintf(stderr, "%s: %s: %s\n", argv[0], argv[2], std::strerror(errno));
      return kNotExecutable;
    }
  }
  ::execv(kBusybox, argv);
  std::fprintf(stderr, "%s: %s: %s\n", argv[0], kBusybox, std::strerror(errno));
  return kNotExecutable;
}
