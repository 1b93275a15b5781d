#include <future>
#include <set>

#include "integration/e2e/shared_node.h"

namespace crisp::harness {
namespace {

using std::chrono::milliseconds;

TEST_CASE("A pod on the CNI network is READY with an IP of the bridge's range") {
  OnNode on;
  auto config = on.node.PodConfig("cni");
  (*config.mutable_labels())["app"] = "web";
  (*config.mutable_annotations())["note"] = "kept as it is";
  const std::string id = on.Pod(config);
  CHECK(id.size() == 64);

  const auto status = on.cri.PodStatus(id);
  REQUIRE_OK(status);
  CHECK(status->status().id() == id);
  CHECK(status->status().state() == cri::PodSandboxState::SANDBOX_READY);
  CHECK(status->status().metadata().name() == config.metadata().name());
  CHECK(status->status().metadata().uid() == config.metadata().uid());
  CHECK(status->status().metadata().namespace_() == "tests");
  CHECK(status->status().created_at() > 1'700'000'000'000'000'000);
  CHECK(status->status().network().ip().starts_with("10."));
  CHECK(status->status().labels().at("app") == "web");
  CHECK(status->status().annotations().at("note") == "kept as it is");
  CHECK(status->status().linux().namespaces().options().network() == cri::NamespaceMode::POD);
}

TEST_CASE("A pod on the host network is READY without an IP of its own") {
  OnNode on;
  const std::string id = on.Pod(on.node.PodConfig("host", true));
  const auto status = on.cri.PodStatus(id);
  REQUIRE_OK(status);
  CHECK(status->status().state() == cri::PodSandboxState::SANDBOX_READY);
  CHECK(status->status().has_network());
  CHECK(status->status().network().ip().empty());
}

TEST_CASE("A pod needs no linux section") {
  OnNode on;
  auto config = on.node.PodConfig("plain");
  config.clear_linux();
  const std::string id = on.Pod(config);
  const auto status = on.cri.PodStatus(id);
  REQUIRE_OK(status);
  CHECK_FALSE(status->status().network().ip().empty());
}

TEST_CASE("Two pods reach each other over the network") {
  OnNode on;
  const auto server_pod = on.node.PodConfig("server");
  const std::string server = on.Pod(server_pod);
  on.Running(server, server_pod,
             on.node.ContainerConfig("httpd", {"sh", "-c",
                                               "echo from-the-server > /tmp/page; exec "
                                               "httpd -f -p 8080 -h /tmp"}));
  const auto client_pod = on.node.PodConfig("client");
  const std::string client_id = on.Pod(client_pod);
  auto client_config = on.node.ContainerConfig("client", {"sleep", "1000"});
  client_config.mutable_linux()
      ->mutable_security_context()
      ->mutable_capabilities()
      ->add_add_capabilities("NET_RAW");  // for ping
  const std::string client = on.Running(client_id, client_pod, client_config);

  const std::string ip = on.cri.PodStatus(server)->status().network().ip();
  REQUIRE_FALSE(ip.empty());
  CHECK(ip != on.cri.PodStatus(client_id)->status().network().ip());
  Answer<cri::ExecSyncResponse> got;
  Eventually([&] {
    got = on.cri.ExecSync(client, {"wget", "-q", "-O", "-", "http://" + ip + ":8080/page"});
    return got.ok() && got->exit_code() == 0;
  });
  REQUIRE_OK(got);
  CHECK(got->stdout() == "from-the-server\n");
  const auto ping = on.cri.ExecSync(client, {"ping", "-c", "1", "-W", "2", ip});
  REQUIRE_OK(ping);
  CHECK(ping->exit_code() == 0);
}

TEST_CASE("A port of a pod is reached through the host port") {
  OnNode on;
  auto config = on.node.PodConfig("ports");
  auto* mapping = config.add_port_mappings();
  mapping->set_protocol(cri::Protocol::TCP);
  mapping->set_container_port(8080);
  mapping->set_host_port(18080);
  const std::string pod = on.Pod(config);
  on.Running(pod, config,
             on.node.ContainerConfig("httpd", {"sh", "-c",
                                               "echo mapped > /tmp/page; exec httpd -f "
                                               "-p 8080 -h /tmp"}));
  // From the node by its own address on the bridge.
  const std::string ip = on.cri.PodStatus(pod)->status().network().ip();
  const std::string gateway = ip.substr(0, ip.rfind('.')) + ".1";
  Ran got;
  Eventually([&] {
    got = on.node.Inside({"busybox", "wget", "-q", "-O", "-", "http://" + gateway + ":18080/page"});
    return got.code == 0;
  });
  CHECK(got.out == "mapped\n");
}

TEST_CASE("Containers of a pod share its network, hostname and shared memory") {
  OnNode on;
  auto config = on.node.PodConfig("shared");
  config.mutable_dns_config()->add_servers("10.1.2.3");
  config.mutable_dns_config()->add_searches("example.org");
  config.mutable_dns_config()->add_options("ndots:5");
  const std::string pod = on.Pod(config);
  const std::string first =
      on.Running(pod, config, on.node.ContainerConfig("first", {"sleep", "1000"}));
  const std::string second =
      on.Running(pod, config, on.node.ContainerConfig("second", {"sleep", "1000"}));

  const std::string ip = on.cri.PodStatus(pod)->status().network().ip();
  for (const std::string& id : {first, second}) {
    CHECK(on.cri.ExecSync(id, {"hostname"})->stdout() == "shared\n");
    const auto address = on.cri.ExecSync(id, {"ip", "addr", "show", "eth0"});
    CHECK(address->stdout().find(ip) != std::string::npos);
    const std::string resolv = on.cri.ExecSync(id, {"cat", "/etc/resolv.conf"})->stdout();
    CHECK(resolv.find("nameserver 10.1.2.3") != std::string::npos);
    CHECK(resolv.find("search example.org") != std::string::npos);
    CHECK(resolv.find("options ndots:5") != std::string::npos);
  }
  CHECK(on.cri.ExecSync(first, {"sh", "-c", "echo shm > /dev/shm/file"})->exit_code() == 0);
  CHECK(on.cri.ExecSync(second, {"cat", "/dev/shm/file"})->stdout() == "shm\n");
}

TEST_CASE("A pod with a shared PID namespace shows its containers to each other") {
  OnNode on;
  auto config = on.node.PodConfig("pidns", true);
  config.mutable_linux()->mutable_security_context()->mutable_namespace_options()->set_pid(
      cri::NamespaceMode::POD);
  const std::string pod = on.Pod(config);
  auto container = on.node.ContainerConfig("first", {"sleep", "4711"});
  container.mutable_linux()->mutable_security_context()->mutable_namespace_options()->set_pid(
      cri::NamespaceMode::POD);
  on.Running(pod, config, container);
  container.mutable_metadata()->set_name("second");
  container.set_command(1, "1000");
  const std::string second = on.Running(pod, config, container);
  const auto ps = on.cri.ExecSync(second, {"ps"});
  REQUIRE_OK(ps);
  CHECK(ps->stdout().find("sleep 4711") != std::string::npos);
}

TEST_CASE("Stop makes a pod NOTREADY, Remove forgets it, both as often as one likes") {
  OnNode on;
  const auto config = on.node.PodConfig("life");
  const std::string pod = on.Pod(config);
  const std::string container =
      on.Running(pod, config, on.node.ContainerConfig("c", {"sleep", "1000"}));
  for (int i = 0; i < 2; ++i) REQUIRE_OK(on.cri.StopPod(pod));
  const auto stopped = on.cri.PodStatus(pod);
  REQUIRE_OK(stopped);
  CHECK(stopped->status().state() == cri::PodSandboxState::SANDBOX_NOTREADY);
  CHECK(on.StatusOf(container).state() == cri::ContainerState::CONTAINER_EXITED);

  const auto refused = on.cri.Create(pod, on.node.ContainerConfig("late", {"true"}), config);
  CHECK_FALSE(refused.ok());

  for (int i = 0; i < 2; ++i) REQUIRE_OK(on.cri.RemovePod(pod));
  CHECK(on.cri.PodStatus(pod).code() == grpc::StatusCode::NOT_FOUND);
  CHECK(on.cri.ContainerStatus(container).code() == grpc::StatusCode::NOT_FOUND);
}

TEST_CASE("Remove takes a READY pod and its running containers") {
  OnNode on;
  const auto config = on.node.PodConfig("forced");
  const std::string pod = on.Pod(config);
  const std::string container =
      on.Running(pod, config, on.node.ContainerConfig("c", {"sleep", "1000"}));
  REQUIRE_OK(on.cri.RemovePod(pod));
  CHECK(on.cri.ContainerStatus(container).code() == grpc::StatusCode::NOT_FOUND);
}

TEST_CASE("An unknown pod: Stop and Remove succeed, Status is NOT_FOUND, an empty id is an error") {
  OnNode on;
  const std::string unknown(64, 'a');
  CHECK(on.cri.StopPod(unknown).ok());
  CHECK(on.cri.RemovePod(unknown).ok());
  CHECK(on.cri.PodStatus(unknown).code() == grpc::StatusCode::NOT_FOUND);
  CHECK_FALSE(on.cri.StopPod("").ok());
  CHECK_FALSE(on.cri.RemovePod("").ok());
  CHECK_FALSE(on.cri.PodStatus("").ok());
}

TEST_CASE("Ids are accepted by unique prefix; filters are combined") {
  OnNode on;
  auto first_config = on.node.PodConfig("first", true);
  (*first_config.mutable_labels())["tier"] = "front";
  auto second_config = on.node.PodConfig("second", true);
  (*second_config.mutable_labels())["tier"] = "back";
  const std::string first = on.Pod(first_config);
  const std::string second = on.Pod(second_config);

  CHECK(on.cri.PodStatus(first.substr(0, 13))->status().id() == first);
  const auto ids = [&](const cri::PodSandboxFilter& filter) {
    std::set<std::string> found;
    const auto answer = on.cri.ListPods(filter);
    REQUIRE_OK(answer);
    for (const auto& item : answer->items()) found.insert(item.id());
    return found;
  };
  CHECK(ids({}) == std::set{first, second});
  cri::PodSandboxFilter filter;
  filter.set_id(second.substr(0, 13));
  CHECK(ids(filter) == std::set{second});
  filter.Clear();
  (*filter.mutable_label_selector())["tier"] = "front";
  CHECK(ids(filter) == std::set{first});
  filter.set_id(second);
  CHECK(ids(filter).empty());
  filter.Clear();
  filter.set_id("0000000000000");
  CHECK(ids(filter).empty());
  filter.Clear();
  filter.mutable_state()->set_state(cri::PodSandboxState::SANDBOX_NOTREADY);
  CHECK(ids(filter).empty());
  REQUIRE_OK(on.cri.StopPod(first));
  CHECK(ids(filter) == std::set{first});
}

TEST_CASE("Ten RunPodSandbox calls with the same metadata at once make one pod") {
  OnNode on;
  const auto config = on.node.PodConfig("same");
  std::vector<std::future<Answer<cri::RunPodSandboxResponse>>> calls;
  for (int i = 0; i < 10; ++i) {
    calls.push_back(std::async(std::launch::async, [&] { return on.cri.RunPod(config); }));
  }
  std::set<std::string> ids;
  for (auto& call : calls) {
    const auto answer = call.get();
    INFO(Describe(answer.status));
    CHECK(answer.ok());
    if (answer.ok()) ids.insert(answer->pod_sandbox_id());
  }
  CHECK(ids.size() == 1);
  CHECK(on.cri.ListPods()->items_size() == 1);
}

TEST_CASE("After a client's timeout the retry finds the pod that it asked for") {
  OnNode on;
  const auto config = on.node.PodConfig("late");
  for (const int deadline : {1, 5, 20, 40}) {
    const auto given_up = on.cri.RunPod(config, "", milliseconds(deadline));
    if (!given_up.ok()) CHECK(given_up.code() == grpc::StatusCode::DEADLINE_EXCEEDED);
  }
  const std::string id = on.Pod(config);
  const auto pods = on.cri.ListPods();
  REQUIRE(pods->items_size() == 1);
  CHECK(pods->items(0).id() == id);
}

TEST_CASE("Another attempt of the same pod is another pod") {
  OnNode on;
  auto config = on.node.PodConfig("attempts", true);
  const std::string first = on.Pod(config);
  config.mutable_metadata()->set_attempt(1);
  const std::string second = on.Pod(config);
  CHECK(first != second);
  CHECK(on.cri.PodStatus(first)->status().created_at() <
        on.cri.PodStatus(second)->status().created_at());
}

TEST_CASE("Ten pods at once all get an address of their own") {
  OnNode on;
  std::vector<std::future<Answer<cri::RunPodSandboxResponse>>> calls;
  for (int i = 0; i < 10; ++i) {
    calls.push_back(std::async(std::launch::async, [&on, config = on.node.PodConfig("many")] {
      return on.cri.RunPod(config);
    }));
  }
  std::set<std::string> ips;
  for (auto& call : calls) {
    const auto answer = call.get();
    REQUIRE_OK(answer);
    ips.insert(on.cri.PodStatus(answer->pod_sandbox_id())->status().network().ip());
  }
  CHECK(ips.size() == 10);
  CHECK_FALSE(ips.contains(""));
}

TEST_CASE("Sysctls of a pod hold in its containers") {
  OnNode on;
  auto config = on.node.PodConfig("sysctl");
  (*config.mutable_linux()->mutable_sysctls())["net.ipv4.ip_unprivileged_port_start"] = "77";
  (*config.mutable_linux()->mutable_sysctls())["kernel.shm_rmid_forced"] = "1";
  const std::string pod = on.Pod(config);
  const std::string id = on.Running(pod, config, on.node.ContainerConfig("c", {"sleep", "1000"}));
  CHECK(on.cri.ExecSync(id, {"cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"})->stdout() ==
        "77\n");
  CHECK(on.cri.ExecSync(id, {"cat", "/proc/sys/kernel/shm_rmid_forced"})->stdout() == "1\n");
}

}  // namespace
}  // namespace crisp::harness
