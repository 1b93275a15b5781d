#include "services/crispctl/top.h"

#include <catch2/catch.hpp>

using namespace crisp::ctl;
namespace cri = runtime::v1;

namespace {

struct Look {
  cri::ListContainerStatsResponse stats;
  cri::ListPodSandboxResponse pods;
  cri::ListContainersResponse containers;

  void AddPod(const std::string& id) {
    auto* pod = pods.add_items();
    pod->set_id(id);
    pod->mutable_metadata()->set_namespace_("default");
    pod->mutable_metadata()->set_name(id);
  }
  void Add(const std::string& pod, const std::string& name, std::int64_t at, std::uint64_t used,
           std::uint64_t memory) {
    auto* container = containers.add_containers();
    container->set_id(name + "-id");
    container->set_pod_sandbox_id(pod);
    auto* one = stats.add_stats();
    one->mutable_attributes()->set_id(name + "-id");
    one->mutable_attributes()->mutable_metadata()->set_name(name);
    one->mutable_cpu()->set_timestamp(at);
    one->mutable_cpu()->mutable_usage_core_nano_seconds()->set_value(used);
    one->mutable_memory()->mutable_working_set_bytes()->set_value(memory);
  }
};

std::string Show(Top& top, const Look& look) {
  return top.Look(look.stats, look.pods, look.containers);
}

Look At(std::int64_t time, std::uint64_t used) {
  Look look;
  look.AddPod("idle");
  look.AddPod("busy");
  look.AddPod("empty");
  look.Add("idle", "a", time, 1000, 2'000'000);
  look.Add("busy", "b", time, used, 1'000'000);
  look.Add("busy", "c", time, used / 2, 3'000'000);
  return look;
}

}  // namespace

TEST_CASE("top counts CPU from one look to the next, and shows the busiest pod first") {
  Top top(/*pods_only=*/false);
  CHECK(Show(top, At(1'000, 1'000)).find("CPU -, memory 6.0 MB") != std::string::npos);
  CHECK(Show(top, At(2'000, 1'500)) ==
        "2 pods, 3 containers: CPU 75.0%, memory 6.0 MB\n\n"
        "POD / CONTAINER  CPU    MEMORY  ID\n"
        "default/busy     75.0%  4.0 MB  busy\n"
        "  b              50.0%  1.0 MB  b-id\n"
        "  c              25.0%  3.0 MB  c-id\n"
        "default/idle     0.0%   2.0 MB  idle\n"
        "  a              0.0%   2.0 MB  a-id\n");
  // A container that began anew has used less than before.
  CHECK(Show(top, At(3'000, 0)).find("default/busy     -") != std::string::npos);
}

TEST_CASE("top of pods alone leaves their containers out") {
  Top top(/*pods_only=*/true);
  const std::string text = Show(top, At(1'000, 1'000));
  CHECK(text.find("default/busy") != text.npos);
  CHECK(text.find("b-id") == text.npos);
}
