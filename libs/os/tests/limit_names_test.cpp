#include "libs/os/limit_names.h"

#include <sys/resource.h>

#include <catch2/catch.hpp>

namespace crisp::os {

TEST_CASE("capabilities are known by name, with or without CAP_, in any case") {
  CHECK(CapabilityNumber("CAP_CHOWN") == 0);
  CHECK(CapabilityNumber("chown") == 0);
  CHECK(CapabilityNumber("Checkpoint_Restore") == kCapabilities - 1);
  CHECK_FALSE(CapabilityNumber("CAP_EVERYTHING"));
  CHECK_FALSE(CapabilityNumber(""));
  for (int number = 0; number < kCapabilities; ++number) {
    CHECK(CapabilityNumber(CapabilityName(number)) == number);
  }
  CHECK(IsAllCapabilities("all"));
  CHECK(CheckCapability("CAP_ALL").ok());
  CHECK(CheckCapability("net_raw").ok());
  CHECK(CheckCapability("NET_RAV").message() ==
        "'NET_RAV' is no capability (did you mean 'NET_RAW'?)");
}

TEST_CASE("resource limits are known by name, with or without RLIMIT_") {
  REQUIRE(FindResourceLimit("nofile") != nullptr);
  CHECK(FindResourceLimit("nofile")->name == "RLIMIT_NOFILE");
  CHECK(FindResourceLimit("RLIMIT_STACK")->resource == RLIMIT_STACK);
  CHECK(FindResourceLimit("files") == nullptr);
}

TEST_CASE("a limit is name=soft:hard, and -1 is none") {
  const auto limit = ParseUlimit("nofile=1024:-1");
  REQUIRE(limit.ok());
  CHECK(limit->name == "nofile");
  CHECK(limit->soft == 1024);
  CHECK(limit->hard == RLIM_INFINITY);
  CHECK(ParseUlimit("RLIMIT_CORE=0:0").ok());
  CHECK(ParseUlimit("core=-1:-1").ok());
  for (const char* text : {"", "nofile", "=1:2", "nofile=1", "nofile=:2", "nofile=1:", "nofile=a:b",
                           "nofile=1:2:3", "nofile=-2:1", "nofile=99999999999999999999:1"}) {
    INFO(text);
    CHECK(ParseUlimit(text).code() == Code::kInvalidArgument);
  }
  CHECK(ParseUlimit("nofile=2:1").status().message() == "'nofile=2:1' has more soft than hard");
  CHECK(ParseUlimit("nofile=-1:1").code() == Code::kInvalidArgument);
  CHECK(ParseUlimit("nofiles=1:2")
            .status()
            .message()
            .starts_with("'nofiles' is no limit that the kernel knows (did you mean 'nofile'?) "
                         "(known: as, core, "));
}

TEST_CASE("a umask is octal") {
  CHECK(ParseUmask("0022").value_or(0) == 022);
  CHECK(ParseUmask("77").value_or(0) == 077);
  for (const char* text : {"", "0800", "1000", "-1", "0x1f", "22 "}) {
    INFO(text);
    CHECK(ParseUmask(text).code() == Code::kInvalidArgument);
  }
}

}  // namespace crisp::os
