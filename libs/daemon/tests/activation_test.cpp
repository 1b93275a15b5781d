#include "libs/daemon/activation.h"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <string>

namespace crisp::daemon {
namespace {

void Set(const std::string& pid, const std::string& fds) {
  REQUIRE(setenv("LISTEN_PID", pid.c_str(), 1) == 0);
  REQUIRE(setenv("LISTEN_FDS", fds.c_str(), 1) == 0);
  REQUIRE(setenv("LISTEN_FDNAMES", "cri", 1) == 0);
}

}  // namespace

// What is handed over for real is the matter of the front's own test.
TEST_CASE("No socket is taken that is not meant for this process") {
  CHECK(TakeListeners()->empty());
  Set(std::to_string(getppid()), "1");
  CHECK(TakeListeners()->empty());
  for (const char* name : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}) {
    CHECK(std::getenv(name) == nullptr);
  }
}

TEST_CASE("Variables that make no sense are refused by name") {
  const std::string me = std::to_string(getpid());
  for (const char* fds : {"", "many", "-1", "1x", "100000"}) {
    Set(me, fds);
    const auto taken = TakeListeners();
    CHECK(taken.code() == Code::kInvalidArgument);
    CHECK(taken.status().message().find("LISTEN_FDS") != std::string::npos);
  }
  Set("x", "1");
  CHECK(TakeListeners().status().message().find("LISTEN_PID") != std::string::npos);
  Set(me, "0");
  CHECK(TakeListeners()->empty());
}

}  // namespace crisp::daemon
