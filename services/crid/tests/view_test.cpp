#include "services/crid/core/view.h"

#include <thread>

using namespace crisp;
using namespace crisp::crid;
using namespace std::chrono_literals;

namespace {

std::string Id(char c) { return std::string(64, c); }

rund::v1::PodEntry Pod(const std::string& id, const std::string& name, bool listed = true,
                       runtime::v1::PodSandboxState state = runtime::v1::SANDBOX_READY) {
  rund::v1::PodEntry entry;
  entry.set_id(id);
  entry.set_phase(listed ? rund::v1::LIVE : rund::v1::RESERVED);
  entry.mutable_metadata()->set_name(name);
  entry.mutable_metadata()->set_namespace_("default");
  entry.mutable_metadata()->set_uid("u-" + name);
  if (listed) {
    runtime::v1::PodSandbox item;
    item.set_id(id);
    *item.mutable_metadata() = entry.metadata();
    item.set_state(state);
    (*item.mutable_labels())["app"] = name;
    entry.set_list_item(item.SerializeAsString());
  }
  return entry;
}

rund::v1::ContainerEntry Container(const std::string& id, const std::string& pod,
                                   runtime::v1::ContainerState state) {
  rund::v1::ContainerEntry entry;
  entry.set_id(id);
  entry.set_pod_id(pod);
  entry.set_phase(rund::v1::LIVE);
  entry.mutable_metadata()->set_name("c");
  runtime::v1::Container item;
  item.set_id(id);
  item.set_pod_sandbox_id(pod);
  item.set_state(state);
  entry.set_list_item(item.SerializeAsString());
  return entry;
}

rund::v1::WatchEvent Snapshot(std::vector<rund::v1::PodEntry> pods,
                              std::vector<rund::v1::ContainerEntry> containers = {},
                              std::uint64_t seq = 1) {
  rund::v1::WatchEvent event;
  event.set_seq(seq);
  event.set_snapshot(true);
  for (auto& pod : pods) *event.add_pods() = std::move(pod);
  for (auto& container : containers) *event.add_containers() = std::move(container);
  return event;
}

std::vector<std::string> PodIds(const std::shared_ptr<const std::string>& bytes) {
  runtime::v1::ListPodSandboxResponse list;
  REQUIRE(bytes != nullptr);
  REQUIRE(list.ParseFromString(*bytes));
  std::vector<std::string> ids;
  for (const auto& item : list.items()) ids.push_back(item.id());
  return ids;
}

std::vector<std::string> ContainerIds(const std::shared_ptr<const std::string>& bytes) {
  runtime::v1::ListContainersResponse list;
  REQUIRE(bytes != nullptr);
  REQUIRE(list.ParseFromString(*bytes));
  std::vector<std::string> ids;
  for (const auto& item : list.containers()) ids.push_back(item.id());
  return ids;
}

}  // namespace

TEST_CASE("A list is the items of all instances, without half-made objects") {
  View view(1ms);
  CHECK(view.All(Kind::kPod) == nullptr);
  view.Apply("1", Snapshot({Pod(Id('a'), "one"), Pod(Id('b'), "half", false)}));
  view.Apply("2", Snapshot({Pod(Id('c'), "two")}));
  CHECK(PodIds(view.All(Kind::kPod)) == std::vector{Id('a'), Id('c')});
  // The second answer is the first one's very bytes.
  CHECK(view.All(Kind::kPod) == view.All(Kind::kPod));
  CHECK(view.LiveIds(Kind::kPod)->size() == 3);
}

TEST_CASE("Nothing is answered while one known instance has not been seen yet") {
  View view(1ms);
  view.Apply("1", Snapshot({Pod(Id('a'), "one")}));
  view.Add("2");
  CHECK(view.All(Kind::kPod) == nullptr);
  CHECK(view.Pods({}) == nullptr);
  CHECK_FALSE(view.LiveIds(Kind::kPod).has_value());
  const Status away = view.WaitFresh({});
  CHECK(away.code() == Code::kUnavailable);
  CHECK(away.message() == "rund/2 is away");
  // A full id that is known is found all the same.
  CHECK(view.TryResolve(Kind::kPod, Id('a'))->ok());
  CHECK_FALSE(view.TryResolve(Kind::kPod, Id('d')).has_value());
  view.Apply("2", Snapshot({}));
  CHECK(PodIds(view.All(Kind::kPod)) == std::vector{Id('a')});
}

TEST_CASE("An instance that stays away counts as it was seen last, beside one that is there") {
  View patient(1h);
  patient.Apply("1", Snapshot({Pod(Id('a'), "one")}));
  patient.Apply("2", Snapshot({Pod(Id('c'), "two")}));
  patient.Lost("2");
  CHECK(patient.All(Kind::kPod) == nullptr);  // it may only restart

  View view(0ms);
  view.Apply("1", Snapshot({Pod(Id('a'), "one")}));
  view.Apply("2", Snapshot({Pod(Id('c'), "two")}));
  view.Lost("2");
  CHECK(view.WaitFresh({}).ok());
  CHECK(PodIds(view.All(Kind::kPod)) == std::vector{Id('a'), Id('c')});
  CHECK(view.TryResolve(Kind::kPod, Id('d'))->code() == Code::kNotFound);
  // Who says what is nobody's must see them all.
  CHECK_FALSE(view.Fresh());
  CHECK_FALSE(view.LiveIds(Kind::kPod).has_value());
  view.Lost("1");
  CHECK(view.All(Kind::kPod) == nullptr);
  CHECK(view.WaitFresh({}).message() == "rund/1 is away");
}

TEST_CASE("A closed view keeps nobody waiting") {
  View view(1h);
  view.Apply("1", Snapshot({}, {}, 10));
  bool called = false;
  view.WhenSeq("1", 12, [&called] { called = true; });
  std::thread change([&view] { view.WaitSeq({}, "1", 12); });
  view.Add("2");
  std::thread list([&view] { CHECK(view.WaitFresh({}).code() == Code::kUnavailable); });
  view.Close();
  change.join();
  list.join();
  CHECK(called);
  CHECK(view.Resolve({}, Kind::kPod, Id('a')).code() == Code::kUnavailable);
}

TEST_CASE("A change that a snapshot has told already is not told again") {
  View view(1ms);
  view.Apply("1", Snapshot({}, {}, 10));
  rund::v1::WatchEvent old;
  old.set_seq(9);
  *old.add_pods() = Pod(Id('a'), "one");
  view.Apply("1", old);
  CHECK(view.All(Kind::kPod)->empty());
}

TEST_CASE("A pod that another instance takes over is counted there alone") {
  View view(1ms);
  view.Apply("1", Snapshot({Pod(Id('a'), "one")}));
  view.Apply("2", Snapshot({Pod(Id('a'), "one")}));
  const auto instances = view.Instances();
  CHECK(instances.at(0).pods == 0);
  CHECK(instances.at(1).pods == 1);
  view.Lost("1");
  CHECK(view.Forget("1"));
  CHECK(PodIds(view.All(Kind::kPod)) == std::vector{Id('a')});
}

TEST_CASE("Ids are found by full id and by unique prefix") {
  View view(1ms);
  const std::string a1 = "abc1" + std::string(60, '0');
  const std::string a2 = "abc2" + std::string(60, '0');
  view.Apply("1", Snapshot({Pod(a1, "one"), Pod(a2, "two"), Pod(Id('e'), "half", false)}));
  auto resolve = [&view](const std::string& text) { return *view.TryResolve(Kind::kPod, text); };
  CHECK((*resolve(a1))->id == a1);
  CHECK((*resolve("abc2"))->id == a2);
  CHECK(resolve("abc").code() == Code::kInvalidArgument);
  CHECK(resolve("").code() == Code::kInvalidArgument);
  CHECK(resolve("abc1/../x").code() == Code::kInvalidArgument);
  CHECK(resolve("fff").code() == Code::kNotFound);
  CHECK(resolve("ABC1").code() == Code::kNotFound);
  CHECK(resolve(std::string(65, 'a')).code() == Code::kNotFound);
  CHECK(resolve("eee").code() == Code::kNotFound);
  CHECK(view.TryResolve(Kind::kPod, Id('e'), /*hidden=*/true)->ok());
}

TEST_CASE("Filters are combined, and an unknown id is an empty list") {
  View view(1ms);
  view.Apply(
      "1", Snapshot({Pod(Id('a'), "one"), Pod(Id('b'), "two", true, runtime::v1::SANDBOX_NOTREADY)},
                    {Container("c1", Id('a'), runtime::v1::CONTAINER_RUNNING),
                     Container("c2", Id('b'), runtime::v1::CONTAINER_EXITED)}));
  runtime::v1::PodSandboxFilter pods;
  pods.mutable_state()->set_state(runtime::v1::SANDBOX_READY);
  CHECK(PodIds(view.Pods(pods)) == std::vector{Id('a')});
  (*pods.mutable_label_selector())["app"] = "two";
  CHECK(PodIds(view.Pods(pods)).empty());
  pods.clear_state();
  CHECK(PodIds(view.Pods(pods)) == std::vector{Id('b')});
  pods.Clear();
  pods.set_id("aaa");
  CHECK(PodIds(view.Pods(pods)) == std::vector{Id('a')});
  pods.set_id("zz/zz");
  CHECK(PodIds(view.Pods(pods)).empty());

  runtime::v1::ContainerFilter containers;
  containers.set_pod_sandbox_id("aaaa");
  CHECK(ContainerIds(view.Containers(containers)) == std::vector<std::string>{"c1"});
  containers.mutable_state()->set_state(runtime::v1::CONTAINER_CREATED);
  CHECK(ContainerIds(view.Containers(containers)).empty());
  containers.Clear();
  containers.mutable_state()->set_state(runtime::v1::CONTAINER_EXITED);
  CHECK(ContainerIds(view.Containers(containers)) == std::vector<std::string>{"c2"});
}

TEST_CASE("Changes come through: new, changed and removed objects, and keys") {
  View view(1ms);
  view.Apply("1", Snapshot({}));
  CHECK(view.All(Kind::kPod)->empty());
  rund::v1::WatchEvent event;
  event.set_seq(5);
  *event.add_pods() = Pod(Id('a'), "one", false);
  view.Apply("1", event);
  CHECK(view.All(Kind::kPod)->empty());
  const RecordPtr half = view.FindKey(Kind::kPod, PodKey(event.pods(0).metadata()));
  REQUIRE(half != nullptr);
  CHECK_FALSE(half->listed);
  event.set_seq(6);
  *event.mutable_pods(0) = Pod(Id('a'), "one");
  view.Apply("1", event);
  CHECK(PodIds(view.All(Kind::kPod)) == std::vector{Id('a')});
  rund::v1::WatchEvent removed;
  removed.set_seq(7);
  removed.add_removed_pod_ids(Id('a'));
  view.Apply("1", removed);
  CHECK(view.All(Kind::kPod)->empty());
  CHECK(view.FindKey(Kind::kPod, PodKey(event.pods(0).metadata())) == nullptr);
  CHECK(view.Instances().at(0).pods == 0);
}

TEST_CASE("A long item is framed as protobuf wants it") {
  View view(1ms);
  auto pod = Pod(Id('a'), std::string(20'000, 'x'));
  view.Apply("1", Snapshot({pod, Pod(Id('b'), "small")}));
  CHECK(PodIds(view.All(Kind::kPod)) == std::vector{Id('a'), Id('b')});
}

TEST_CASE("A caller waits until the view shows its own change") {
  View view(10s);
  view.Apply("1", Snapshot({}, {}, 10));
  view.WaitSeq({}, "1", 10);  // there already
  bool called = false;
  view.WhenSeq("1", 12, [&called] { called = true; });
  CHECK_FALSE(called);
  std::thread waiter([&view] { view.WaitSeq({}, "1", 12); });
  rund::v1::WatchEvent event;
  event.set_seq(12);
  view.Apply("1", event);
  waiter.join();
  CHECK(called);
  // A broken stream ends the wait: what comes then is newer.
  bool lost = false;
  view.WhenSeq("1", 99, [&lost] { lost = true; });
  view.Lost("1");
  CHECK(lost);
}

TEST_CASE("An instance that left with nothing is forgotten, one with pods is not") {
  View view(1ms);
  view.Apply("1", Snapshot({Pod(Id('a'), "one")}));
  view.Apply("2", Snapshot({}));
  view.Lost("2");
  CHECK(view.Forget("2"));
  CHECK(view.Fresh());
  // Nobody waits for what it would have told.
  view.Apply("3", Snapshot({}, {}, 10));
  bool reached = false;
  view.WhenSeq("3", 12, [&reached] { reached = true; });
  CHECK(view.Forget("3"));
  CHECK(reached);
  view.Lost("1");
  CHECK_FALSE(view.Forget("1"));
  CHECK_FALSE(view.Fresh());
}
