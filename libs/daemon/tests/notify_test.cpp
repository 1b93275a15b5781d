#include "libs/daemon/notify.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstdlib>

#include "libs/os/unique_fd.h"
#include "libs/testing/test_root.h"

namespace crisp::daemon {

TEST_CASE("readiness is one datagram to the socket, by path or abstract") {
  testing::TestRoot root;
  for (std::string name : {root / "n", "@crisp" + root.path()}) {
    const os::UniqueFd fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    name.copy(address.sun_path, sizeof address.sun_path - 1);
    if (name[0] == '@') address.sun_path[0] = '\0';
    REQUIRE(bind(fd.get(), reinterpret_cast<const sockaddr*>(&address),
                 static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size())) == 0);
    REQUIRE(NotifyTo(name, "READY=1").ok());
    std::array<char, 64> buffer{};
    const ssize_t got = recv(fd.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    REQUIRE(got > 0);
    CHECK(std::string_view(buffer.data(), static_cast<std::size_t>(got)) == "READY=1");
  }
  CHECK(NotifyTo("relative", "READY=1").code() == Code::kInvalidArgument);
  CHECK_FALSE(NotifyTo(root / "none", "READY=1").ok());
}

TEST_CASE("the watchdog hears of us twice as often as it wants to, if it is meant for us") {
  const auto period = [](const char* usec, const std::string& pid) {
    setenv("WATCHDOG_USEC", usec, 1);
    setenv("WATCHDOG_PID", pid.c_str(), 1);
    const auto answer = WatchdogPeriod();
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
    return answer;
  };
  CHECK_FALSE(WatchdogPeriod());
  CHECK(period("3000000", std::to_string(getpid())) == std::chrono::milliseconds(1500));
  CHECK_FALSE(period("3000000", std::to_string(getppid())));
  for (const char* wrong : {"", "0", "1", "-5", "soon", "5s"}) {
    CHECK_FALSE(period(wrong, std::to_string(getpid())));
  }
  setenv("WATCHDOG_USEC", "2000", 1);
  CHECK(WatchdogPeriod() == std::chrono::milliseconds(1));
  unsetenv("WATCHDOG_USEC");
}

}  // namespace crisp::daemon
