// Logs that conmon writes by itself, and their rotation.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <csignal>
#include <future>
#include <sstream>

#include "libs/os/files.h"
#include "services/rund/runtime/conmon.h"
#include "services/rund/tests/test_node.h"

using namespace crisp;        // NOLINT
using namespace crisp::rund;  // NOLINT
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

/// Writes one number after the other.
const std::vector<std::string> kCounting = {
    "sh", "-c", "i=0; while :; do echo $i; i=$((i+1)); sleep 0.005; done"};

void AwaitMore(const std::string& path) {
  const std::size_t before = os::ReadFile(path).value_or("").size();
  TestNode::Await([&] { return os::ReadFile(path).value_or("").size() > before; });
}

/// All numbers from 0 on, each once, in lines as they should be.
bool CountsOn(const std::string& log) {
  std::istringstream lines(log);
  int next = 0;
  for (std::string line; std::getline(lines, line); ++next) {
    const std::string end = " stdout F " + std::to_string(next);
    if (!line.ends_with(end) || line.size() != 35 + end.size()) {
      UNSCOPED_INFO("expected " << next << ", found: " << line);
      return false;
    }
  }
  return next > 0;
}

/// A directory with the files that conmon has, in the hands of the test.
struct Monitor {
  Monitor() {
    REQUIRE(mkfifo((root / "ctl").c_str(), 0600) == 0);
    ctl = os::Open(root / "ctl", O_RDWR | O_NONBLOCK).value();
  }
  Status Reopen(std::chrono::nanoseconds timeout) const {
    return ReopenLog(CallContext::Background(timeout), root.path(), log,
                     os::ProcessId::Of(getpid()).value());
  }
  /// What waits in the fifo.
  std::string Orders() const {
    char text[256];
    const ssize_t n = read(ctl.get(), text, sizeof text);
    return {text, static_cast<std::size_t>(std::max<ssize_t>(n, 0))};
  }

  testing::TestRoot root;
  std::string log = root / "0.log";
  os::UniqueFd ctl;
};

}  // namespace

TEST_CASE("A monitor that is held up is left without the order to reopen, and with the last size") {
  Monitor monitor;
  REQUIRE(os::WriteAll(monitor.ctl.get(), "1 24 80\n1 30 90\n1 40 100\n", "ctl").ok());
  CHECK(monitor.Reopen(milliseconds(50)).code() == Code::kUnavailable);
  CHECK(monitor.Orders() == "1 24 80\n1 40 100\n");
  CHECK_FALSE(os::Exists(monitor.log));
  CHECK_FALSE(os::Exists(monitor.log + ".tmp"));
}

TEST_CASE("A monitor that is about to reopen its log is waited for") {
  Monitor monitor;
  auto reopened = std::async(std::launch::async, [&] { return monitor.Reopen(seconds(20)); });
  TestNode::Await([&] { return monitor.Orders() == "2 0 0\n"; });
  // Longer than one that listens ever takes.
  CHECK(reopened.wait_for(milliseconds(2200)) == std::future_status::timeout);
  const auto opened = os::Open(monitor.log + ".tmp", O_WRONLY | O_TRUNC | O_CREAT, 0600);
  REQUIRE(opened.ok());
  REQUIRE(os::Rename(monitor.log + ".tmp", monitor.log).ok());
  CHECK(reopened.get().ok());
  struct stat file {};
  REQUIRE(stat(monitor.log.c_str(), &file) == 0);
  CHECK((file.st_mode & 0777U) == 0640U);
}

TEST_CASE("A reopen that was given up does nothing to the log that was put back") {
  TestNode node;
  const ContainerId id = node.Run(node.Pod(), {.command = kCounting});
  const std::string path = node.StatusOf(id).log_path();
  const pid_t monitor = node.state().FindContainer(id)->monitor().pid();
  AwaitMore(path);
  REQUIRE(os::Rename(path, path + ".old").ok());
  REQUIRE(kill(monitor, SIGSTOP) == 0);
  CHECK(node.containers().ReopenLog(TestNode::Call(), id).code() == Code::kUnavailable);
  CHECK_FALSE(os::Exists(path));
  CHECK_FALSE(os::Exists(path + ".tmp"));
  REQUIRE(os::Rename(path + ".old", path).ok());
  REQUIRE(kill(monitor, SIGCONT) == 0);
  AwaitMore(path);
  REQUIRE(os::Rename(path, path + ".old").ok());
  REQUIRE(node.containers().ReopenLog(TestNode::Call(), id).ok());
  AwaitMore(path);
  CHECK(node.End(id, seconds(0)).ok());
  CHECK(CountsOn(os::ReadFile(path + ".old").value() + os::ReadFile(path).value()));
}

TEST_CASE("Two that reopen a log at the same time lose no line of it") {
  TestNode node;
  const ContainerId id = node.Run(node.Pod(), {.command = kCounting});
  const std::string path = node.StatusOf(id).log_path();
  AwaitMore(path);
  std::string all;
  for (int i = 0; i < 50; ++i) {
    const std::string old = path + "." + std::to_string(i);
    REQUIRE(os::Rename(path, old).ok());
    const auto reopen = [&] { return node.containers().ReopenLog(TestNode::Call(), id); };
    auto other = std::async(std::launch::async, reopen);
    CHECK(reopen().ok());
    CHECK(other.get().ok());
    struct stat file {};
    REQUIRE(stat(path.c_str(), &file) == 0);
    CHECK((file.st_mode & 0777U) == 0640U);
    all += os::ReadFile(old).value();
    AwaitMore(path);
  }
  CHECK(node.End(id, seconds(0)).ok());
  CHECK(CountsOn(all + os::ReadFile(path).value()));
}
