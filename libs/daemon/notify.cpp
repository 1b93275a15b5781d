#include "libs/daemon/notify.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "libs/os/unique_fd.h"

namespace crisp::daemon {

Status NotifyTo(const std::string& socket_name, std::string_view state) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_name.size() < 2 || socket_name.size() >= sizeof address.sun_path ||
      (socket_name[0] != '/' && socket_name[0] != '@')) {
    return InvalidArgument("NOTIFY_SOCKET '{}' is no unix socket", socket_name);
  }
  std::memcpy(address.sun_path, socket_name.data(), socket_name.size());
  if (socket_name[0] == '@') address.sun_path[0] = '\0';
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socket_name.size());
  const os::UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd) return Status::Errno(errno, "socket");
  // sockaddr_un is what sendto(2) means by sockaddr.
  const auto* target = reinterpret_cast<const sockaddr*>(&address);
  if (sendto(fd.get(), state.data(), state.size(), MSG_NOSIGNAL, target, size) < 0) {
    return Status::Errno(errno, "notify {}", socket_name);
  }
  return Status::Ok();
}

Status Notify(std::string_view state) {
  const char* name = std::getenv("NOTIFY_SOCKET");
  return name == nullptr ? Status::Ok() : NotifyTo(name, state);
}

std::optional<std::chrono::microseconds> WatchdogPeriod() {
  const auto number = [](const char* name) -> std::optional<std::int64_t> {
    const char* text = std::getenv(name);
    if (text == nullptr) return std::nullopt;
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(text, text + std::strlen(text), value);
    return error == std::errc() && *end == '\0' && value > 0 ? value : 0;
  };
  const std::optional<std::int64_t> pid = number("WATCHDOG_PID");
  if (pid && *pid != getpid()) return std::nullopt;
  const std::int64_t microseconds = number("WATCHDOG_USEC").value_or(0);
  if (microseconds < 2) return std::nullopt;
  return std::chrono::microseconds(microseconds / 2);
}

}  // namespace crisp::daemon
