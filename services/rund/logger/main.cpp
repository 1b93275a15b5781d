// crisp-log NAME PID_FILE RATE BURST drop|block MAX_SIZE [again]
//
// Stands between conmon and the log of a container that is limited: reads what conmon writes into a
// FIFO (descriptor 0), and writes the lines to the file NAME in a directory (descriptor 3), no more
// than RATE bytes a second over time and BURST at once (0 = no limit). What comes too fast is left
// out (drop), with one line for each gap; or not read (block), which makes the container wait.
// Requests come over a listening socket (descriptor 4): see control.h. Started again for one that
// was lost, it says in the log that lines may be missing.
//
// Returns once it reads, and goes on in the background. It outlives rund, and ends when nobody has
// the FIFO open for writing any more and what was in it is in the file. So nothing has to end it:
// rund holds the FIFO open until conmon does. Static and small on purpose: one runs for each
// container that is limited.
#include <fcntl.h>
#include <unistd.h>

#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "services/rund/logger/control.h"
#include "services/rund/logger/relay.h"

namespace {

constexpr int kUsage = 64;

bool Number(std::string_view text, std::uint64_t* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc() && end == text.data() + text.size();
}

/// The child stands alone: no terminal, no session of rund's, no signal that is meant for that.
void Detach() {
  setsid();
  for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGPIPE}) std::signal(number, SIG_IGN);
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0) return;
  dup2(null, STDOUT_FILENO);
  dup2(null, STDERR_FILENO);
  close(null);
}

}  // namespace

int main(int argc, char** argv) {
  using crisp::rund::logger::Relay;
  crisp::rund::logger::RelayOptions options;
  if (argc != 7 && (argc != 8 || std::strcmp(argv[7], crisp::rund::logger::kAgain) != 0)) {
    return kUsage;
  }
  options.name = argv[1];
  options.pid_file = argv[2];
  options.block = std::strcmp(argv[5], "block") == 0;
  options.again = argc == 8;
  if (!Number(argv[3], &options.rate) || !Number(argv[4], &options.burst) ||
      !Number(argv[6], &options.max_size)) {
    return kUsage;
  }
  static Relay relay(options);
  if (const int error = relay.Open(); error != 0) {
    std::fprintf(stderr, "open %s: %s\n", argv[1], std::strerror(error));
    return 1;
  }
  const pid_t child = fork();
  if (child < 0) {
    std::perror("fork");
    return 1;
  }
  if (child > 0) _exit(0);
  Detach();
  relay.Run();
  return 0;
}
