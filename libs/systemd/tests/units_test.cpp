#include "libs/systemd/units.h"

#include <catch2/catch.hpp>
#include <future>

#include "libs/systemd/tests/fake_systemd.h"
#include "libs/testing/test_root.h"

using namespace crisp;           // NOLINT
using namespace crisp::systemd;  // NOLINT
using Do = FakeSystemd::Do;

namespace {

CallContext Call(std::chrono::milliseconds timeout = std::chrono::seconds(20)) {
  return CallContext::Background(timeout, "test");
}

struct Bus {
  testing::TestRoot root;
  FakeSystemd fake{root / "bus"};
  Units units{fake.address()};
};

bool Says(const Status& status, const std::string& words) {
  INFO(status.ToString());
  return status.message().find(words) != std::string::npos;
}

}  // namespace

TEST_CASE("Units are started with their properties, changed and stopped") {
  Bus bus;
  CHECK(bus.units.Version(Call()).value() == "252.fake");
  const Properties properties = {{"Description", "a pod"},
                                 {"Delegate", true},
                                 {"MemoryMax", std::uint64_t{100}},
                                 {"PIDs", std::vector<std::uint32_t>{7, 8}},
                                 {"AllowedCPUs", std::vector<std::uint8_t>{3}}};
  REQUIRE(bus.units.StartTransient(Call(), "a.slice", properties).ok());
  auto set = bus.fake.properties();
  CHECK(set.at("a.slice/Description") == "s a pod");
  CHECK(set.at("a.slice/Delegate") == "b true");
  CHECK(set.at("a.slice/MemoryMax") == "t 100");
  CHECK(set.at("a.slice/PIDs") == "au 7 8");
  CHECK(set.at("a.slice/AllowedCPUs") == "ay 3");
  REQUIRE(bus.units.Set(Call(), "a.slice", {{"MemoryMax", std::uint64_t{200}}}).ok());
  CHECK(bus.fake.properties().at("a.slice/MemoryMax") == "t 200");
  CHECK(bus.units.Set(Call(), "a.slice", {}).ok());
  REQUIRE(bus.units.Stop(Call(), "a.slice").ok());
  REQUIRE(bus.units.Stop(Call(), "a.slice").ok());
  CHECK(bus.units.Set(Call(), "a.slice", {{"Delegate", true}}).code() == Code::kNotFound);
  CHECK(bus.fake.connections() == 1);
}

TEST_CASE("systemd's refusals keep their meaning and words") {
  Bus bus;
  REQUIRE(bus.units.StartTransient(Call(), "a.scope", {}).ok());
  const Status again = bus.units.StartTransient(Call(), "a.scope", {});
  CHECK(again.code() == Code::kAlreadyExists);
  CHECK(Says(again, "start a.scope: systemd: Unit a.scope was already loaded"));
  bus.fake.Next("StartTransientUnit", Do::kRefuse);
  const Status refused = bus.units.StartTransient(Call(), "b.scope", {});
  CHECK(refused.code() == Code::kPermissionDenied);
  CHECK(Says(refused, "not for you"));
  bus.fake.Next("StartTransientUnit", Do::kFailJob);
  const Status failed = bus.units.StartTransient(Call(), "c.scope", {});
  CHECK(failed.code() == Code::kInternal);
  CHECK(Says(failed, "c.scope ended as 'failed'"));
}

TEST_CASE("A connection that breaks is made again, and what was under way is asked again") {
  Bus bus;
  REQUIRE(bus.units.Version(Call()).ok());
  bus.fake.Next("StartTransientUnit", Do::kHangUp);
  CHECK(bus.units.StartTransient(Call(), "a.slice", {}).ok());
  CHECK(bus.fake.connections() == 2);
  // Done, but the answer got lost: found there is as good as made.
  bus.fake.Next("StartTransientUnit", Do::kDoAndHangUp);
  CHECK(bus.units.StartTransient(Call(), "b.slice", {}).ok());
  bus.fake.Next("SetUnitProperties", Do::kDoAndHangUp);
  CHECK(bus.units.Set(Call(), "b.slice", {{"Delegate", true}}).ok());
  bus.fake.Next("StopUnit", Do::kDoAndHangUp);
  CHECK(bus.units.Stop(Call(), "b.slice").ok());
  CHECK(bus.fake.connections() == 5);
}

TEST_CASE("Many calls are under way at once, and each waits for its own job") {
  Bus bus;
  bus.fake.Next("StartTransientUnit", Do::kHoldJob);
  auto held = std::async(std::launch::async,
                         [&] { return bus.units.StartTransient(Call(), "held.slice", {}); });
  while (bus.fake.calls().empty()) std::this_thread::yield();
  std::vector<std::future<Status>> others;
  for (int i = 0; i < 50; ++i) {
    others.push_back(std::async(std::launch::async, [&bus, i] {
      return bus.units.StartTransient(Call(), "n" + std::to_string(i) + ".slice", {});
    }));
  }
  for (auto& other : others) CHECK(other.get().ok());
  CHECK(held.wait_for(std::chrono::seconds(0)) == std::future_status::timeout);
  bus.fake.ReleaseJobs();
  CHECK(held.get().ok());
  CHECK(bus.fake.connections() == 1);
}

TEST_CASE("A caller's deadline ends its wait alone") {
  Bus bus;
  bus.fake.Next("StartTransientUnit", Do::kHoldJob);
  CHECK(bus.units.StartTransient(Call(std::chrono::milliseconds(50)), "a.slice", {}).code() ==
        Code::kDeadlineExceeded);
  bus.fake.Next("SetUnitProperties", Do::kSayNothing);
  CHECK(
      bus.units.Set(Call(std::chrono::milliseconds(50)), "a.slice", {{"Delegate", true}}).code() ==
      Code::kDeadlineExceeded);
  bus.fake.ReleaseJobs();
  CHECK(bus.units.Stop(Call(), "a.slice").ok());
}

TEST_CASE("Without a systemd that answers, the error says where it was looked for") {
  testing::TestRoot root;
  Units units("unix:path=" + (root / "nobody"));
  const Status status = units.Stop(Call(), "a.slice");
  CHECK(status.code() == Code::kUnavailable);
  CHECK(Says(status, root / "nobody"));
  // It came late.
  FakeSystemd fake(root / "nobody");
  CHECK(units.Version(Call()).ok());
  CHECK_FALSE(Units::Booted(root.path()));
  root.Write("systemd/system/x", "");
  CHECK(Units::Booted(root.path()));
}
