#include <algorithm>
#include <set>
#include <thread>

#include "integration/e2e/shared_node.h"
#include "libs/os/files.h"

namespace crisp::harness {
namespace {

using Runtime = cri::RuntimeService::StubInterface;

cri::ListContainerStatsResponse StatsList(const Cri& cri, const cri::ContainerStatsFilter& filter) {
  cri::ListContainerStatsRequest request;
  *request.mutable_filter() = filter;
  const auto answer = cri.Call(&Runtime::ListContainerStats, request);
  REQUIRE_OK(answer);
  return answer.value;
}

std::set<std::string> Ids(const cri::ListContainerStatsResponse& list) {
  std::set<std::string> ids;
  for (const auto& stats : list.stats()) ids.insert(stats.attributes().id());
  return ids;
}

Answer<cri::ContainerStatsResponse> StatsOf(const Cri& cri, const std::string& id) {
  cri::ContainerStatsRequest request;
  request.set_container_id(id);
  return cri.Call(&Runtime::ContainerStats, request);
}

Answer<cri::PodSandboxStatsResponse> PodStatsOf(const Cri& cri, const std::string& id) {
  cri::PodSandboxStatsRequest request;
  request.set_pod_sandbox_id(id);
  return cri.Call(&Runtime::PodSandboxStats, request);
}

TEST_CASE("Stats: created and running containers are listed, ended ones are not") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("stats", true);
  const std::string pod = on.Pod(pod_config);
  auto config = on.node.ContainerConfig("running", {"sleep", "1000"});
  (*config.mutable_labels())["role"] = "x";
  (*config.mutable_annotations())["note"] = "y";
  const std::string running = on.Running(pod, pod_config, config);
  const std::string created =
      on.Created(pod, pod_config, on.node.ContainerConfig("created", {"sleep", "1000"}));
  const std::string ended = on.Running(pod, pod_config, on.node.ContainerConfig("ended", {"true"}));
  on.Exited(ended);

  // Layers are counted behind the first reading.
  REQUIRE(Eventually([&] {
    const auto stats = StatsList(on.cri, {}).stats();
    return std::all_of(stats.begin(), stats.end(),
                       [](const auto& one) { return one.has_writable_layer(); });
  }));
  const auto list = StatsList(on.cri, {});
  CHECK(Ids(list) == std::set{running, created});
  for (const auto& stats : list.stats()) {
    CHECK(stats.cpu().timestamp() > 0);
    CHECK(stats.cpu().has_usage_core_nano_seconds());
    CHECK(stats.memory().timestamp() > 0);
    CHECK(stats.memory().has_working_set_bytes());
    CHECK(stats.writable_layer().timestamp() > 0);
    CHECK_FALSE(stats.memory().has_available_bytes());  // they have no limit
  }

  const auto one = StatsOf(on.cri, running.substr(0, 13));
  REQUIRE_OK(one);
  CHECK(one->stats().attributes().id() == running);
  CHECK(one->stats().attributes().metadata().name() == "running");
  CHECK(one->stats().attributes().labels().at("role") == "x");
  CHECK(one->stats().attributes().annotations().at("note") == "y");

  cri::ContainerStatsFilter filter;
  (*filter.mutable_label_selector())["role"] = "x";
  CHECK(Ids(StatsList(on.cri, filter)) == std::set{running});
  (*filter.mutable_label_selector())["role"] = "z";
  CHECK(Ids(StatsList(on.cri, filter)).empty());
  filter.Clear();
  filter.set_pod_sandbox_id(pod.substr(0, 13));
  CHECK(Ids(StatsList(on.cri, filter)) == std::set{running, created});
  filter.set_id(created);
  CHECK(Ids(StatsList(on.cri, filter)) == std::set{created});

  const auto of_ended = StatsOf(on.cri, ended);
  REQUIRE_OK(of_ended);
  CHECK_FALSE(of_ended->stats().has_cpu());
  CHECK(StatsOf(on.cri, std::string(64, 'e')).code() == grpc::StatusCode::NOT_FOUND);
  CHECK(StatsOf(on.cri, "").code() == grpc::StatusCode::INVALID_ARGUMENT);
  CHECK(PodStatsOf(on.cri, std::string(64, 'e')).code() == grpc::StatusCode::NOT_FOUND);
}

TEST_CASE("Stats: what a container uses shows, with a rate and against its limit") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("busy", true);
  const std::string pod = on.Pod(pod_config);
  auto config = on.node.ContainerConfig(
      "busy",
      {"sh", "-c", "dd if=/dev/zero of=/file bs=1M count=8 2>/dev/null; while :; do :; done"});
  constexpr std::uint64_t kLimit = 64 << 20;
  config.mutable_linux()->mutable_resources()->set_memory_limit_in_bytes(kLimit);
  const std::string id = on.Running(pod, pod_config, config);
  cri::ContainerStats stats;
  const bool seen = Eventually([&] {
    const auto answer = StatsOf(on.cri, id);
    REQUIRE_OK(answer);
    stats = answer->stats();
    // The rate takes two samples that lie a second apart.
    return stats.cpu().usage_nano_cores().value() > 100'000'000 &&
           stats.memory().usage_bytes().value() > (1 << 20);
  });
  CHECK(seen);
  CHECK(stats.cpu().usage_core_nano_seconds().value() > 100'000'000);
  CHECK(stats.cpu().usage_nano_cores().value() < 4'000'000'000);
  const auto& memory = stats.memory();
  CHECK(memory.working_set_bytes().value() <= memory.usage_bytes().value());
  CHECK(memory.available_bytes().value() ==
        kLimit - std::min(kLimit, memory.working_set_bytes().value()));
  CHECK(memory.page_faults().value() > 0);
  if (os::Exists("/proc/pressure/cpu")) CHECK(stats.cpu().has_psi());
}

TEST_CASE("Stats: the writable layer counts what was written, under ImageFsInfo's name") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("layer", true);
  const std::string pod = on.Pod(pod_config);
  const std::string id = on.Running(
      pod, pod_config,
      on.node.ContainerConfig(
          "c", {"sh", "-c",
                "for i in 1 2 3 4; do dd if=/dev/zero of=/f$i bs=1M count=1 2>/dev/null; done; "
                "sync; touch /done; sleep 1000"}));
  REQUIRE(Eventually([&] { return on.cri.ExecSync(id, {"ls", "/done"})->exit_code() == 0; }));
  REQUIRE(Eventually([&] { return StatsOf(on.cri, id)->stats().has_writable_layer(); }));
  const auto answer = StatsOf(on.cri, id);
  REQUIRE_OK(answer);
  const auto& layer = answer->stats().writable_layer();
  CHECK(layer.used_bytes().value() >= 4 << 20);
  CHECK(layer.used_bytes().value() < 5 << 20);
  CHECK(layer.inodes_used().value() >= 5);
  const auto fs_info =
      on.cri.Call(&cri::ImageService::StubInterface::ImageFsInfo, cri::ImageFsInfoRequest());
  REQUIRE_OK(fs_info);
  const auto& known = fs_info->container_filesystems().empty() ? fs_info->image_filesystems()
                                                               : fs_info->container_filesystems();
  CHECK(std::any_of(known.begin(), known.end(), [&layer](const auto& one) {
    return one.fs_id().mountpoint() == layer.fs_id().mountpoint();
  }));
}

TEST_CASE("Pod stats: cgroup, containers, processes, and the network of the pod alone") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("podstats");
  const std::string pod = on.Pod(pod_config);
  const std::string id = on.Running(
      pod, pod_config, on.node.ContainerConfig("c", {"sh", "-c", "sleep 1000 & sleep 1000"}));
  const auto host_config = on.node.PodConfig("hoststats", true);
  const std::string host = on.Pod(host_config);

  const auto answer = PodStatsOf(on.cri, pod);
  REQUIRE_OK(answer);
  const auto& stats = answer->stats();
  CHECK(stats.attributes().id() == pod);
  CHECK(stats.attributes().metadata().name() == pod_config.metadata().name());
  CHECK(stats.linux().cpu().timestamp() > 0);
  CHECK(stats.linux().cpu().usage_core_nano_seconds().value() > 0);
  CHECK(stats.linux().memory().usage_bytes().value() > 0);
  CHECK(stats.linux().process().process_count().value() >= 2);
  REQUIRE(stats.linux().containers_size() == 1);
  CHECK(stats.linux().containers(0).attributes().id() == id);
  const auto& network = stats.linux().network();
  CHECK(network.timestamp() > 0);
  CHECK(network.default_interface().name() == "eth0");
  CHECK(network.default_interface().has_rx_bytes());
  CHECK(network.interfaces().empty());  // no loopback

  CHECK_FALSE(PodStatsOf(on.cri, host)->stats().linux().has_network());
  cri::ListPodSandboxStatsRequest request;
  request.mutable_filter()->set_id(pod.substr(0, 20));
  const auto list = on.cri.Call(&Runtime::ListPodSandboxStats, request);
  REQUIRE_OK(list);
  REQUIRE(list->stats_size() == 1);
  CHECK(list->stats(0).attributes().id() == pod);

  REQUIRE_OK(on.cri.StopPod(pod));
  CHECK(on.cri.Call(&Runtime::ListPodSandboxStats, request)->stats().empty());
  REQUIRE_OK(PodStatsOf(on.cri, pod));
}

TEST_CASE("Pod metrics: every described metric is there with as many label values as keys") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("metrics");
  const std::string pod = on.Pod(pod_config);
  const std::string id =
      on.Running(pod, pod_config, on.node.ContainerConfig("c", {"sleep", "1000"}));
  const auto described =
      on.cri.Call(&Runtime::ListMetricDescriptors, cri::ListMetricDescriptorsRequest());
  REQUIRE_OK(described);
  const auto metrics =
      on.cri.Call(&Runtime::ListPodSandboxMetrics, cri::ListPodSandboxMetricsRequest());
  REQUIRE_OK(metrics);
  REQUIRE(metrics->pod_metrics_size() == 1);
  CHECK(metrics->pod_metrics(0).pod_sandbox_id() == pod);
  REQUIRE(metrics->pod_metrics(0).container_metrics_size() == 1);
  CHECK(metrics->pod_metrics(0).container_metrics(0).container_id() == id);

  std::map<std::string, cri::Metric> first;
  const auto take = [&](const auto& list) {
    for (const auto& metric : list) {
      CHECK(metric.timestamp() > 0);
      first.try_emplace(metric.name(), metric);
    }
  };
  take(metrics->pod_metrics(0).container_metrics(0).metrics());
  take(metrics->pod_metrics(0).metrics());
  // What a container that does no I/O, or a kernel without huge pages, has none of.
  const std::set<std::string> optional = {
      "container_blkio_device_usage_total", "container_fs_reads_bytes_total",
      "container_fs_reads_total",           "container_fs_writes_bytes_total",
      "container_fs_writes_total",          "container_fs_sector_reads_total",
      "container_fs_sector_writes_total",   "container_hugetlb_usage_bytes",
      "container_hugetlb_max_usage_bytes"};
  for (const auto& descriptor : described->descriptors()) {
    INFO(descriptor.name());
    CHECK_FALSE(descriptor.help().empty());
    if (!first.contains(descriptor.name())) {
      CHECK(optional.contains(descriptor.name()));
      continue;
    }
    CHECK(first[descriptor.name()].label_values_size() == descriptor.label_keys_size());
  }
  const auto& keys = described->descriptors(0).label_keys();
  const auto& values = first["container_memory_usage_bytes"].label_values();
  for (int i = 0; i < keys.size(); ++i) {
    if (keys[i] == "container") CHECK(values[i] == "c");
    if (keys[i] == "pod") CHECK(values[i] == pod_config.metadata().name());
    if (keys[i] == "namespace") CHECK(values[i] == "tests");
    if (keys[i] == "name") CHECK(values[i] == id);
    if (keys[i] == "image") CHECK(values[i] == on.node.Busybox());
  }
}

template <typename Response, typename Reader>
Response ReadAll(const Reader& reader) {
  Response all;
  Response piece;
  while (reader->Read(&piece)) all.MergeFrom(piece);
  const grpc::Status status = reader->Finish();
  INFO(Describe(status));
  CHECK(status.ok());
  return all;
}

TEST_CASE("The streams give what the lists give") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("streams", true);
  const std::string pod = on.Pod(pod_config);
  const std::string first =
      on.Running(pod, pod_config, on.node.ContainerConfig("first", {"sleep", "1000"}));
  const std::string second =
      on.Created(pod, pod_config, on.node.ContainerConfig("second", {"sleep", "1000"}));
  const auto context = [] {
    auto made = std::make_unique<grpc::ClientContext>();
    made->set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    return made;
  };
  auto& runtime = on.cri.runtime();
  auto c = context();
  const auto containers = ReadAll<cri::StreamContainersResponse>(
      runtime.StreamContainers(c.get(), cri::StreamContainersRequest()));
  CHECK(containers.containers_size() == 2);
  c = context();
  cri::StreamContainersRequest running;
  running.mutable_filter()->mutable_state()->set_state(cri::ContainerState::CONTAINER_RUNNING);
  const auto only =
      ReadAll<cri::StreamContainersResponse>(runtime.StreamContainers(c.get(), running));
  REQUIRE(only.containers_size() == 1);
  CHECK(only.containers(0).id() == first);
  c = context();
  const auto pods = ReadAll<cri::StreamPodSandboxesResponse>(
      runtime.StreamPodSandboxes(c.get(), cri::StreamPodSandboxesRequest()));
  REQUIRE(pods.pod_sandboxes_size() == 1);
  CHECK(pods.pod_sandboxes(0).id() == pod);
  c = context();
  const auto stats = ReadAll<cri::StreamContainerStatsResponse>(
      runtime.StreamContainerStats(c.get(), cri::StreamContainerStatsRequest()));
  CHECK(stats.container_stats_size() == 2);
  c = context();
  const auto pod_stats = ReadAll<cri::StreamPodSandboxStatsResponse>(
      runtime.StreamPodSandboxStats(c.get(), cri::StreamPodSandboxStatsRequest()));
  CHECK(pod_stats.pod_sandbox_stats_size() == 1);
  c = context();
  const auto metrics = ReadAll<cri::StreamPodSandboxMetricsResponse>(
      runtime.StreamPodSandboxMetrics(c.get(), cri::StreamPodSandboxMetricsRequest()));
  CHECK(metrics.pod_sandbox_metrics_size() == 1);
  c = context();
  const auto images = ReadAll<cri::StreamImagesResponse>(
      on.cri.image().StreamImages(c.get(), cri::StreamImagesRequest()));
  CHECK(images.images_size() == on.cri.ListImages()->images_size());
}

TEST_CASE("Stats come from a rund that was killed and started again, and wait for it") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("restart", true);
  const std::string pod = on.Pod(pod_config);
  const std::string id =
      on.Running(pod, pod_config, on.node.ContainerConfig("c", {"sleep", "1000"}));
  CHECK(Ids(StatsList(on.cri, {})) == std::set{id});
  on.node.KillDaemon("rund");
  CHECK(Ids(StatsList(on.cri, {})) == std::set{id});
  on.node.WaitReady();
}

}  // namespace
}  // namespace crisp::harness
