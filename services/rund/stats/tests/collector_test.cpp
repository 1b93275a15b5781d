#include "services/rund/stats/collector.h"

#include <set>
#include <thread>

#include "libs/testing/manual_clock.h"
#include "services/rund/stats/cri_stats.h"
#include "services/rund/stats/metric_families.h"
#include "services/rund/stats/stats.h"
#include "services/rund/stats/tests/fixture.h"

namespace crisp::rund {
namespace {

namespace cri = runtime::v1;
using std::chrono::milliseconds;
using std::chrono::seconds;

CallContext Call() { return CallContext::Background(seconds(10), "test"); }

/// A node with one pod and one container, whose cgroups are plain files.
class Fixture {
 public:
  Fixture() {
    auto records = Records::Open(root_ / "records.db");
    REQUIRE(records.ok());
    auto opened = State::Open(*std::move(records), clock);
    REQUIRE(opened.ok());
    state_ = *std::move(opened);
    collector_.emplace(
        *state_, tree.cgroups(), clock,
        CollectorOptions{.storage_root = root_.path(),
                         .count_soon = [this] { ++counts_asked; },
                         .side_by_side =
                             [this](const auto& tasks) {
                               ++times_side_by_side;
                               std::vector<std::jthread> threads;
                               for (const auto& task : tasks)
                                 threads.emplace_back([&task] { static_cast<void>(task()); });
                             }});
    stats_.emplace(*state_, *collector_);
    AddPod("p", "/pod");
    AddContainer("c", "p", CgroupTree::kPath);
    REQUIRE(os::MakeDirs(root_ / "upper").ok());
    tree.Write("", "cpu.stat", "usage_usec 1000\n");
    tree.Write("", "memory.current", "1000\n");
    tree.Write("", "memory.max", "5000\n");
    tree.Write("", "memory.stat", "inactive_file 400\nanon 300\n");
    tree.Write("", "memory.swap.current", "70\n");
    tree.Write("", "memory.swap.max", "50\n");
    tree.Write("", "cpu.pressure", "some avg10=1.00 avg60=0.00 avg300=0.00 total=3\n");
    tree.Write("", "cgroup.procs", "");
  }

  void AddPod(const std::string& id, const std::string& cgroup) {
    PodRecord pod;
    pod.set_id(id);
    pod.mutable_metadata()->set_name(id);
    pod.mutable_metadata()->set_uid(id);
    pod.mutable_metadata()->set_namespace_("ns");
    pod.set_phase(v1::LIVE);
    pod.set_created_at(1);
    pod.set_cgroup_parent(cgroup);
    REQUIRE(state_->ReservePod(pod).ok());
  }
  void AddContainer(const std::string& id, const std::string& pod, const std::string& cgroup) {
    ContainerRecord container;
    container.set_id(id);
    container.set_pod_id(pod);
    container.mutable_metadata()->set_name("name-" + id);
    (*container.mutable_config()->mutable_labels())["l"] = id;
    container.set_phase(v1::LIVE);
    container.set_state(cri::CONTAINER_RUNNING);
    container.set_created_at(1);
    container.set_started_at(2);
    container.set_cgroup_path(cgroup);
    container.add_rootfs_mounts()->set_upper_dir(root_ / "upper");
    REQUIRE(state_->ReserveContainer(container).ok());
  }
  void End(const std::string& id) {
    REQUIRE(state_
                ->ChangeContainer(ContainerId(id),
                                  [](ContainerRecord& record) {
                                    record.set_state(cri::CONTAINER_EXITED);
                                    return Status::Ok();
                                  })
                .ok());
  }
  std::uint64_t CpuNow(Depth depth = Depth::kContainers) {
    const auto sweep = collector_->Take(Call(), depth);
    REQUIRE(sweep.ok());
    REQUIRE_FALSE((*sweep)->containers.empty());
    return (*sweep)->containers[0].usage.cpu_ns.value_or(0);
  }
  Collector& collector() { return *collector_; }
  Stats& stats() { return *stats_; }
  std::string root() const { return root_.path(); }

  testing::ManualClock clock;
  CgroupTree tree{CgroupTree::Kind::kV2};
  int counts_asked = 0;
  int times_side_by_side = 0;

 private:
  testing::TestRoot root_;
  std::unique_ptr<State> state_;
  std::optional<Collector> collector_;
  std::optional<Stats> stats_;
};

TEST_CASE("Calls share a reading for a moment, until something changes") {
  Fixture f;
  CHECK(f.CpuNow() == 1'000'000);
  f.tree.Write("", "cpu.stat", "usage_usec 2000\n");
  CHECK(f.CpuNow() == 1'000'000);
  CHECK(f.CpuNow(Depth::kPods) == 2'000'000);  // needs more than what was read
  f.tree.Write("", "cpu.stat", "usage_usec 3000\n");
  CHECK(f.CpuNow() == 2'000'000);  // which serves those that need less
  f.clock.Advance(milliseconds(300));
  CHECK(f.CpuNow() == 3'000'000);
  f.tree.Write("", "cpu.stat", "usage_usec 4000\n");
  f.AddContainer("d", "p", "/pod/d");
  CHECK((*f.collector().Take(Call(), Depth::kContainers))->containers.size() == 2);
}

TEST_CASE("The CRI gets nanoseconds of pressure, and swap that does not go below zero") {
  Fixture f;
  f.collector().Tick(Call());
  const auto list = f.stats().Containers(Call(), {});
  REQUIRE(list.ok());
  REQUIRE(list->stats_size() == 1);
  const cri::ContainerStats& stats = list->stats(0);
  CHECK(stats.attributes().id() == "c");
  CHECK(stats.attributes().metadata().name() == "name-c");
  CHECK(stats.cpu().timestamp() == f.clock.Wall().time_since_epoch().count());
  CHECK(stats.cpu().psi().some().total() == 3000);
  CHECK(stats.cpu().psi().some().avg10() == 1.0);
  CHECK(stats.memory().working_set_bytes().value() == 600);
  CHECK(stats.memory().available_bytes().value() == 4400);
  CHECK(stats.memory().rss_bytes().value() == 300);
  CHECK(stats.swap().swap_usage_bytes().value() == 70);
  CHECK(stats.swap().swap_available_bytes().value() == 0);  // over its limit of 50
  CHECK(stats.writable_layer().fs_id().mountpoint() == f.root());
  CHECK(stats.writable_layer().inodes_used().value() == 1);
}

TEST_CASE("A reading counts no files; it has a new layer counted behind it") {
  Fixture f;
  const auto layer = [&f] {
    f.clock.Advance(seconds(1));
    return f.stats().Containers(Call(), {})->stats(0).has_writable_layer();
  };
  CHECK_FALSE(layer());
  CHECK(f.counts_asked == 1);
  CHECK_FALSE(layer());
  f.collector().CountDisks(Call());
  CHECK(layer());
  CHECK(f.counts_asked == 2);
}

TEST_CASE("Many containers are read by two threads, each once") {
  Fixture f;
  CHECK(f.CpuNow() == 1'000'000);
  CHECK(f.times_side_by_side == 0);
  for (int i = 10; i < 30; ++i) f.AddContainer(fmt::format("d{}", i), "p", CgroupTree::kPath);
  const auto sweep = f.collector().Take(Call(), Depth::kMetrics);
  REQUIRE(sweep.ok());
  CHECK(f.times_side_by_side == 1);
  REQUIRE((*sweep)->containers.size() == 21);
  std::set<std::string> read;
  for (const ContainerSample& sample : (*sweep)->containers) {
    read.insert(sample.record->id());
    CHECK(sample.usage.cpu_ns == 1'000'000);
    CHECK(sample.usage.rss_bytes == 300);
  }
  CHECK(read.size() == 21);
}

TEST_CASE("A rate is there at the first call, from the readings of the background") {
  Fixture f;
  f.collector().Tick(Call());
  f.clock.Advance(seconds(10));
  f.tree.Write("", "cpu.stat", "usage_usec 5001000\n");
  const auto list = f.stats().Containers(Call(), {});
  REQUIRE(list.ok());
  CHECK(list->stats(0).cpu().usage_nano_cores().value() == 500'000'000);
}

TEST_CASE("Filters and ended containers") {
  Fixture f;
  f.AddContainer("d", "p", "/pod/d");
  f.collector().Tick(Call());
  const auto ids = [&f](const cri::ContainerStatsFilter& filter) {
    std::set<std::string> found;
    const auto list = f.stats().Containers(Call(), filter);
    for (const auto& stats : list->stats()) found.insert(stats.attributes().id());
    return found;
  };
  cri::ContainerStatsFilter filter;
  CHECK(ids(filter) == std::set<std::string>{"c", "d"});
  (*filter.mutable_label_selector())["l"] = "d";
  CHECK(ids(filter) == std::set<std::string>{"d"});
  filter.set_id("c");
  CHECK(ids(filter).empty());
  f.End("c");
  filter.Clear();
  CHECK(ids(filter) == std::set<std::string>{"d"});
  const auto ended = f.stats().Container(Call(), ContainerId("c"));
  REQUIRE(ended.ok());
  CHECK_FALSE(ended->stats().has_cpu());
  CHECK(ended->stats().has_writable_layer());
  CHECK(f.stats().Container(Call(), ContainerId("e")).code() == Code::kNotFound);
  CHECK(f.stats().Pod(Call(), PodId("e")).code() == Code::kNotFound);
}

TEST_CASE("Pods that share a cgroup get the sum of their own containers") {
  Fixture f;
  f.AddPod("q", "/pod");
  const auto list = f.stats().Pods(Call(), {});
  REQUIRE(list.ok());
  REQUIRE(list->stats_size() == 2);
  for (const auto& pod : list->stats()) {
    const bool has_container = pod.attributes().id() == "p";
    CHECK(pod.linux().cpu().usage_core_nano_seconds().value() == (has_container ? 1'000'000 : 0));
    CHECK(pod.linux().memory().usage_bytes().value() == (has_container ? 1000 : 0));
    CHECK(pod.linux().containers_size() == (has_container ? 1 : 0));
  }
}

TEST_CASE("Every metric that a kubelet's cAdvisor has is there") {
  std::set<std::string> known;
  const auto descriptors = MetricDescriptors();
  for (const auto& descriptor : descriptors.descriptors()) known.insert(descriptor.name());
  for (const char* name : {"blkio_device_usage_total",
                           "cpu_cfs_periods_total",
                           "cpu_cfs_throttled_periods_total",
                           "cpu_cfs_throttled_seconds_total",
                           "cpu_load_average_10s",
                           "cpu_system_seconds_total",
                           "cpu_usage_seconds_total",
                           "cpu_user_seconds_total",
                           "file_descriptors",
                           "fs_inodes_free",
                           "fs_inodes_total",
                           "fs_io_current",
                           "fs_io_time_seconds_total",
                           "fs_io_time_weighted_seconds_total",
                           "fs_limit_bytes",
                           "fs_read_seconds_total",
                           "fs_reads_bytes_total",
                           "fs_reads_merged_total",
                           "fs_reads_total",
                           "fs_sector_reads_total",
                           "fs_sector_writes_total",
                           "fs_usage_bytes",
                           "fs_write_seconds_total",
                           "fs_writes_bytes_total",
                           "fs_writes_merged_total",
                           "fs_writes_total",
                           "last_seen",
                           "memory_cache",
                           "memory_failcnt",
                           "memory_failures_total",
                           "memory_kernel_usage",
                           "memory_mapped_file",
                           "memory_max_usage_bytes",
                           "memory_rss",
                           "memory_swap",
                           "memory_usage_bytes",
                           "memory_working_set_bytes",
                           "network_receive_bytes_total",
                           "network_receive_errors_total",
                           "network_receive_packets_dropped_total",
                           "network_receive_packets_total",
                           "network_transmit_bytes_total",
                           "network_transmit_errors_total",
                           "network_transmit_packets_dropped_total",
                           "network_transmit_packets_total",
                           "oom_events_total",
                           "pressure_cpu_stalled_seconds_total",
                           "pressure_cpu_waiting_seconds_total",
                           "pressure_io_stalled_seconds_total",
                           "pressure_io_waiting_seconds_total",
                           "pressure_memory_stalled_seconds_total",
                           "pressure_memory_waiting_seconds_total",
                           "processes",
                           "sockets",
                           "spec_cpu_period",
                           "spec_cpu_quota",
                           "spec_cpu_shares",
                           "spec_memory_limit_bytes",
                           "spec_memory_reservation_limit_bytes",
                           "spec_memory_swap_limit_bytes",
                           "start_time_seconds",
                           "tasks_state",
                           "threads",
                           "threads_max",
                           "ulimits_soft"}) {
    INFO(name);
    CHECK(known.contains(std::string("container_") + name));
  }
}

TEST_CASE("Metrics have the names and the labels of their descriptors, which never change") {
  Fixture f;
  const auto descriptors = MetricDescriptors();
  CHECK(MetricDescriptors().SerializeAsString() == descriptors.SerializeAsString());
  std::map<std::string, int> keys;
  for (const auto& descriptor : descriptors.descriptors()) {
    CHECK(descriptor.name().starts_with("container_"));
    CHECK_FALSE(descriptor.help().empty());
    CHECK(keys.emplace(descriptor.name(), descriptor.label_keys_size()).second);
  }
  const auto metrics = f.stats().Metrics(Call());
  REQUIRE(metrics.ok());
  REQUIRE(metrics->pod_metrics_size() == 1);
  const auto& pod = metrics->pod_metrics(0);
  REQUIRE(pod.container_metrics_size() == 1);
  std::map<std::string, std::uint64_t> values;
  for (const auto& metric : pod.container_metrics(0).metrics()) {
    INFO(metric.name());
    REQUIRE(keys.contains(metric.name()));
    CHECK(metric.label_values_size() == keys[metric.name()]);
    CHECK(metric.label_values(0) == "name-c");
    CHECK(metric.label_values(4) == "ns");
    values[metric.name()] = metric.value().value();
  }
  CHECK(values["container_memory_working_set_bytes"] == 600);
  CHECK(values["container_spec_memory_limit_bytes"] == 5000);
  for (const auto& metric : pod.metrics()) {
    CHECK(metric.label_values_size() == keys[metric.name()]);
    CHECK(metric.label_values(0).empty());
  }
}

}  // namespace
}  // namespace crisp::rund
