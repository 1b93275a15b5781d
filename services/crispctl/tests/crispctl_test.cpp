#include <cstdlib>

#include "libs/testing/test_root.h"
#include "services/crispctl/client.h"
#include "services/crispctl/output.h"
#include "services/crispctl/remote.h"

using namespace crisp;
using namespace crisp::ctl;
using namespace std::chrono_literals;

TEST_CASE("Tables, sizes and ages read well") {
  Table table({"A", "LONGER"});
  table.Add({"wide cell", ""});
  table.Add({"b", "c"});
  CHECK(table.Render() == "A          LONGER\nwide cell\nb          c\n");
  CHECK(Size(0) == "0 B");
  CHECK(Size(999) == "999 B");
  CHECK(Size(1234) == "1.2 kB");
  CHECK(Size(220'500'000) == "220 MB");
  CHECK(Size(999'999) == "1.0 MB");
  CHECK(Age(5s) == "5s");
  CHECK(Age(3min) == "3m");
  CHECK(Age(72h) == "3d");
  CHECK(Since(0) == "-");
  CHECK(TimeOfDay(0) == "-");
  CHECK(TimeOfDay(1'700'000'000'000'000'000).starts_with("2023-11-1"));
  CHECK(ShortId("sha256:0123456789abcdef") == "0123456789abc");
  CHECK(Lower("CONTAINER_RUNNING", "CONTAINER_") == "running");
}

TEST_CASE("The socket is the flag's, the environment's, or the settings'") {
  const testing::TestRoot root;
  unsetenv("CRISP_ENDPOINT");
  root.Write("run/rund/1.sock", "");
  const std::string config = root.Write("crisp.yaml", "run_root: " + (root / "other") + "\n");
  auto flag = FindEndpoint("unix://" + (root / "run/crisp.sock"), "");
  REQUIRE(flag.ok());
  CHECK(flag->socket == root / "run/crisp.sock");
  CHECK(flag->run_root == root / "run");
  auto settings = FindEndpoint("", config);
  REQUIRE(settings.ok());
  CHECK(settings->socket == root / "other/crisp.sock");
  setenv("CRISP_ENDPOINT", (root / "run/crisp.sock").c_str(), 1);
  CHECK(FindEndpoint("", config)->socket == root / "run/crisp.sock");
  unsetenv("CRISP_ENDPOINT");
}

TEST_CASE("Without a daemon the sentence says where it looked and what to do") {
  const testing::TestRoot root;
  const Client client({root / "crisp.sock", root.path()});
  const Status status = client.Reach();
  CHECK(status.code() == Code::kUnavailable);
  CHECK(status.message().find("is crisp running?") == 0);
  CHECK(status.message().find(root / "crisp.sock") != std::string::npos);
  CHECK(status.message().find("systemctl start") != std::string::npos);
}

TEST_CASE("The outcome of a session is an exit code, or why there is none") {
  CHECK(ParseOutcome(R"({"metadata":{},"status":"Success"})").value() == 0);
  CHECK(ParseOutcome(R"({"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[)"
                     R"({"reason":"ExitCode","message":"42"}]}})")
            .value() == 42);
  const auto failed = ParseOutcome(R"({"status":"Failure","message":"no such program"})");
  CHECK(failed.status().message() == "no such program");
  CHECK(ParseOutcome("").code() == Code::kUnavailable);
  CHECK(ParseOutcome("in words").status().message() == "in words");
}

TEST_CASE("Ports of a port-forward") {
  CHECK(ParsePorts("8080:80")->local == 8080);
  CHECK(ParsePorts("8080:80")->remote == 80);
  CHECK(ParsePorts("80")->local == 80);
  CHECK(ParsePorts(":80")->local == 0);
  for (const char* text : {"", ":", "0", "80:", "x", "80/udp", "99999", "1:2:3"}) {
    CHECK_FALSE(ParsePorts(text).ok());
  }
}

TEST_CASE("Ctrl-P Ctrl-Q is found over pieces, everything else goes through") {
  DetachKeys keys;
  std::string typed = "ab\x10";
  CHECK_FALSE(keys.Filter(typed));
  CHECK(typed == "ab");
  typed = "\x10x";
  CHECK_FALSE(keys.Filter(typed));
  CHECK(typed == "\x10\x10x");
  typed = "y\x10";
  CHECK_FALSE(keys.Filter(typed));
  typed = "\x11z";
  CHECK(keys.Filter(typed));
  CHECK(typed.empty());
}
