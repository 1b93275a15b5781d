#include <catch2/catch.hpp>
#include <thread>

#include "libs/os/files.h"
#include "libs/testing/manual_clock.h"
#include "libs/testing/test_root.h"

namespace crisp::testing {
namespace {

using namespace std::chrono_literals;

TEST_CASE("A TestRoot goes with all that is in it") {
  std::string path;
  {
    const TestRoot root;
    path = root.path();
    CHECK(path.size() < 30);
    root.Write("a/b/c", "text");
    CHECK(root.Read("a/b/c") == "text");
    CHECK(root.Read("none").empty());
    CHECK(os::Exists(root.Script("x.sh", "exit 0")));
  }
  CHECK_FALSE(os::Exists(path));
}

TEST_CASE("A wait on a ManualClock ends when the clock is moved, not before") {
  ManualClock clock;
  const SteadyTime start = clock.Now();
  std::mutex mutex;
  std::condition_variable_any changed;
  std::atomic<bool> ended = false;
  std::thread waiter([&clock, &mutex, &changed, &ended, start] {
    std::unique_lock lock(mutex);
    const bool done = clock.WaitUntil(lock, changed, start + 5s, [] { return false; });
    ended = !done;
  });
  CHECK(clock.WaitForWaiters(1));
  clock.Advance(4s);
  CHECK_FALSE(ended);
  clock.Advance(1s);
  waiter.join();
  CHECK(ended);
  CHECK(clock.Now() == start + 5s);
}

TEST_CASE("A wait on a ManualClock ends when it is notified") {
  ManualClock clock;
  std::mutex mutex;
  std::condition_variable_any changed;
  bool flag = false;
  bool answer = false;
  std::thread waiter([&clock, &mutex, &changed, &flag, &answer] {
    std::unique_lock lock(mutex);
    answer = clock.WaitUntil(lock, changed, SteadyTime::max(), [&flag] { return flag; });
  });
  CHECK(clock.WaitForWaiters(1));
  {
    const std::scoped_lock lock(mutex);
    flag = true;
  }
  changed.notify_all();
  waiter.join();
  CHECK(answer);
}

}  // namespace
}  // namespace crisp::testing
