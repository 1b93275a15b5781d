#include "integration/harness/websocket_client.h"

#include "integration/e2e/streaming.h"
#include "libs/os/files.h"

// exec over WebSocket.
namespace crisp::harness {

using namespace std::chrono_literals;

TEST_CASE("Exec over WebSocket: channels, exit code, an end") {
  OnNode on;
  const std::string id = on.Sleeper("ws");
  for (const char* protocol : {"v4.channel.k8s.io", "v5.channel.k8s.io"}) {
    WebSocketClient client(on.node, ExecUrl(on, id, {"sh", "-c", "echo out; echo err >&2; exit 7"}),
                           {protocol});
    REQUIRE(client.error().empty());
    CHECK(client.protocol() == protocol);
    REQUIRE(client.AwaitEnd());
    CHECK(client.Of(1) == "out\n");
    CHECK(client.Of(2) == "err\n");
    CHECK(ExitCodeIn(client.Of(3)) == "7");
  }
}

TEST_CASE("Exec over WebSocket: before version 4 the end is told in words, and base64 is spoken") {
  OnNode on;
  const std::string id = on.Sleeper("wsold");
  WebSocketClient none(on.node, ExecUrl(on, id, {"sh", "-c", "echo out; exit 7"}), {});
  REQUIRE(none.error().empty());
  CHECK(none.protocol().empty());
  REQUIRE(none.AwaitEnd());
  CHECK(none.Of(1) == "out\n");
  CHECK(none.Of(3) == "command terminated with non-zero exit code: 7");

  WebSocketClient text(on.node, ExecUrl(on, id, {"sh", "-c", "read x; echo got $x"}, {.in = true}),
                       {"v4.base64.channel.k8s.io"});
  REQUIRE(text.error().empty());
  text.Send("0aGVsbG8K", true);  // "hello\n"
  REQUIRE(text.AwaitEnd());
  CHECK(text.Raw().find("1Z290IGhlbGxvCg==") != std::string::npos);  // "got hello\n"
}

TEST_CASE("Exec over WebSocket: version 5 can close stdin, all sizes arrive") {
  OnNode on;
  const std::string id = on.Sleeper("ws5");
  WebSocketClient sum(on.node, ExecUrl(on, id, {"sh", "-c", "cat | wc -c"}, {.in = true}),
                      {"v5.channel.k8s.io"});
  REQUIRE(sum.error().empty());
  for (int i = 0; i < 50; ++i) sum.SendTo(0, std::string(100'000, 'x'));
  sum.CloseChannel(0);
  REQUIRE(sum.AwaitEnd());
  CHECK(sum.Of(1) == "5000000\n");

  WebSocketClient tty(on.node,
                      ExecUrl(on, id, {"sh", "-c", "read x; stty size"}, {.in = true, .tty = true}),
                      {"v5.channel.k8s.io"});
  REQUIRE(tty.error().empty());
  tty.SendTo(4, R"({"Width":99,"Height":33})");
  tty.SendTo(0, "\n");
  REQUIRE(tty.AwaitEnd());
  CHECK(tty.Of(1).find("33 99") != std::string::npos);
}

TEST_CASE("Exec over WebSocket: a protocol that nobody knows is refused in words") {
  OnNode on;
  const std::string id = on.Sleeper("wsno");
  WebSocketClient client(on.node, ExecUrl(on, id, {"true"}), {"chat"});
  CHECK(client.error().find("403") != std::string::npos);
  CHECK(client.error().find("chat") != std::string::npos);
}

TEST_CASE("Exec over TLS, where the settings name a certificate") {
  Node node({.yaml = "", .without_unified = false, .start = false});
  const std::string cert = node.dir() + "/tls.crt";
  const std::string key = node.dir() + "/tls.key";
  REQUIRE(
      RunProgram({"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                  "-nodes", "-subj", "/CN=node", "-keyout", key, "-out", cert})
          .code == 0);
  REQUIRE(os::WriteFile(node.dir() + "/crisp.yaml.d/tls.yaml",
                        "rund:\n  streaming_tls_cert: " + cert + "\n  streaming_tls_key: " + key +
                            "\n  streaming_tls_min_version: \"1.3\"\n")
              .ok());
  node.StartDaemons();
  const Cri& cri = node.cri();
  const auto pod_config = node.PodConfig("tls", true);
  const auto pod = cri.RunPod(pod_config);
  REQUIRE_OK(pod);
  const auto created =
      cri.Create(pod->pod_sandbox_id(), node.ContainerConfig("c", {"sleep", "1000"}), pod_config);
  REQUIRE_OK(created);
  REQUIRE_OK(cri.Start(created->container_id()));
  const auto url = cri.Call(
      &Runtime::Exec,
      ExecOf(created->container_id(), {"sh", "-c", "cat; exit 7"}, {.in = true, .err = false}));
  REQUIRE_OK(url);
  CHECK(url->url().starts_with("https://"));
  WebSocketClient client(node, url->url(), {"v5.channel.k8s.io"});
  INFO(client.error());
  REQUIRE(client.error().empty());
  client.SendTo(0, "over TLS");
  client.CloseChannel(0);
  REQUIRE(client.AwaitEnd());
  CHECK(client.Of(1) == "over TLS");
  CHECK(ExitCodeIn(client.Of(3)) == "7");
  REQUIRE_OK(cri.RemovePod(pod->pod_sandbox_id()));
}

}  // namespace crisp::harness
