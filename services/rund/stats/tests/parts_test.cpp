#include <sys/stat.h>
#include <unistd.h>

#include "libs/testing/manual_clock.h"
#include "services/rund/stats/cpu_rate.h"
#include "services/rund/stats/disk_usage.h"
#include "services/rund/stats/network_reader.h"
#include "services/rund/stats/process_usage.h"
#include "services/rund/stats/tests/fixture.h"

namespace crisp::rund {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;

CallContext Call() { return CallContext::Background(std::chrono::seconds(10), "test"); }

TEST_CASE("A CPU rate takes two readings a second apart, and follows the last ones") {
  CpuRate rate;
  rate.Add(0, 0);
  CHECK_FALSE(rate.nano_cores());
  rate.Add(kSecond / 2, 100);
  CHECK_FALSE(rate.nano_cores());
  rate.Add(10 * kSecond, 5'000'000'000);
  CHECK(rate.nano_cores() == 500'000'000U);
  // Ten readings a second, idle: two seconds later the busy time is out of the window.
  for (int i = 1; i <= 25; ++i) rate.Add(10 * kSecond + i * kSecond / 10, 5'000'000'000);
  CHECK(rate.nano_cores() == 0U);
}

TEST_CASE("A CPU time that goes back starts the rate anew") {
  CpuRate rate;
  rate.Add(0, 1'000'000);
  rate.Add(2 * kSecond, 3'000'000);
  CHECK(rate.nano_cores());
  rate.Add(4 * kSecond, 10);
  CHECK_FALSE(rate.nano_cores());
  rate.Add(6 * kSecond, 10 + 2'000'000'000);
  CHECK(rate.nano_cores() == 1'000'000'000U);
}

TEST_CASE("Interfaces without the loopback, with and without space behind the colon") {
  const auto found = ParseNetDev(
      "Inter-|   Receive                                                |  Transmit\n"
      " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs "
      "drop fifo colls carrier compressed\n"
      "    lo:    3267      29    0    0    0     0          0         0     3267      29    0    "
      "0    0     0       0          0\n"
      "  eth0:100 2 3 4 0 0 0 0 500 6 7 8 0 0 0 0\n"
      " net1: 1 0 0 0 0 0 0 0 2 0 0 0 0 0 0 0\n"
      " broken: \n");
  REQUIRE(found.size() == 3);
  CHECK(found[0].name == "eth0");
  CHECK(found[0].rx_bytes == 100);
  CHECK(found[0].rx_packets == 2);
  CHECK(found[0].rx_errors == 3);
  CHECK(found[0].rx_dropped == 4);
  CHECK(found[0].tx_bytes == 500);
  CHECK(found[0].tx_packets == 6);
  CHECK(found[0].tx_errors == 7);
  CHECK(found[0].tx_dropped == 8);
  CHECK(found[1].name == "net1");
  CHECK(found[2].rx_bytes == 0);
}

TEST_CASE("Networks that cannot be entered have no values; the others are not disturbed") {
  const auto found = ReadNetworks({"/nowhere", "/proc/self/ns/net", "/proc/self/stat"});
  REQUIRE(found.size() == 3);
  CHECK_FALSE(found[0]);
  CHECK(found[1].has_value() == (::geteuid() == 0));
  CHECK_FALSE(found[2]);
  CHECK(ReadNetworks({}).empty());
}

TEST_CASE("A directory counts what is on disk: sparse files, hard links, deep trees") {
  const testing::TestRoot root;
  REQUIRE(os::WriteFile(root / "file", std::string(64 << 10, 'x')).ok());
  const auto one = CountDisk(Call(), root.path());
  REQUIRE(one.ok());
  CHECK(one->inodes == 2);
  CHECK(one->bytes >= 64 << 10);

  REQUIRE(::link((root / "file").c_str(), (root / "again").c_str()) == 0);
  CHECK(CountDisk(Call(), root.path())->inodes == 2);
  REQUIRE(os::WriteFile(root / "sparse", "").ok());
  REQUIRE(::truncate((root / "sparse").c_str(), 1 << 30) == 0);
  CHECK(CountDisk(Call(), root.path())->bytes < 1 << 20);
  REQUIRE(os::Symlink("/", root / "link").ok());
  CHECK(CountDisk(Call(), root.path())->inodes == 4);

  std::string deep = root.path();
  for (int i = 0; i < 200; ++i) deep += "/d";
  REQUIRE(os::MakeDirs(deep).ok());
  CHECK(CountDisk(Call(), root.path())->inodes == 204);
  CHECK(CountDisk(Call(), root.path(), 50).code() == Code::kResourceExhausted);
  CHECK(CountDisk(Call(), root / "none").code() == Code::kNotFound);
}

TEST_CASE("Directories are counted in the background only; callers get the last count") {
  const testing::TestRoot root;
  testing::ManualClock clock;
  DiskUsages disks(clock);
  disks.SetDirs({root.path()});
  CHECK_FALSE(disks.Get(root.path()));
  CHECK(disks.WantsUpdate());
  disks.Update(Call(), std::chrono::seconds(1));
  CHECK_FALSE(disks.WantsUpdate());
  const auto first = disks.Get(root.path());
  REQUIRE(first);
  CHECK(first->inodes == 1);
  REQUIRE(os::WriteFile(root / "file", "x").ok());
  CHECK(disks.Get(root.path())->inodes == 1);
  disks.Update(Call(), std::chrono::seconds(1));
  CHECK(disks.Get(root.path())->inodes == 1);  // not due yet
  clock.Advance(std::chrono::seconds(61));
  disks.Update(Call(), std::chrono::seconds(1));
  CHECK(disks.Get(root.path())->inodes == 2);
  CHECK(disks.Get(root.path())->at > first->at);
}

TEST_CASE("Processes: threads, descriptors and sockets from /proc") {
  const testing::TestRoot root;
  REQUIRE(os::MakeDirs(root / "7/fd").ok());
  REQUIRE(os::WriteFile(root / "7/status",
                        "Name:\tx\nState:\tD (disk sleep)\nThreads:\t3\nSigQ:\t0/1\n")
              .ok());
  REQUIRE(os::WriteFile(root / "7/limits",
                        "Limit                     Soft Limit           Hard Limit    Units\n"
                        "Max open files            1024                 4096          files\n")
              .ok());
  REQUIRE(os::Symlink("socket:[17]", root / "7/fd/0").ok());
  REQUIRE(os::Symlink("/dev/null", root / "7/fd/1").ok());
  Scratch scratch;
  const ProcessUsage usage = ProcessReader(root.path()).Read({7, 8}, scratch);
  CHECK(usage.count == 1);
  CHECK(usage.threads == 3);
  CHECK(usage.file_descriptors == 2);
  CHECK(usage.sockets == 1);
  CHECK(usage.states.uninterruptible == 1);
  CHECK(usage.states.sleeping == 0);
  CHECK(usage.max_open_files == 1024);
}

}  // namespace
}  // namespace crisp::rund
