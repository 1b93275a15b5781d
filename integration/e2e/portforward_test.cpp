#include <thread>

#include "integration/e2e/streaming.h"
#include "integration/harness/websocket_client.h"

// Connections into a pod's network namespace.
namespace crisp::harness {
namespace {

using namespace std::chrono_literals;

struct Pair {
  std::uint32_t error = 0;
  std::uint32_t data = 0;
};

Pair OpenPair(SpdyClient& client, const std::string& port, const std::string& request) {
  Pair pair;
  pair.error = client.Open({{"streamtype", "error"}, {"port", port}, {"requestid", request}});
  pair.data = client.Open({{"streamtype", "data"}, {"port", port}, {"requestid", request}});
  return pair;
}

/// A pod with a network of its own (or the host's) where a line is answered on a port, of one
/// family.
std::string ServingPod(OnNode& on, bool host_network, const std::string& script) {
  const auto pod_config = on.node.PodConfig("serve", host_network);
  const std::string pod = on.Pod(pod_config);
  const std::string id =
      on.Running(pod, pod_config, on.node.ContainerConfig("c", {"sh", "-c", script}));
  Eventually([&] {
    return on.cri.ExecSync(id, {"netstat", "-ltn"})->stdout().find(":80") != std::string::npos;
  });
  return pod;
}

// -ll: a process for each connection, as long as they come.
constexpr const char* kEcho = "nc -ll -p 8080 -e cat";

}  // namespace

TEST_CASE("Port-forward: many connections at a time, each its own, half closed and done") {
  OnNode on;
  const std::string pod = ServingPod(on, false, kEcho);
  SpdyClient client(on.node, ForwardUrl(on, pod), {"portforward.k8s.io"});
  REQUIRE(client.status() == 101);
  CHECK(client.protocol() == "portforward.k8s.io");
  std::vector<Pair> pairs;
  for (int i = 0; i < 20; ++i) {
    pairs.push_back(OpenPair(client, "8080", std::to_string(i)));
    // One after the other: nc's queue is short.
    client.Send(pairs.back().data, "hello ");
    CHECK(client.Read([&] { return client.of(pairs.back().data).data == "hello "; }));
  }
  for (int i = 0; i < 20; ++i) {
    client.Send(pairs[static_cast<std::size_t>(i)].data, std::to_string(i), true);
  }
  const Pair wrong = OpenPair(client, "9", "wrong");
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    CHECK(client.Read([&] { return client.of(pairs[i].error).fin; }));
    CHECK(client.of(pairs[i].data).data == "hello " + std::to_string(i));
    CHECK(client.of(pairs[i].data).fin);
    CHECK(client.of(pairs[i].error).data.empty());
  }
  // Reset without a word, for which clients would end all their connections.
  CHECK(client.Read([&] { return client.of(wrong.data).reset && client.of(wrong.error).fin; }));
  CHECK(client.of(wrong.error).data.empty());
  // The session goes on.
  const Pair again = OpenPair(client, "8080", "again");
  client.Send(again.data, "still there", true);
  CHECK(client.Read([&] { return client.of(again.data).fin; }));
  CHECK(client.of(again.data).data == "still there");
}

TEST_CASE("Port-forward: a port that is none, and UDP, are refused in words") {
  OnNode on;
  const std::string pod = ServingPod(on, true, kEcho);
  SpdyClient client(on.node, ForwardUrl(on, pod), {"portforward.k8s.io"});
  for (const std::string port : {"53/udp", "0", "65536", "http", ""}) {
    const Pair pair = OpenPair(client, port, "r" + port);
    CHECK(client.Read([&] { return client.of(pair.error).fin; }));
    CHECK(client.of(pair.error).data.find("only TCP") != std::string::npos);
  }
  // The host's network.
  const Pair pair = OpenPair(client, "8080", "ok");
  client.Send(pair.data, "host", true);
  CHECK(client.Read([&] { return client.of(pair.data).fin; }));
  CHECK(client.of(pair.data).data == "host");
}

TEST_CASE("Port-forward: IPv6 where nobody answers on IPv4") {
  OnNode on;
  const std::string pod =
      ServingPod(on, false, "echo six > /tmp/x; httpd -f -p [::1]:8080 -h /tmp");
  SpdyClient client(on.node, ForwardUrl(on, pod), {"portforward.k8s.io"});
  const Pair pair = OpenPair(client, "8080", "six");
  client.Send(pair.data, "GET /x HTTP/1.0\r\n\r\n");
  CHECK(client.Read([&] { return client.of(pair.data).fin; }));
  CHECK(client.of(pair.data).data.find("six") != std::string::npos);
  CHECK(client.of(pair.error).data.empty());
}

TEST_CASE("Port-forward: fifty megabytes there and back") {
  OnNode on;
  const std::string pod = ServingPod(on, false, kEcho);
  SpdyClient client(on.node, ForwardUrl(on, pod), {"portforward.k8s.io"});
  const Pair pair = OpenPair(client, "8080", "1");
  client.Take(pair.data, [](std::string_view) {});
  std::thread sender([&] {
    const std::string block(64 << 10U, 'x');
    for (int i = 0; i < 800; ++i) client.Send(pair.data, block);
    client.Send(pair.data, "", true);
  });
  CHECK(client.Read([&] { return client.of(pair.data).fin; }, 60s));
  sender.join();
  CHECK(client.of(pair.data).size == 800U * (64 << 10U));
}

TEST_CASE("Port-forward over WebSocket: channels, and SPDY inside its messages") {
  OnNode on;
  const std::string pod = ServingPod(on, false, kEcho);
  WebSocketClient channels(on.node, ForwardUrl(on, pod, {8080, 9}), {"v4.channel.k8s.io"});
  REQUIRE(channels.error().empty());
  channels.SendTo(0, "over channels");
  CHECK(Eventually([&] { return channels.Of(0).size() == 2 + 13; }));
  CHECK(channels.Of(0) == std::string("\x90\x1f", 2) + "over channels");
  CHECK(Eventually([&] { return channels.Of(3).find("port 9 of the pod") != std::string::npos; }));
  channels.Close();
  CHECK(channels.AwaitEnd());
  const WebSocketClient many(on.node, ForwardUrl(on, pod, std::vector<int>(128, 8080)),
                             {"v4.channel.k8s.io"});
  CHECK(many.error().find("channels for 127") != std::string::npos);

  WebSocketClient tunnel(on.node, ForwardUrl(on, pod), {"SPDY/3.1+portforward.k8s.io"});
  REQUIRE(tunnel.error().empty());
  spdy::HeaderWriter headers;
  for (const std::uint32_t id : {1U, 3U}) {
    tunnel.Send(spdy::SynStream(
        id, 0,
        headers.Write(
            {{"streamtype", id == 1 ? "error" : "data"}, {"port", "8080"}, {"requestid", "0"}})));
  }
  tunnel.Send(spdy::DataFrame(3, spdy::kFlagFin, "in a tunnel"));
  CHECK(Eventually([&] { return tunnel.Raw().find("in a tunnel") != std::string::npos; }));
}

}  // namespace crisp::harness
