#include "services/imaged/core/limits.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <future>
#include <stop_token>
#include <thread>
#include <vector>

#include "libs/testing/manual_clock.h"
#include "services/imaged/core/limited_source.h"

namespace crisp::imaged {
namespace {

using namespace std::chrono_literals;
using crisp::testing::ManualClock;

CallContext Endless() { return {}; }

TEST_CASE("A layer may grow as small ones do, and then so many times") {
  const Expansion usual;
  CHECK(usual.Check(1, 100U << 20U).ok());
  CHECK(usual.Check(1, (100U << 20U) + 1).code() == Code::kResourceExhausted);
  CHECK(usual.Check(1U << 20U, 200U << 20U).ok());
  CHECK(usual.Check(1U << 20U, 202U << 20U).code() == Code::kResourceExhausted);
  CHECK(Expansion{.max_times = 0}.Check(1, std::uint64_t{1} << 60U).ok());
}

TEST_CASE("A rate lets a tenth of a second pass at once, and then as much as time brings") {
  ManualClock clock;
  RateLimit rate(Bytes(1000), clock);
  CHECK(rate.Pay(Endless(), 100).ok());
  auto late = std::async(std::launch::async, [&] { return rate.Pay(Endless(), 500); });
  REQUIRE(clock.WaitForWaiters(1));
  clock.Advance(499ms);
  CHECK(late.wait_for(0s) == std::future_status::timeout);
  clock.Advance(1ms);
  CHECK(late.get().ok());
}

TEST_CASE("Those who share a rate pay for each other, and nobody saves up more than the burst") {
  ManualClock clock;
  RateLimit rate(Bytes(1000), clock);
  clock.Advance(1h);
  CHECK(rate.Pay(Endless(), 100).ok());
  std::vector<std::future<Status>> waiting;
  for (int i = 0; i < 3; ++i)
    waiting.push_back(std::async(std::launch::async, [&] { return rate.Pay(Endless(), 1000); }));
  REQUIRE(clock.WaitForWaiters(3));
  clock.Advance(2999ms);
  REQUIRE(clock.WaitForWaiters(1));
  clock.Advance(1ms);
  for (auto& each : waiting) CHECK(each.get().ok());
}

TEST_CASE("Without a rate nobody waits, and a call that is stopped waits no longer") {
  ManualClock clock;
  RateLimit none(Bytes(0), clock);
  CHECK(none.Pay(Endless(), std::uint64_t{1} << 50U).ok());
  RateLimit slow(Bytes(1), clock);
  std::stop_source stop;
  const CallContext cc(SteadyTime::max(), stop.get_token(), "");
  auto paying = std::async(std::launch::async, [&] { return slow.Pay(cc, 1'000'000); });
  REQUIRE(clock.WaitForWaiters(1));
  stop.request_stop();
  CHECK(paying.get().code() == Code::kCancelled);
  CHECK(slow.Pay(cc, 1).code() == Code::kCancelled);
}

TEST_CASE("Slots are never more than there are, and come back with their holds") {
  Slots slots(2);
  std::atomic<int> inside = 0;
  std::atomic<int> most = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i)
    threads.emplace_back([&] {
      for (int round = 0; round < 50; ++round) {
        const auto hold = slots.Take(CallContext::Background(60s), "a turn");
        REQUIRE(hold.ok());
        const int now = ++inside;
        for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
        }
        std::this_thread::yield();
        --inside;
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(most <= 2);
  Slots::Hold first = *slots.Take(Endless(), "a turn");
  const Slots::Hold second = *slots.Take(Endless(), "a turn");
  std::stop_source stop;
  auto third = std::async(std::launch::async, [&] {
    return slots.Take(CallContext(SteadyTime::max(), stop.get_token(), ""), "a turn").code();
  });
  stop.request_stop();
  CHECK(third.get() == Code::kCancelled);
  first.Release();
  CHECK(slots.Take(Endless(), "a turn").ok());
}

/// Gives zeros, as many as are asked for.
class Zeros final : public ImageSource {
 public:
  Result<FetchedManifest> Manifest(const CallContext&, const std::string&, Bytes) override {
    return FetchedManifest{.body = "manifest", .media_type = "", .digest = {}};
  }
  Result<std::string> Blob(const CallContext&, const digest::Digest&, Bytes) override {
    return std::string("blob");
  }
  Result<std::unique_ptr<BlobReader>> OpenBlob(const CallContext&, const digest::Digest&,
                                               BlobRange) override {
    class Reader final : public BlobReader {
     public:
      Result<std::size_t> Read(const CallContext&, std::span<char> into) override {
        return into.size();
      }
      std::optional<std::uint64_t> total() const override { return 7; }
      bool is_range() const override { return true; }
      std::string version() const override { return "v"; }
    };
    return std::unique_ptr<BlobReader>(std::make_unique<Reader>());
  }
};

TEST_CASE("A limited source slows the blobs of one pull, and those of all by what they share") {
  ManualClock clock;
  RateLimit shared(Bytes(10'000), clock);
  LimitedSource quick(std::make_unique<Zeros>(), Bytes(0), shared, clock);
  LimitedSource slow(std::make_unique<Zeros>(), Bytes(100), shared, clock);
  CHECK(slow.Manifest(Endless(), "latest", MiB(1))->body == "manifest");
  CHECK(*slow.Blob(Endless(), {}, MiB(1)) == "blob");
  std::vector<char> into(110);
  const auto reader = *slow.OpenBlob(Endless(), {}, {});
  CHECK(reader->total() == 7);
  CHECK(reader->is_range());
  CHECK(reader->version() == "v");
  auto own = std::async(std::launch::async, [&] { return reader->Read(Endless(), into); });
  REQUIRE(clock.WaitForWaiters(1));  // 10 bytes at once, 100 in a second
  clock.Advance(1s);
  CHECK(*own.get() == 110);
  const auto other = *quick.OpenBlob(Endless(), {}, {});
  std::vector<char> more(2000);
  auto waits = std::async(std::launch::async, [&] { return other->Read(Endless(), more); });
  REQUIRE(clock.WaitForWaiters(1));
  clock.Advance(111ms);  // what the other took is paid for first
  CHECK(*waits.get() == 2000);
}

}  // namespace
}  // namespace crisp::imaged
