#include <catch2/catch.hpp>

#include "libs/os/files.h"
#include "libs/testing/test_root.h"
#include "services/rund/runtime/cgroup_limits.h"
#include "services/rund/runtime/runc.h"

using namespace crisp;        // NOLINT
using namespace crisp::rund;  // NOLINT

namespace {

/// A tree of plain files that looks like mounted cgroups.
struct FakeCgroups {
  explicit FakeCgroups(bool unified) : v2(unified) {
    std::string mountinfo;
    if (v2) {
      root.Write("cg/cgroup.controllers", "cpuset cpu io memory hugetlb pids\n");
      mountinfo = fmt::format("30 1 0:1 / {} rw - cgroup2 cgroup2 rw\n", root / "cg");
    } else {
      for (const char* name : {"cpu", "memory", "cpuset"}) {
        mountinfo +=
            fmt::format("30 1 0:1 / {}/{} rw - cgroup cgroup rw,{}\n", root / "cg", name, name);
      }
    }
    auto detected = os::Cgroups::Detect(root / "cg", root.Write("mountinfo", mountinfo));
    REQUIRE(detected.ok());
    cgroups = *std::move(detected);
  }
  void Put(const std::string& controller, const std::string& file, const std::string& text) {
    root.Write("cg/" + (v2 ? "c/" + file : controller + "/c/" + file), text);
  }
  std::string Get(const std::string& controller, const std::string& file) const {
    return root.Read("cg/" + (v2 ? "c/" + file : controller + "/c/" + file));
  }
  /// File names and values, in their order.
  std::string Settings(const runtime::v1::LinuxContainerResources& resources) {
    const auto settings = CgroupSettings(*cgroups, "/c", resources);
    if (!settings.ok()) return std::string(settings.status().message());
    std::string text;
    for (const CgroupSetting& setting : *settings) {
      text += setting.path.substr(setting.path.rfind('/') + 1) + "=" + setting.value + " ";
    }
    return text;
  }

  testing::TestRoot root;
  const bool v2;
  std::optional<os::Cgroups> cgroups;
};

}  // namespace

TEST_CASE("On cgroup v1 limits are written in an order that the kernel takes") {
  FakeCgroups fake(false);
  fake.Put("memory", "memory.limit_in_bytes", "1000\n");
  fake.Put("memory", "memory.memsw.limit_in_bytes", "1000\n");
  fake.Put("cpu", "cpu.cfs_period_us", "100000\n");
  fake.Put("cpu", "cpu.cfs_quota_us", "50000\n");
  runtime::v1::LinuxContainerResources resources;
  CHECK(fake.Settings(resources).empty());
  resources.set_memory_limit_in_bytes(2000);
  resources.set_memory_swap_limit_in_bytes(2000);
  CHECK(fake.Settings(resources) == "memory.memsw.limit_in_bytes=2000 memory.limit_in_bytes=2000 ");
  resources.set_memory_limit_in_bytes(500);
  resources.set_memory_swap_limit_in_bytes(500);
  CHECK(fake.Settings(resources) == "memory.limit_in_bytes=500 memory.memsw.limit_in_bytes=500 ");
  resources.Clear();
  resources.set_cpu_shares(100);
  resources.set_cpu_period(200000);
  resources.set_cpu_quota(100000);
  CHECK(fake.Settings(resources) ==
        "cpu.shares=100 cpu.cfs_period_us=200000 cpu.cfs_quota_us=100000 ");
  resources.set_cpu_period(50000);
  CHECK(fake.Settings(resources) ==
        "cpu.shares=100 cpu.cfs_quota_us=100000 cpu.cfs_period_us=50000 ");
  resources.Clear();
  resources.set_cpuset_cpus("0-1");
  CHECK(fake.Settings(resources) == "cpuset.cpus=0-1 ");
}

TEST_CASE("On cgroup v2 the same limits have other files and words") {
  FakeCgroups fake(true);
  fake.Put("", "memory.swap.max", "max\n");
  runtime::v1::LinuxContainerResources resources;
  resources.set_cpu_shares(1024);
  resources.set_cpu_quota(50000);
  resources.set_memory_limit_in_bytes(1000);
  resources.set_memory_swap_limit_in_bytes(1500);
  CHECK(fake.Settings(resources) ==
        "cpu.weight=39 cpu.max=50000 100000 memory.max=1000 memory.swap.max=500 ");
  resources.Clear();
  resources.set_cpu_quota(-1);
  resources.set_cpu_period(20000);
  resources.set_memory_limit_in_bytes(-1);
  (*resources.mutable_unified())["memory.high"] = "900";
  auto& hugepages = *resources.add_hugepage_limits();
  hugepages.set_page_size("2MB");
  hugepages.set_limit(4096);
  CHECK(fake.Settings(resources) ==
        "cpu.max=max 20000 memory.max=max hugetlb.2MB.max=4096 memory.high=900 ");
}

TEST_CASE("Limits are set all or not at all") {
  FakeCgroups fake(false);
  fake.Put("memory", "memory.limit_in_bytes", "1000\n");
  fake.Put("cpu", "cpu.shares", "1024\n");
  runtime::v1::LinuxContainerResources resources;
  resources.set_cpu_shares(100);
  resources.set_cpuset_cpus("0");  // a file that is not there
  resources.set_memory_limit_in_bytes(2000);
  const auto settings = CgroupSettings(*fake.cgroups, "/c", resources);
  REQUIRE(settings.ok());
  const auto failed = ApplyCgroupSettings(*settings);
  REQUIRE_FALSE(failed.ok());
  CHECK(failed.status().message().find("cpuset.cpus") != std::string::npos);
  CHECK(fake.Get("cpu", "cpu.shares").starts_with("1024"));
  CHECK(fake.Get("memory", "memory.limit_in_bytes") == "1000\n");
  fake.Put("cpuset", "cpuset.cpus", "0-1\n");
  const auto undo = ApplyCgroupSettings(*settings);
  REQUIRE(undo.ok());
  CHECK(fake.Get("cpu", "cpu.shares").starts_with("100"));
  REQUIRE(ApplyCgroupSettings(*undo).ok());
  CHECK(fake.Get("cpu", "cpu.shares").starts_with("1024"));
}

TEST_CASE("What a cgroup says of its memory, v1 and v2") {
  FakeCgroups v1(false);
  v1.Put("memory", "memory.usage_in_bytes", "5000\n");
  v1.Put("memory", "memory.stat",
         "active_file 1\ntotal_active_file 1000\ntotal_inactive_file 500\n");
  v1.Put("memory", "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n");
  CHECK(v1.cgroups->MemoryInUse("/c").value() == 3500);
  CHECK(v1.cgroups->OomKills("/c").value() == 2);
  CHECK(v1.cgroups->OomKills("/gone").value() == 0);
  FakeCgroups v2(true);
  v2.Put("", "memory.current", "5000\n");
  v2.Put("", "memory.stat", "anon 1\nactive_file 1000\ninactive_file 500\n");
  v2.Put("", "memory.events", "low 0\nhigh 0\nmax 7\noom 3\noom_kill 1\n");
  CHECK(v2.cgroups->MemoryInUse("/c").value() == 3500);
  CHECK(v2.cgroups->OomKills("/c").value() == 1);
}

TEST_CASE("A runtime's features are read, and nothing is guessed from other output") {
  const auto abilities =
      ParseFeatures(R"({"mountOptions":["ro","rro"],"linux":{"namespaces":["mount","user"],)"
                    R"("mountExtensions":{"idmap":{"enabled":true}}}})");
  REQUIRE(abilities.has_value());
  CHECK(abilities->recursive_read_only);
  CHECK(abilities->user_namespaces);
  CHECK(abilities->idmapped_mounts);
  const auto old = ParseFeatures(R"({"mountOptions":["ro"],"linux":{"namespaces":["mount"]}})");
  REQUIRE(old.has_value());
  CHECK_FALSE(old->recursive_read_only);
  CHECK_FALSE(old->idmapped_mounts);
  CHECK_FALSE(ParseFeatures("unknown command features").has_value());
  CHECK_FALSE(ParseFeatures("{}").has_value());
}

TEST_CASE("A limit that the node does not have is not taken for a container that is not there") {
  FakeCgroups fake(false);
  runtime::v1::LinuxContainerResources resources;
  auto& huge = *resources.add_hugepage_limits();
  huge.set_page_size("2MB");
  huge.set_limit(1);
  const auto settings = CgroupSettings(*fake.cgroups, "/c", resources);
  CHECK(settings.code() == Code::kFailedPrecondition);
  CHECK(settings.status().message().find("hugepage_limits") != std::string::npos);
  const std::vector<CgroupSetting> absent = {{fake.root / "absent", "1"}};
  CHECK(ApplyCgroupSettings(absent).code() == Code::kFailedPrecondition);
  CHECK(UndoOf(absent).code() == Code::kFailedPrecondition);
}

TEST_CASE("What undoes settings is what the files hold, the last one first") {
  testing::TestRoot root;
  const std::string a = root.Write("a", "1\n");
  const std::string b = root.Write("b", "2\n");
  const auto undo = UndoOf({{a, "10"}, {root.Write("same", "5\n"), "5"}, {b, "20"}});
  REQUIRE(undo.ok());
  REQUIRE(undo->size() == 2);
  CHECK((*undo)[0].path == b);
  CHECK((*undo)[0].value == "2");
  CHECK((*undo)[1].value == "1");
  CHECK(IsKeyedFile("io.max"));
  CHECK_FALSE(IsKeyedFile("memory.high"));
}

TEST_CASE("A runtime's words are text, cut after a whole character") {
  CHECK(RuntimeWords("msg=a\xff\xfe b\n") == "msg=a?? b");
  const std::string cut = RuntimeWords(std::string(4095, 'x') + "\xc3\xa4");
  CHECK(cut == std::string(4095, 'x'));
}
