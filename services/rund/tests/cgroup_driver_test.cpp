#include "services/rund/runtime/cgroup_driver.h"

#include <catch2/catch.hpp>
#include <optional>
#include <set>
#include <thread>

#include "libs/systemd/tests/fake_systemd.h"
#include "libs/testing/test_root.h"
#include "services/rund/runtime/slices.h"

using namespace crisp;        // NOLINT
using namespace crisp::rund;  // NOLINT
using systemd::FakeSystemd;
using Do = FakeSystemd::Do;

namespace {

const PodId kPod(std::string(64, 'a'));
const ContainerId kContainer(std::string(64, 'c'));

CallContext Call() { return CallContext::Background(std::chrono::seconds(20), "test"); }

/// A tree of plain files that looks like a mounted v2, and a systemd that answers.
struct Node {
  explicit Node(CgroupDriverKind kind = CgroupDriverKind::kSystemd, bool v2 = true) {
    root.Write("cg/cgroup.controllers", "cpuset cpu io memory pids\n");
    const std::string line = v2 ? "cgroup2 cgroup2 rw" : "cgroup cgroup rw,memory";
    const std::string mounts = fmt::format("30 1 0:1 / {} rw - {}\n", root / "cg", line);
    auto detected = os::Cgroups::Detect(root / "cg", root.Write("mountinfo", mounts));
    REQUIRE(detected.ok());
    cgroups = *std::move(detected);
    driver.emplace(*cgroups, kind, &units);
  }
  void Cgroup(const std::string& path) {
    for (const char* file : {"memory.max", "cpu.max", "cpu.weight", "cpuset.cpus"}) {
      root.Write("cg" + path + "/" + file, "max\n");
    }
  }

  testing::TestRoot root;
  FakeSystemd fake{root / "bus"};
  systemd::Units units{fake.address()};
  std::optional<os::Cgroups> cgroups;
  std::optional<CgroupDriver> driver;
};

runtime::v1::LinuxContainerResources Some() {
  runtime::v1::LinuxContainerResources resources;
  resources.set_cpu_shares(1024);
  resources.set_cpu_quota(20000);
  resources.set_cpu_period(50000);
  resources.set_memory_limit_in_bytes(1 << 20);
  return resources;
}

}  // namespace

TEST_CASE("A slice's name says where it is") {
  CHECK(ExpandSlice("a.slice").value() == "/a.slice");
  CHECK(ExpandSlice("kubepods-burstable-pod1_2.slice").value() ==
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice");
  for (const char* bad : {"", ".slice", "-.slice", "a-.slice", "-a.slice", "a--b.slice",
                          "a/b.slice", "a b.slice", "a.scope", "a"}) {
    INFO(bad);
    CHECK(ExpandSlice(bad).code() == Code::kInvalidArgument);
  }
}

TEST_CASE("A cgroup's unit is in its path") {
  CHECK(UnitOf("/a.slice/a-b.slice/crisp-1.scope") == "crisp-1.scope");
  CHECK(UnitOf("/a.slice/a-b.slice/crisp-1.scope/container") == "crisp-1.scope");
  CHECK(UnitCgroup("/a.slice/crisp-1.scope/container/x") == "/a.slice/crisp-1.scope");
  CHECK(UnitOf("/a.slice/a-b.slice") == "a-b.slice");
  CHECK(UnitOf("/kubepods/burstable/pod1/crisp-1").empty());
}

TEST_CASE("Limits have names and units of systemd's") {
  auto resources = Some();
  resources.set_memory_swap_limit_in_bytes(3 << 20);
  resources.set_cpuset_cpus("0-1,9");
  (*resources.mutable_unified())["pids.max"] = "7";
  (*resources.mutable_unified())["memory.high"] = "max";
  (*resources.mutable_unified())["io.weight"] = "default 5";
  const auto properties = UnitProperties(resources);
  REQUIRE(properties.ok());
  const auto value = [&](const std::string& name) -> decltype(systemd::Property::value) {
    for (const auto& property : *properties) {
      if (property.name == name) return property.value;
    }
    FAIL(name);
    return false;
  };
  using Number = std::uint64_t;
  CHECK(std::get<Number>(value("CPUWeight")) == 39);
  CHECK(std::get<Number>(value("CPUQuotaPerSecUSec")) == 400'000);
  CHECK(std::get<Number>(value("CPUQuotaPeriodUSec")) == 50'000);
  CHECK(std::get<Number>(value("MemoryMax")) == 1 << 20);
  CHECK(std::get<Number>(value("MemorySwapMax")) == 2 << 20);
  CHECK(std::get<Number>(value("TasksMax")) == 7);
  CHECK(std::get<Number>(value("MemoryHigh")) == ~Number{0});
  CHECK(std::get<std::vector<std::uint8_t>>(value("AllowedCPUs")) ==
        std::vector<std::uint8_t>{3, 2});
  CHECK(properties->size() == 8);
  resources.set_cpuset_cpus("0-");
  CHECK(UnitProperties(resources).code() == Code::kInvalidArgument);
  CHECK(UnitProperties({})->empty());
}

TEST_CASE("A pod's cgroup parent has to fit the driver") {
  Node node;
  const std::string path = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice";
  CHECK(node.driver->PodCgroup(kPod, path).value() == path);
  CHECK(node.driver->PodCgroup(kPod, path + "/").value() == path);
  CHECK(node.driver->PodCgroup(kPod, "kubepods-burstable-pod1.slice").value() == path);
  CHECK(node.driver->PodCgroup(kPod, "").value() ==
        "/crisp.slice/crisp-pod" + kPod.str() + ".slice");
  const CgroupDriver cgroupfs(*node.cgroups, CgroupDriverKind::kCgroupfs, nullptr);
  CHECK(cgroupfs.PodCgroup(kPod, "/kubepods/pod1").value() == "/kubepods/pod1");
  CHECK(cgroupfs.PodCgroup(kPod, "/").value() == "/crisp-pod" + kPod.str());
  const auto refused = [](const Result<std::string>& answer, const std::string& words) {
    INFO(answer.status().ToString());
    CHECK(answer.code() == Code::kInvalidArgument);
    CHECK(answer.status().message().starts_with("linux.cgroup_parent: '"));
    CHECK(answer.status().message().find(words) != std::string::npos);
  };
  refused(node.driver->PodCgroup(kPod, "/kubepods/pod1"), "is not a systemd slice");
  refused(node.driver->PodCgroup(kPod, "/x.slice/a-b.slice"), "it is /a.slice/a-b.slice");
  refused(node.driver->PodCgroup(kPod, "a--b.slice"), "not the name of a systemd slice");
  refused(cgroupfs.PodCgroup(kPod, path), "the cgroup driver is cgroupfs");
  refused(cgroupfs.PodCgroup(kPod, "kubepods"), "not an absolute path");
}

TEST_CASE("The systemd driver is refused where there is none, in one sentence") {
  CHECK(Node().driver->Check(Call()).ok());
  CHECK(Node(CgroupDriverKind::kCgroupfs, false).driver->Check(Call()).ok());
  const Status v1 = Node(CgroupDriverKind::kSystemd, false).driver->Check(Call());
  CHECK(v1.code() == Code::kFailedPrecondition);
  CHECK(v1.message().find("cgroup v2") != std::string::npos);
  Node node;
  const CgroupDriver nowhere(*node.cgroups, CgroupDriverKind::kSystemd, nullptr);
  const Status none = nowhere.Check(Call());
  CHECK(none.code() == Code::kFailedPrecondition);
  CHECK(none.message() ==
        "rund.cgroup_driver: this machine was not started by systemd; use cgroupfs");
  node.fake.Next("Get", Do::kRefuse);
  CHECK(node.driver->Check(Call()).message().starts_with("rund.cgroup_driver: systemd: "));
}

TEST_CASE("A pod's slice and its pause scope are made once, and go") {
  Node node;
  const std::string pod = node.driver->PodCgroup(kPod, "").value();
  REQUIRE(node.driver->MakePod(Call(), kPod, pod).ok());
  REQUIRE(node.driver->MakePod(Call(), kPod, pod).ok());
  const std::string slice = UnitOf(pod);
  CHECK(node.fake.properties().at(slice + "/MemoryAccounting") == "b true");
  REQUIRE(node.driver->AddPause(Call(), pod, kPod, 77).ok());
  const std::string pause = "crisp-pause-" + kPod.str() + ".scope";
  CHECK(node.fake.properties().at(pause + "/PIDs") == "au 77");
  CHECK(node.fake.properties().at(pause + "/Slice") == "s " + slice);
  CHECK(node.driver->AddPause(Call(), pod, kPod, 78).code() == Code::kAlreadyExists);
  REQUIRE(node.driver->RemovePause(Call(), pod, kPod).ok());
  REQUIRE(node.driver->RemovePause(Call(), pod, kPod).ok());
  node.fake.Next("StopUnit", Do::kFailJob);
  CHECK_FALSE(node.driver->RemovePod(Call(), pod).ok());
  REQUIRE(node.driver->RemovePod(Call(), pod).ok());
}

TEST_CASE("A container's scope goes, whatever the runtime left of it") {
  Node node;
  const auto place = CgroupDriver::ContainerPlace("/a.slice/a-b.slice", kContainer);
  CHECK(place.spec == "a-b.slice:crisp:" + kContainer.str());
  CHECK(place.cgroup == "/a.slice/a-b.slice/crisp-" + kContainer.str() + ".scope");
  CHECK(place.by_systemd);
  REQUIRE(node.driver->RemoveContainer(Call(), place.cgroup + "/container").ok());
  CHECK(node.fake.calls().back() == "StopUnit crisp-" + kContainer.str() + ".scope");
  REQUIRE(node.driver->RemoveBySpec(Call(), place.spec, kContainer).ok());
  CHECK(node.fake.calls().size() == 2);
  REQUIRE(node.driver->RemoveBySpec(Call(), "a.slice:other:1", kContainer).ok());
  CHECK(node.fake.calls().size() == 2);
  const auto plain = CgroupDriver::ContainerPlace("/kubepods/pod1", kContainer);
  CHECK(plain.spec == plain.cgroup);
  CHECK_FALSE(plain.by_systemd);
  node.fake.Next("StopUnit", Do::kRefuse);
  CHECK(node.driver->RemoveContainer(Call(), place.cgroup).code() == Code::kPermissionDenied);
}

TEST_CASE("Limits are set in the files and at the unit, or in neither") {
  Node node;
  const std::string scope = "/a.slice/crisp-1.scope";
  node.Cgroup(scope);
  node.root.Write("cg" + scope + "/container/memory.max", "max\n");
  REQUIRE(node.units.StartTransient(Call(), "crisp-1.scope", {}).ok());
  const auto file = [&](const std::string& name) {
    return node.root.Read("cg" + scope + "/" + name);
  };
  REQUIRE(node.driver->Limit(Call(), scope + "/container", Some(), {}).ok());
  CHECK(file("memory.max").starts_with("1048576"));
  CHECK(file("container/memory.max").starts_with("1048576"));
  CHECK(file("cpu.max").starts_with("20000 50000"));
  CHECK(node.fake.properties().at("crisp-1.scope/MemoryMax") == "t 1048576");

  auto more = Some();
  more.set_memory_limit_in_bytes(2 << 20);
  node.fake.Next("SetUnitProperties", Do::kRefuse);
  const auto refused = node.driver->Limit(Call(), scope + "/container", more, Some());
  CHECK(refused.code() == Code::kPermissionDenied);
  CHECK(file("memory.max").starts_with("1048576"));
  CHECK(node.fake.properties().at("crisp-1.scope/MemoryMax") == "t 1048576");

  const auto undo = UndoOf(node.driver->Files(scope + "/container", more).value());
  REQUIRE(undo.ok());
  REQUIRE(node.driver->Limit(Call(), scope + "/container", more, Some()).ok());
  CHECK(node.fake.properties().at("crisp-1.scope/MemoryMax") == "t 2097152");
  node.driver->TakeBack(Call(), scope + "/container", *undo, Some());
  CHECK(file("memory.max").starts_with("1048576"));
  CHECK(node.fake.properties().at("crisp-1.scope/MemoryMax") == "t 1048576");

  // The kernel's refusal comes first, and systemd is not asked.
  more.set_cpuset_mems("0");
  const auto calls = node.fake.calls().size();
  CHECK_FALSE(node.driver->Limit(Call(), scope + "/container", more, Some()).ok());
  CHECK(node.fake.calls().size() == calls);
  CHECK(file("memory.max").starts_with("1048576"));
}

TEST_CASE("The first limit has systemd enable its controller, which changes no other limit") {
  Node node;
  node.root.Write("cg/cpuset.cpus.effective", "0-3\n");
  const std::string scope = "/a.slice/crisp-1.scope";
  node.root.Write("cg" + scope + "/memory.max", "max\n");
  REQUIRE(node.units.StartTransient(Call(), "crisp-1.scope", {}).ok());
  auto limits = Some();
  limits.set_cpuset_cpus("1");
  // systemd enables them when it comes to it.
  std::jthread systemd([&](const std::stop_token& stop) {
    while (!node.fake.properties().contains("crisp-1.scope/AllowedCPUs")) {
      if (stop.stop_requested()) return;
      std::this_thread::yield();
    }
    node.Cgroup(scope);
  });
  const Status limited = node.driver->Limit(Call(), scope, limits, {});
  systemd.request_stop();
  systemd.join();
  INFO(limited.ToString());
  REQUIRE(limited.ok());
  CHECK(node.root.Read("cg" + scope + "/cpu.max").starts_with("20000 50000"));
  CHECK(node.root.Read("cg" + scope + "/cpuset.cpus").starts_with("1"));
  // Once to enable, once with the limits.
  CHECK(node.fake.calls().size() == 3);

  // Nothing to enable: not asked for. What is not there and stays so is an error by its name.
  REQUIRE(node.driver->EnableControllers(Call(), scope, node.driver->Files(scope, limits).value())
              .ok());
  CHECK(node.fake.calls().size() == 3);
  (*limits.mutable_unified())["misc.max"] = "1";
  const Status absent = node.driver->Limit(Call(), scope, limits, Some());
  CHECK(absent.code() == Code::kFailedPrecondition);
  CHECK(absent.message().find("misc.max") != std::string::npos);
}

TEST_CASE("What has systemd enable a controller sets no limit") {
  const auto properties = ControllerProperties({"cpu", "cpuset", "memory", "pids", "misc"}, "0-3");
  REQUIRE(properties.ok());
  std::set<std::string> names;
  for (const auto& property : *properties) names.insert(property.name);
  CHECK(names ==
        std::set<std::string>{"AllowedCPUs", "CPUWeight", "MemoryAccounting", "TasksAccounting"});
}
