#include "services/rund/stats/cgroup_reader.h"
#include "services/rund/stats/tests/fixture.h"

namespace crisp::rund {
namespace {

using Kind = CgroupTree::Kind;

constexpr const char* kPressure =
    "some avg10=1.50 avg60=0.25 avg300=0.10 total=2000\n"
    "full avg10=0.00 avg60=0.00 avg300=0.00 total=700\n";

void FillV1(CgroupTree& tree) {
  tree.Write("cpuacct", "cpuacct.usage", "123456789\n");
  tree.Write("cpuacct", "cpuacct.usage_user", "100000000\n");
  tree.Write("cpuacct", "cpuacct.usage_sys", "23456789\n");
  tree.Write("cpu", "cpu.stat", "nr_periods 10\nnr_throttled 3\nthrottled_time 5000\n");
  tree.Write("cpu", "cpu.shares", "512\n");
  tree.Write("cpu", "cpu.cfs_period_us", "100000\n");
  tree.Write("cpu", "cpu.cfs_quota_us", "-1\n");
  tree.Write("memory", "memory.usage_in_bytes", "1000000\n");
  tree.Write("memory", "memory.limit_in_bytes", "4000000\n");
  tree.Write("memory", "memory.max_usage_in_bytes", "2000000\n");
  tree.Write("memory", "memory.memsw.usage_in_bytes", "1500000\n");
  tree.Write("memory", "memory.memsw.limit_in_bytes", "6000000\n");
  tree.Write("memory", "memory.soft_limit_in_bytes", "9223372036854771712\n");
  tree.Write("memory", "memory.kmem.usage_in_bytes", "4096\n");
  tree.Write("memory", "memory.failcnt", "7\n");
  tree.Write("memory", "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n");
  tree.Write("memory", "memory.stat",
             "cache 1\nrss 2\npgfault 5\npgmajfault 1\ninactive_file 3\ntotal_cache 300000\n"
             "total_rss 600000\ntotal_mapped_file 4000\ntotal_pgfault 50\ntotal_pgmajfault 4\n"
             "total_inactive_file 250000\ntotal_active_file 50000\n");
  tree.Write("pids", "pids.current", "9\n");
  tree.Write("pids", "pids.max", "max\n");
  tree.Write("pids", "cgroup.procs", "10\n11\n0\n");
  tree.Write("blkio", "blkio.throttle.io_service_bytes_recursive",
             "254:0 Read 4096\n254:0 Write 8192\n254:0 Total 12288\nTotal 12288\n");
  tree.Write("blkio", "blkio.throttle.io_serviced_recursive",
             "254:0 Read 1\n254:0 Write 2\nTotal 3\n");
  tree.Write("hugetlb", "hugetlb.2MB.usage_in_bytes", "2097152\n");
  tree.Write("hugetlb", "hugetlb.2MB.max_usage_in_bytes", "4194304\n");
  tree.Write("hugetlb", "hugetlb.2MB.rsvd.usage_in_bytes", "1\n");
  for (const char* file : {"cpu.pressure", "memory.pressure", "io.pressure"}) {
    tree.Write("unified", file, kPressure);
  }
}

void FillV2(CgroupTree& tree) {
  tree.Write("", "cpu.stat",
             "usage_usec 123456\nuser_usec 100000\nsystem_usec 23456\nnr_periods 10\n"
             "nr_throttled 3\nthrottled_usec 5\n");
  tree.Write("", "cpu.max", "20000 100000\n");
  tree.Write("", "cpu.weight", "39\n");
  tree.Write("", "memory.current", "1000000\n");
  tree.Write("", "memory.max", "4000000\n");
  tree.Write("", "memory.low", "0\n");
  tree.Write("", "memory.peak", "2000000\n");
  tree.Write("", "memory.swap.current", "500000\n");
  tree.Write("", "memory.swap.max", "2000000\n");
  tree.Write("", "memory.events", "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\n");
  tree.Write("", "memory.stat",
             "anon 600000\nfile 300000\nkernel 4096\nfile_mapped 4000\ninactive_file 250000\n"
             "active_file 50000\npgfault 50\npgmajfault 4\n");
  tree.Write("", "pids.current", "9\n");
  tree.Write("", "pids.max", "max\n");
  tree.Write("", "cgroup.procs", "10\n11\n0\n");
  tree.Write("", "io.stat", "254:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n");
  tree.Write("", "hugetlb.2MB.current", "2097152\n");
  for (const char* file : {"cpu.pressure", "memory.pressure", "io.pressure"}) {
    tree.Write("", file, kPressure);
  }
}

TEST_CASE("Usage and details mean the same on v1 and v2") {
  const Kind kind = GENERATE(Kind::kV1, Kind::kV2);
  const bool v2 = kind == Kind::kV2;
  CgroupTree tree(kind);
  v2 ? FillV2(tree) : FillV1(tree);
  CgroupReader reader(tree.cgroups(), CgroupTree::kPath);
  Scratch scratch;
  const CgroupUsage usage = reader.ReadUsage(scratch);
  CHECK(usage.cpu_ns == (v2 ? 123456000U : 123456789U));
  CHECK(usage.memory_bytes == 1000000U);
  CHECK(usage.WorkingSet() == 750000);
  CHECK(usage.AvailableMemory() == 3250000U);
  CHECK(usage.rss_bytes == 600000);
  CHECK(usage.cache_bytes == 300000);
  CHECK(usage.mapped_bytes == 4000);
  CHECK(usage.page_faults == 50);
  CHECK(usage.major_page_faults == 4);
  CHECK(usage.own_page_faults == (v2 ? 0 : 5));
  CHECK(usage.swap_bytes == 500000U);
  CHECK(usage.swap_limit_bytes == 2000000U);
  CHECK(usage.tasks == 9U);
  REQUIRE(usage.cpu_pressure);
  CHECK(usage.cpu_pressure->some.total_us == 2000);
  CHECK(usage.cpu_pressure->some.avg10 == 1.5);
  CHECK(usage.io_pressure->full.total_us == 700);

  const CgroupDetails details = reader.ReadDetails(scratch);
  CHECK(details.cpu_user_ns == 100000000);
  CHECK(details.cpu_system_ns == (v2 ? 23456000 : 23456789));
  CHECK(details.cfs_periods == 10);
  CHECK(details.cfs_throttled_periods == 3);
  CHECK(details.cfs_throttled_ns == 5000);
  CHECK(details.memory_max_usage_bytes == 2000000);
  CHECK(details.memory_kernel_bytes == 4096);
  CHECK(details.memory_limit_hits == 7);
  CHECK(details.oom_kills == 2);
  CHECK_FALSE(details.tasks_limit);
  CHECK(details.cpu_period_us == 100000);
  CHECK(details.cpu_quota_us == (v2 ? 20000 : 0));
  CHECK(details.cpu_shares == (v2 ? 998 : 512));
  CHECK(details.memory_reservation_bytes == 0);
  CHECK(details.memory_swap_limit_bytes == 6000000);
  REQUIRE(details.io.size() == 1);
  CHECK(details.io[0].device == "254:0");
  CHECK(details.io[0].read_bytes == 4096);
  CHECK(details.io[0].write_bytes == 8192);
  CHECK(details.io[0].reads == 1);
  CHECK(details.io[0].writes == 2);
  REQUIRE(details.hugetlb.size() == 1);
  CHECK(details.hugetlb[0].page_size == "2MB");
  CHECK(details.hugetlb[0].usage_bytes == 2097152);
  CHECK(details.hugetlb[0].max_usage_bytes == (v2 ? 0 : 4194304));

  CHECK(reader.ReadPids(scratch) == std::vector<int>{10, 11});
}

TEST_CASE("Without limits there is nothing available, and nothing goes below zero") {
  const Kind kind = GENERATE(Kind::kV1, Kind::kV2);
  const bool v2 = kind == Kind::kV2;
  CgroupTree tree(kind);
  if (v2) {
    tree.Write("", "memory.current", "1000\n");
    tree.Write("", "memory.max", "max\n");
    tree.Write("", "memory.swap.max", "max\n");
    tree.Write("", "memory.swap.current", "0\n");
    tree.Write("", "memory.stat", "inactive_file 5000\n");
  } else {
    tree.Write("memory", "memory.usage_in_bytes", "1000\n");
    tree.Write("memory", "memory.limit_in_bytes", "9223372036854771712\n");
    tree.Write("memory", "memory.memsw.limit_in_bytes", "9223372036854771712\n");
    tree.Write("memory", "memory.memsw.usage_in_bytes", "900\n");
    tree.Write("memory", "memory.stat", "total_inactive_file 5000\n");
  }
  CgroupReader reader(tree.cgroups(), CgroupTree::kPath);
  Scratch scratch;
  const CgroupUsage usage = reader.ReadUsage(scratch);
  CHECK(usage.WorkingSet() == 0);
  CHECK_FALSE(usage.AvailableMemory());
  CHECK_FALSE(usage.swap_limit_bytes);
  CHECK(usage.swap_bytes == 0U);
  CHECK_FALSE(usage.cpu_pressure);
  CHECK_FALSE(usage.cpu_ns);
}

TEST_CASE("A cgroup that is not there reads as nothing; kept files see new values") {
  CgroupTree tree(Kind::kV2);
  CgroupReader gone(tree.cgroups(), "/pod/none");
  Scratch scratch;
  CHECK_FALSE(gone.ReadUsage(scratch).memory_bytes);
  CHECK(gone.ReadDetails(scratch).io.empty());
  CHECK(gone.ReadPids(scratch).empty());

  tree.Write("", "cpu.stat", "usage_usec 5\n");
  CgroupReader reader(tree.cgroups(), CgroupTree::kPath);
  CHECK(reader.ReadCpu(scratch) == 5000U);
  tree.Write("", "cpu.stat", "usage_usec 70\n");
  CHECK(reader.ReadCpu(scratch) == 70000U);
}

TEST_CASE("What is not understood is passed over") {
  CHECK_FALSE(ParseNumber(""));
  CHECK_FALSE(ParseNumber("max\n"));
  CHECK_FALSE(ParseNumber("12x"));
  CHECK(ParseNumber("18446744073709551615\n") == UINT64_MAX);
  CHECK_FALSE(ParseNumber("18446744073709551616"));
  int keys = 0;
  ForEachKey("a\nb 1\n\nc x\nd 2", [&keys](std::string_view, std::uint64_t) { ++keys; });
  CHECK(keys == 2);
  CHECK(ParsePressure("some avg10=x total=\nnothing\n")->some.total_us == 0);
  CHECK(ParseIoStat("254:0\n(unknown) rbytes=1\n8:0 rbytes=x wios=3\n").size() == 2);
  CHECK(ParseBlkio("Total 5\n254:0 Read\n", "").empty());
}

}  // namespace
}  // namespace crisp::rund
