#include "libs/daemon/activation.h"

#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <string>

#include "libs/base/try.h"

namespace crisp::daemon {
namespace {

constexpr int kFirst = 3;
constexpr int kMost = 64;

/// The variable, which is no more.
std::string Take(const char* name) {
  const char* value = std::getenv(name);
  std::string taken = value == nullptr ? "" : value;
  unsetenv(name);
  return taken;
}

Result<int> Number(const char* name, const std::string& text) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < 0) {
    return InvalidArgument("{}: '{}' is no number", name, text);
  }
  return number;
}

}  // namespace

Result<std::vector<rpc::Listener>> TakeListeners() {
  const std::string pid = Take("LISTEN_PID");
  const std::string fds = Take("LISTEN_FDS");
  Take("LISTEN_FDNAMES");
  std::vector<rpc::Listener> listeners;
  // They may be meant for whoever started us.
  if (pid.empty() || CRISP_TRY(Number("LISTEN_PID", pid)) != getpid()) return listeners;
  const int count = CRISP_TRY(Number("LISTEN_FDS", fds));
  if (count > kMost) return InvalidArgument("LISTEN_FDS: {} are too many", count);
  for (int fd = kFirst; fd < kFirst + count; ++fd) {
    listeners.push_back(CRISP_TRY(rpc::Listener::Inherit(os::UniqueFd(fd))
                                      .While("take over descriptor {} of LISTEN_FDS", fd)));
  }
  return listeners;
}

}  // namespace crisp::daemon
