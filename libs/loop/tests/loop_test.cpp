#include "libs/loop/loop.h"

#include <fcntl.h>
#include <unistd.h>
#include <csignal>

#include <future>

#include "libs/os/files.h"
#include "libs/os/unique_fd.h"
#include "libs/testing/test_root.h"

using namespace std::chrono_literals;

namespace crisp::loop {
namespace {

/// Runs after all that the loop has to do now.
void Settle(Loop& loop) {
  std::promise<void> done;
  loop.Post([&done] { done.set_value(); });
  done.get_future().wait();
}

}  // namespace

TEST_CASE("what is posted runs on the loop's thread, in order") {
  Loop loop;
  std::string order;
  bool inside = false;
  loop.Post([&] { order += "a"; });
  loop.Post([&] { inside = loop.InLoop(); });
  loop.Start();
  loop.Post([&] { order += "b"; });
  Settle(loop);
  CHECK(order == "ab");
  CHECK(inside);
  CHECK_FALSE(loop.InLoop());
}

TEST_CASE("a timer fires once, a periodic one until its handle goes, also from within") {
  Loop loop;
  loop.Start();
  std::promise<void> once;
  const Timer timer = loop.After(1ms, [&once] { once.set_value(); });
  once.get_future().wait();

  std::promise<void> third;
  int count = 0;
  Timer every;
  loop.Post([&] {
    every = loop.Every(1ms, [&] {
      if (++count == 3) {
        every.Cancel();
        third.set_value();
      }
    });
  });
  third.get_future().wait();
  Settle(loop);
  CHECK(count == 3);
}

TEST_CASE("a cancelled timer does not fire and lets go of what it holds") {
  Loop loop;
  loop.Start();
  auto held = std::make_shared<int>(1);
  Timer timer = loop.After(1h, [held] { FAIL("fired"); });
  Settle(loop);
  timer.Cancel();
  Settle(loop);
  CHECK(held.use_count() == 1);
}

TEST_CASE("a readable descriptor is told until the handle goes") {
  Loop loop;
  loop.Start();
  int ends[2];
  REQUIRE(pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
  const os::UniqueFd reader(ends[0]);
  const os::UniqueFd writer(ends[1]);
  std::promise<std::string> read_all;
  std::string got;
  auto watch = loop.WatchReadable(reader.get(), [&] {
    char c = 0;
    if (read(reader.get(), &c, 1) == 1) got += c;
    if (got.size() == 3) read_all.set_value(got);
  });
  REQUIRE(watch.ok());
  REQUIRE(write(writer.get(), "abc", 3) == 3);
  CHECK(read_all.get_future().get() == "abc");
  watch->Cancel();
  Settle(loop);
  REQUIRE(write(writer.get(), "d", 1) == 1);
  Settle(loop);
  CHECK(got == "abc");
  CHECK_FALSE(loop.WatchReadable(-1, [] {}).ok());
}

TEST_CASE("a directory tells what appears and what goes") {
  testing::TestRoot root;
  Loop loop;
  loop.Start();
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::string> seen;
  const auto note = [&](const std::string& name, DirEvent event) {
    std::lock_guard lock(mutex);
    seen.push_back((event == DirEvent::kGone ? "-" : "+") + name);
    changed.notify_all();
  };
  const auto watch = loop.WatchDirectory(root.path(), note);
  REQUIRE(watch.ok());
  const auto wait_for = [&](const std::string& what) {
    std::unique_lock lock(mutex);
    return changed.wait_for(
        lock, 10s, [&] { return std::find(seen.begin(), seen.end(), what) != seen.end(); });
  };
  root.Write("a", "text");
  CHECK(wait_for("+a"));
  REQUIRE(os::Rename(root / "a", root / "b").ok());
  CHECK(wait_for("-a"));
  CHECK(wait_for("+b"));
  REQUIRE(os::RemoveFile(root / "b").ok());
  CHECK(wait_for("-b"));

  // The directory itself: moved away, or removed.
  for (const bool moved : {true, false}) {
    REQUIRE(os::MakeDirs(root / "inner").ok());
    const auto inner = loop.WatchDirectory(root / "inner", note);
    REQUIRE(inner.ok());
    {
      const std::lock_guard lock(mutex);
      std::erase(seen, "-");
    }
    CHECK(
        (moved ? os::Rename(root / "inner", root / "away") : os::RemoveTree(root / "inner")).ok());
    CHECK(wait_for("-"));
  }
  CHECK(loop.WatchDirectory(root / "none", [](const std::string&, DirEvent) {}).status().code() ==
        Code::kNotFound);
}

TEST_CASE("signals are told on the loop") {
  Loop loop;
  std::promise<int> got;
  const SignalWatch watch =
      loop.OnSignals({SIGUSR1}, [&got](int signal) { got.set_value(signal); });
  loop.Start();
  REQUIRE(kill(getpid(), SIGUSR1) == 0);
  CHECK(got.get_future().get() == SIGUSR1);
}

TEST_CASE("a loop stops with timers and watches under way") {
  Loop loop;
  loop.Start();
  Timer timer = loop.After(1h, [] {});
  loop.Stop();
  loop.Stop();
  timer.Cancel();
}

}  // namespace crisp::loop
