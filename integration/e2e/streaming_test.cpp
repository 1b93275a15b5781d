#include <algorithm>
#include <atomic>
#include <thread>

#include "integration/e2e/streaming.h"

// exec, attach and port-forward over SPDY, as kubelet and crictl speak it.
namespace crisp::harness {
namespace {

using namespace std::chrono_literals;
RemoteClient StartExec(const OnNode& on, const std::string& id,
                       const std::vector<std::string>& command, const Streams& options = {},
                       const std::string& protocol = "v4.channel.k8s.io") {
  return {
      on.node, ExecUrl(on, id, command, options), options.in, options.out, options.err, options.tty,
      protocol};
}

}  // namespace

TEST_CASE("Exec over SPDY: stdout, stderr and the exit code, apart") {
  OnNode on;
  const std::string id = on.Sleeper("spdy");
  auto exec = StartExec(on, id, {"sh", "-c", "echo out; echo err >&2; exit 7"});
  CHECK(exec.client.protocol() == "v4.channel.k8s.io");
  const std::string status = exec.Finish();
  CHECK(exec.client.of(exec.out).data == "out\n");
  CHECK(exec.client.of(exec.err).data == "err\n");
  INFO(status);
  CHECK(ExitCodeIn(status) == "7");
  CHECK(exec.client.of(exec.out).fin);
  CHECK(exec.client.of(exec.err).fin);
  CHECK(exec.client.of(exec.error).fin);
  CHECK(exec.client.ended());
}

TEST_CASE("Exec: success is told too, and older protocols get words in place of JSON") {
  OnNode on;
  const std::string id = on.Sleeper("versions");
  CHECK(json::GetString(json::Parse(StartExec(on, id, {"true"}).Finish()).value(), "status")
            .value() == "Success");
  for (const char* protocol :
       {"channel.k8s.io", "v1.channel.k8s.io", "v2.channel.k8s.io", "v3.channel.k8s.io"}) {
    CHECK(StartExec(on, id, {"true"}, {}, protocol).Finish().empty());
    const std::string words = StartExec(on, id, {"sh", "-c", "exit 3"}, {}, protocol).Finish();
    CHECK(words == "command terminated with non-zero exit code: 3");
  }
}

TEST_CASE("Exec: the end of stdin reaches the command, and its output still comes") {
  OnNode on;
  const std::string id = on.Sleeper("stdin");
  auto exec = StartExec(on, id, {"sh", "-c", "cat; sleep 0.3; echo end"}, {.in = true});
  exec.client.Send(exec.in, "hello ");
  exec.client.Send(exec.in, "world\n", true);
  CHECK(ExitCodeIn(exec.Finish()) == "0");
  CHECK(exec.client.of(exec.out).data == "hello world\nend\n");
}

TEST_CASE("Exec of what cannot run says so on the error stream") {
  OnNode on;
  const std::string id = on.Sleeper("nothing");
  auto exec = StartExec(on, id, {"/no/such/program"});
  const std::string status = exec.Finish();
  INFO(status);
  CHECK(status.find("/no/such/program") != std::string::npos);
  CHECK(exec.client.of(exec.err).data.empty());
  CHECK(json::GetString(json::Parse(status).value(), "status").value() == "Failure");
}

TEST_CASE("Exec: a hundred megabytes there and back are the same") {
  OnNode on;
  const std::string id = on.Sleeper("bulk");
  auto exec = StartExec(on, id, {"cat"}, {.in = true});
  constexpr std::size_t kTotal = 100 << 20U;
  std::string block(64 << 10U, '\0');
  std::uint32_t seed = 1;
  for (char& c : block) c = static_cast<char>((seed = seed * 1664525 + 1013904223) >> 24U);
  std::uint64_t received = 0;
  bool same = true;
  exec.client.Take(exec.out, [&](std::string_view piece) {
    for (const char c : piece) same = same && c == block[received++ % block.size()];
  });
  std::thread sender([&] {
    for (std::size_t sent = 0; sent < kTotal; sent += block.size()) {
      exec.client.Send(exec.in, block);
    }
    exec.client.Send(exec.in, "", true);
  });
  const std::string status = exec.Finish(120s);
  sender.join();
  CHECK(ExitCodeIn(status) == "0");
  CHECK(received == kTotal);
  CHECK(same);
}

TEST_CASE("Exec with a terminal: it is one, it has the size that was asked for, before and after") {
  OnNode on;
  const std::string id = on.Sleeper("tty");
  auto exec = StartExec(on, id, {"sh", "-c", "tty; stty size; read x; stty size; echo got $x"},
                        {.in = true, .tty = true});
  exec.client.Send(exec.resize, R"({"Width":123,"Height":45})");
  REQUIRE(exec.client.Read(
      [&] { return exec.client.of(exec.out).data.find("45 123") != std::string::npos; }));
  exec.client.Send(exec.resize, R"({"Width":0,"Height":1}{"Width":80,"Height":25})");
  exec.client.Send(exec.in, "line\n");
  CHECK(ExitCodeIn(exec.Finish()) == "0");
  const std::string& out = exec.client.of(exec.out).data;
  INFO(out);
  CHECK(out.find("/dev/pts/") != std::string::npos);
  CHECK(out.find("25 80") != std::string::npos);
  CHECK(out.find("got line") != std::string::npos);
}

TEST_CASE("Exec with a terminal: Ctrl-C interrupts, and output is whole when stdin ends at once") {
  OnNode on;
  const std::string id = on.Sleeper("ctrlc");
  auto exec = StartExec(on, id, {"sh", "-c", "echo go; sleep 100"}, {.in = true, .tty = true});
  REQUIRE(exec.client.Read([&] { return exec.client.of(exec.out).size > 3; }));
  exec.client.Send(exec.in, "\x03");
  CHECK(ExitCodeIn(exec.Finish()) == "130");
  for (int i = 0; i < 10; ++i) {
    auto quick =
        StartExec(on, id, {"sh", "-c", "echo begin; cat; echo end"}, {.in = true, .tty = true});
    quick.client.Send(quick.in, "", true);
    CHECK(ExitCodeIn(quick.Finish()) == "0");
    CHECK(quick.client.of(quick.out).data == "begin\r\nend\r\n");
  }
  auto unfinished = StartExec(on, id, {"sh", "-c", "stty -echo; echo go; cat; echo; echo end"},
                              {.in = true, .tty = true});
  REQUIRE(unfinished.client.Read([&] { return unfinished.client.of(unfinished.out).size > 3; }));
  unfinished.client.Send(unfinished.in, "no newline", true);
  CHECK(ExitCodeIn(unfinished.Finish()) == "0");
  CHECK(unfinished.client.of(unfinished.out).data == "go\r\nno newline\r\nend\r\n");
}

TEST_CASE("Exec: a background child that keeps the pipes does not keep the session") {
  OnNode on;
  const std::string id = on.Sleeper("background");
  const auto start = std::chrono::steady_clock::now();
  auto exec = StartExec(on, id, {"sh", "-c", "sleep 30 & echo out"});
  CHECK(ExitCodeIn(exec.Finish()) == "0");
  CHECK(exec.client.of(exec.out).data == "out\n");
  CHECK(std::chrono::steady_clock::now() - start < 10s);
}

TEST_CASE("The URL is good for one use, and what is wrong with a request is said") {
  OnNode on;
  const std::string id = on.Sleeper("url");
  const std::string url = ExecUrl(on, id, {"true"}, {});
  CHECK(SpdyClient(on.node, url, {"v9.channel.k8s.io"}).status() == 403);
  CHECK(SpdyClient(on.node, url, {"v4.channel.k8s.io"}, "DELETE").status() == 405);
  CHECK(SpdyClient(on.node, url, {"v4.channel.k8s.io"}, "GET").status() == 101);
  CHECK(SpdyClient(on.node, url, {"v4.channel.k8s.io"}).status() == 404);
  CHECK(SpdyClient(on.node, url.substr(0, url.rfind('/')) + "/0123", {}).status() == 404);

  auto code = [&](const cri::ExecRequest& request) {
    return on.cri.Call(&Runtime::Exec, request).code();
  };
  using grpc::StatusCode;
  CHECK(code({}) == StatusCode::INVALID_ARGUMENT);
  CHECK(code(ExecOf(id, {}, {})) == StatusCode::INVALID_ARGUMENT);
  CHECK(code(ExecOf(id, {"x"}, {.in = false, .out = false, .err = false})) ==
        StatusCode::INVALID_ARGUMENT);
  auto both = ExecOf(id, {"x"}, {.tty = true});
  both.set_stderr(true);
  CHECK(code(both) == StatusCode::INVALID_ARGUMENT);
  CHECK(code(ExecOf(std::string(64, 'a'), {"x"}, {})) == StatusCode::NOT_FOUND);
  CHECK(on.cri.Call(&Runtime::Exec, ExecOf(id.substr(0, 12), {"x"}, {})).ok());
  REQUIRE_OK(on.cri.Stop(id, 0));
  CHECK(code(ExecOf(id, {"x"}, {})) == StatusCode::FAILED_PRECONDITION);
}

namespace {

/// What rund holds: descriptors, threads, children.
struct Held {
  std::size_t fds = 0;
  std::size_t threads = 0;
  std::size_t children = 0;
};

std::size_t Lines(const std::string& text) {
  return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
}

Held HeldBy(const Node& node, const std::string& service) {
  const std::string proc = "/proc/" + node.DaemonPid(service);
  return {Lines(node.Inside({"ls", proc + "/fd"}).out),
          Lines(node.Inside({"ls", proc + "/task"}).out),
          Lines(node.Inside({"sh", "-c", "ps -o pid= --ppid " + node.DaemonPid(service)}).out)};
}

}  // namespace

TEST_CASE("Sessions leave nothing behind, however they end") {
  OnNode on;
  const std::string id = on.Sleeper("leaks");
  const auto one = [&](int i) {
    switch (i % 4) {
      case 0: CHECK(ExitCodeIn(StartExec(on, id, {"true"}).Finish()) == "0"); break;
      case 1: {  // gone in the middle of its output
        auto exec = StartExec(on, id, {"sh", "-c", "while :; do echo x; done"});
        exec.client.Read([&] { return exec.client.of(exec.out).size > 0; });
        break;
      }
      case 2: {  // gone before anything runs
        SpdyClient client(on.node, ExecUrl(on, id, {"cat"}, {.in = true}), {"v4.channel.k8s.io"});
        client.Open({{"streamtype", "error"}});
        break;
      }
      default: {  // gone with a terminal
        auto exec = StartExec(on, id, {"sh"}, {.in = true, .tty = true});
        exec.client.Read([&] { return exec.client.of(exec.out).size > 0; });
      }
    }
  };
  const std::size_t idle = HeldBy(on.node, "rund").children;
  for (int i = 0; i < 8; ++i) one(i);
  CHECK(Eventually([&] { return HeldBy(on.node, "rund").children <= idle; }));
  const Held before = HeldBy(on.node, "rund");
  for (int i = 0; i < 80; ++i) one(i);
  Held after;
  const bool settled = Eventually(
      [&] {
        after = HeldBy(on.node, "rund");
        return after.fds <= before.fds + 2 && after.threads <= before.threads + 4 &&
               after.children <= before.children;
      },
      30s);
  INFO("descriptors " << before.fds << " -> " << after.fds << ", threads " << before.threads
                      << " -> " << after.threads << ", children " << before.children << " -> "
                      << after.children);
  CHECK(settled);
  // What lost its streams has ended in the container too.
  const bool alone = Eventually([&] {
    const std::string ps = on.cri.ExecSync(id, {"ps"})->stdout();
    return ps.find("while :") == std::string::npos && ps.find("{sh}") == std::string::npos;
  });
  CHECK(alone);
}

TEST_CASE("Two hundred sessions at a time") {
  OnNode on;
  const std::string id = on.Sleeper("many");
  std::vector<std::unique_ptr<RemoteClient>> clients;
  for (int i = 0; i < 200; ++i) {
    clients.push_back(std::make_unique<RemoteClient>(
        on.node, ExecUrl(on, id, {"cat"}, {.in = true}), true, true, true, false));
  }
  for (std::size_t i = 0; i < clients.size(); ++i) {
    clients[i]->client.Send(clients[i]->in, "session " + std::to_string(i), true);
  }
  for (std::size_t i = 0; i < clients.size(); ++i) {
    CHECK(ExitCodeIn(clients[i]->Finish(120s)) == "0");
    CHECK(clients[i]->client.of(clients[i]->out).data == "session " + std::to_string(i));
  }
}

TEST_CASE("rund restarted: open sessions end, containers go on, new sessions work at once") {
  OnNode on;
  const std::string id = on.Sleeper("restart");
  auto killed = StartExec(on, id, {"cat"}, {.in = true});
  killed.client.Send(killed.in, "x");
  REQUIRE(killed.client.Read([&] { return killed.client.of(killed.out).size == 1; }));
  on.node.KillDaemon("rund");
  killed.Finish();
  CHECK(killed.client.ended());
  on.node.WaitReady();
  CHECK(ExitCodeIn(StartExec(on, id, {"true"}).Finish()) == "0");
  CHECK(on.StatusOf(id).state() == cri::CONTAINER_RUNNING);

  auto told = StartExec(on, id, {"cat"}, {.in = true});
  told.client.Send(told.in, "x");
  REQUIRE(told.client.Read([&] { return told.client.of(told.out).size == 1; }));
  on.node.Signal("rund", "TERM");
  const std::string status = told.Finish();
  CHECK(status.find("rund is stopping") != std::string::npos);
  // While the old one is going it says so; then the new one is there.
  CHECK(Eventually([&] { return on.cri.Call(&Runtime::Exec, ExecOf(id, {"true"})).ok(); }));
  CHECK(ExitCodeIn(StartExec(on, id, {"true"}).Finish()) == "0");
}

TEST_CASE("Exec and ExecSync work while the container is being stopped") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("stopping", true);
  const std::string pod = on.Pod(pod_config);
  const std::string id = on.Running(
      pod, pod_config,
      on.node.ContainerConfig(
          "c", {"sh", "-c", "trap 'touch /tmp/term' TERM; while :; do sleep 0.1; done"}));
  std::thread stop([&] { CHECK(on.node.NewClient()->Stop(id, 4).ok()); });
  CHECK(Eventually([&] { return on.cri.ExecSync(id, {"ls", "/tmp/term"})->exit_code() == 0; }));
  CHECK(on.cri.ExecSync(id, {"echo", "sync"})->stdout() == "sync\n");
  auto exec = StartExec(on, id, {"sh", "-c", "echo here; sleep 1000"});
  CHECK(exec.client.Read([&] { return exec.client.of(exec.out).data == "here\n"; }));
  stop.join();
  // The kill takes it along.
  CHECK(ExitCodeIn(exec.Finish()) == "137");
}

}  // namespace crisp::harness
