#include "integration/harness/websocket_client.h"

#include "integration/e2e/streaming.h"

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

}  // namespace crisp::harness
