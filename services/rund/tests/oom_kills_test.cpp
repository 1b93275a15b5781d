#include "services/rund/core/oom_kills.h"

#include <catch2/catch.hpp>

#include "libs/os/files.h"
#include "libs/testing/manual_clock.h"
#include "libs/testing/test_root.h"

using namespace crisp;        // NOLINT
using namespace crisp::rund;  // NOLINT
namespace cri = runtime::v1;

namespace {

const std::string kSlice = "/crisp.slice/crisp-pod.slice";

/// A pod in a slice of a tree of plain files, whose containers' scopes are gone.
struct OomFixture {
  OomFixture() {
    root.Write("cg/cgroup.controllers", "memory\n");
    auto detected = os::Cgroups::Detect(
        root / "cg", root.Write("mountinfo", fmt::format("30 1 0:1 / {} rw - cgroup2 cgroup2 rw\n",
                                                         root / "cg")));
    REQUIRE(detected.ok());
    cgroups = *std::move(detected);
    InPod(0);
    Open();
    PodRecord pod;
    pod.set_id(std::string(64, 'f'));
    pod.set_phase(v1::LIVE);
    pod.set_created_at(1);
    pod.set_cgroup_parent(kSlice);
    REQUIRE(state->ReservePod(pod).ok());
  }
  /// A new run of the daemon.
  void Open() {
    kills.reset();
    state.reset();
    auto records = Records::Open(root / "records.db");
    REQUIRE(records.ok());
    auto opened = State::Open(*std::move(records), clock);
    REQUIRE(opened.ok());
    state = *std::move(opened);
    kills.emplace(*state, *cgroups);
  }
  void InPod(int count) {
    root.Write("cg" + kSlice + "/memory.events", fmt::format("oom_kill {}\n", count));
  }
  ContainerRecord Container(const std::string& name) const {
    ContainerRecord record;
    record.set_id(name);
    record.set_pod_id(std::string(64, 'f'));
    record.set_cgroup_path(kSlice + "/crisp-" + name + ".scope");
    record.set_pod_oom_kills(kills->Before(*state->FindPod(PodId(record.pod_id()))).value());
    return record;
  }
  /// One that is on record and runs; with a scope as long as it counts.
  ContainerRecord Running(const std::string& name) {
    ContainerRecord record = Container(name);
    record.mutable_metadata()->set_name(name);
    REQUIRE(state->ReserveContainer(record).ok());
    const auto run = [&record](ContainerRecord& change) {
      change.set_phase(v1::LIVE);
      change.set_state(cri::CONTAINER_RUNNING);
      record = change;
      return Status::Ok();
    };
    REQUIRE(state->ChangeContainer(ContainerId(name), run).ok());
    InScope(record, 0);
    return record;
  }
  void InScope(const ContainerRecord& container, int count) {
    root.Write("cg" + container.cgroup_path() + "/memory.events",
               fmt::format("oom_kill {}\n", count));
  }
  /// Its scope goes, and with it what it counted.
  void Vanish(const ContainerRecord& container) {
    REQUIRE(os::RemoveTree(root / ("cg" + container.cgroup_path())).ok());
  }
  bool Ends(const ContainerRecord& container, int code = 137) {
    const OomKills::Verdict verdict = kills->Of(container, {.code = code});
    kills->Account(container, verdict);
    if (state->FindContainer(ContainerId(container.id()))) {
      const auto end = [](ContainerRecord& change) {
        change.set_state(cri::CONTAINER_EXITED);
        return Status::Ok();
      };
      REQUIRE(state->ChangeContainer(ContainerId(container.id()), end).ok());
    }
    return verdict.oom;
  }

  testing::TestRoot root;
  testing::ManualClock clock;
  std::optional<os::Cgroups> cgroups;
  std::unique_ptr<State> state;
  std::optional<OomKills> kills;
};

}  // namespace

TEST_CASE("An OOM kill in a pod is the reason of one container, also over a restart") {
  OomFixture fixture;
  const bool restarts = GENERATE(false, true);
  const ContainerRecord early = fixture.Container("early");
  const ContainerRecord other = fixture.Container("other");
  if (restarts) fixture.Open();
  fixture.InPod(1);
  CHECK(fixture.Ends(early));
  if (restarts) fixture.Open();
  CHECK_FALSE(fixture.Ends(other));
  // What came before it is not its.
  CHECK_FALSE(fixture.Ends(fixture.Container("late")));
  const ContainerRecord last = fixture.Container("last");
  fixture.InPod(2);
  CHECK(fixture.Ends(last));
  CHECK_FALSE(fixture.Ends(other));
}

TEST_CASE("What was killed in a container that lives is nobody else's reason") {
  OomFixture fixture;
  const ContainerRecord hog = fixture.Running("hog");
  const ContainerRecord idle = fixture.Running("idle");
  const ContainerRecord other = fixture.Running("other");
  fixture.InScope(hog, 1);  // a child of its first process
  fixture.InPod(1);
  fixture.Vanish(idle);
  CHECK_FALSE(fixture.Ends(idle));  // somebody sent it SIGKILL
  const ContainerRecord late = fixture.Running("late");
  // Nor once the other one has ended, by itself.
  fixture.Vanish(hog);
  CHECK_FALSE(fixture.Ends(hog, 0));
  fixture.Vanish(other);
  CHECK_FALSE(fixture.Ends(other));
  // Its own comes on top.
  fixture.InPod(2);
  fixture.Vanish(late);
  CHECK(fixture.Ends(late));
}

TEST_CASE("Two containers that one shortage ends have both ended of it") {
  OomFixture fixture;
  const ContainerRecord one = fixture.Running("one");
  const ContainerRecord two = fixture.Running("two");
  fixture.InPod(2);
  fixture.Vanish(one);
  fixture.Vanish(two);
  CHECK(fixture.Ends(one));
  CHECK(fixture.Ends(two));
}

TEST_CASE("A scope that is still there tells by itself") {
  OomFixture fixture;
  const ContainerRecord hog = fixture.Running("hog");
  const ContainerRecord idle = fixture.Running("idle");
  fixture.InPod(1);
  fixture.Vanish(hog);  // and its end is looked at second
  CHECK_FALSE(fixture.Ends(idle));
  CHECK(fixture.Ends(hog));
}

TEST_CASE("Of a container that an older version made no OOM kill is guessed") {
  OomFixture fixture;
  ContainerRecord container = fixture.Container("old");
  container.clear_pod_oom_kills();
  fixture.InPod(1);
  CHECK_FALSE(fixture.Ends(container));
}

TEST_CASE("Outside of systemd's slices a container's own counter tells") {
  OomFixture fixture;
  PodRecord plain;
  plain.set_cgroup_parent("/kubepods/pod");
  CHECK_FALSE(fixture.kills->Before(plain).has_value());
  ContainerRecord container = fixture.Container("plain");
  container.set_cgroup_path("/kubepods/pod/c");
  fixture.InPod(1);
  CHECK_FALSE(fixture.Ends(container));
  fixture.root.Write("cg/kubepods/pod/c/memory.events", "oom_kill 1\n");
  CHECK(fixture.Ends(container));
  CHECK(fixture.kills->Of(container, {.code = 137, .oom = true}).oom);
}
