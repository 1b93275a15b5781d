#include <algorithm>
#include <memory>

#include "integration/e2e/streaming.h"
#include "libs/os/files.h"

// attach: a running container's own streams.
namespace crisp::harness {
namespace {

using namespace std::chrono_literals;

struct Attached {
  cri::PodSandboxConfig pod;
  cri::ContainerConfig config;
  std::string id;
};

Attached Run(OnNode& on, const std::string& script,
             const std::function<void(cri::ContainerConfig&)>& change) {
  Attached made;
  made.pod = on.node.PodConfig("attach", true);
  made.config = on.node.ContainerConfig("c", {"sh", "-c", script});
  change(made.config);
  made.id = on.Running(on.Pod(made.pod), made.pod, made.config);
  return made;
}

/// How many descriptors the container's monitor has open.
int MonitorDescriptors(const OnNode& on, const std::string& id) {
  cri::ContainerStatusRequest request;
  request.set_container_id(id);
  request.set_verbose(true);
  const auto answer = on.cri.Call(&Runtime::ContainerStatus, request);
  REQUIRE_OK(answer);
  const auto info = json::Parse(answer->info().at("info"));
  const auto pid = json::GetInt(*info, "monitorPid");
  REQUIRE(pid.ok());
  const Ran ran = on.node.Inside({"ls", "/proc/" + std::to_string(*pid) + "/fd"});
  REQUIRE(ran.code == 0);
  return static_cast<int>(std::count(ran.out.begin(), ran.out.end(), '\n'));
}

RemoteClient AttachTo(const OnNode& on, const std::string& id, const Streams& streams) {
  return {on.node, AttachUrl(on, id, streams), streams.in, streams.out, streams.err, streams.tty};
}

}  // namespace

TEST_CASE("Attach: stdin of the first client, output to all, the end of the container for all") {
  OnNode on;
  const Attached made = Run(on, "cat; echo bye; echo oops >&2", [](cri::ContainerConfig& config) {
    config.set_stdin(true);
    config.set_stdin_once(true);
  });
  auto first = AttachTo(on, made.id, {.in = true});
  auto second = AttachTo(on, made.id, {.in = false});
  // Both are attached once the second one hears what the first one says.
  Eventually([&] {
    first.client.Send(first.in, "x\n");
    return second.client.Read([&] { return second.client.of(second.out).size > 0; }, 200ms);
  });
  first.client.Send(first.in, "last\n", true);
  CHECK(ExitCodeIn(first.Finish()) == "0");
  CHECK(ExitCodeIn(second.Finish()) == "0");
  for (auto* client : {&first, &second}) {
    const std::string out = client->client.of(client->out).data;
    CHECK(out.find("last\nbye\n") != std::string::npos);
    CHECK(client->client.of(client->err).data == "oops\n");
  }
  CHECK(on.Exited(made.id).exit_code() == 0);
}

TEST_CASE("Attach: without stdin_once the container's stdin outlives its clients") {
  OnNode on;
  const Attached made = Run(on, "while read x; do echo got $x; done",
                            [](cri::ContainerConfig& config) { config.set_stdin(true); });
  for (const std::string word : {"one", "two"}) {
    auto client = AttachTo(on, made.id, {.in = true});
    client.client.Send(client.in, word + "\n", true);
    // The end of its stdin is the end of this session, after the answer.
    CHECK(ExitCodeIn(client.Finish()) == "0");
    CHECK(client.client.of(client.out).data == "got " + word + "\n");
  }
  CHECK(on.StatusOf(made.id).state() == cri::CONTAINER_RUNNING);
}

TEST_CASE("Attach: one that only listens comes and goes, and the container's stdin stays open") {
  OnNode on;
  const Attached made = Run(on, "cat", [](cri::ContainerConfig& config) {
    config.set_stdin(true);
    config.set_stdin_once(true);
  });
  auto typist = AttachTo(on, made.id, {.in = true});
  for (const std::string word : {"one\n", "two\n"}) {
    auto listener = AttachTo(on, made.id, {.in = false});
    typist.client.Send(typist.in, word);
    // It is attached, too, once it hears what is typed.
    CHECK(Eventually([&] {
      typist.client.Send(typist.in, word);
      return listener.client.Read([&] { return listener.client.of(listener.out).size > 0; }, 200ms);
    }));
  }
  typist.client.Send(typist.in, "last\n", true);
  CHECK(ExitCodeIn(typist.Finish()) == "0");
  CHECK(typist.client.of(typist.out).data.ends_with("two\nlast\n"));
  CHECK(on.Exited(made.id).exit_code() == 0);
}

TEST_CASE("Attach: those who come and go leave nothing open in the monitor of a quiet container") {
  OnNode on;
  const Attached made = Run(on, "sleep 1000", [](cri::ContainerConfig&) {});
  const int before = MonitorDescriptors(on, made.id);
  for (int i = 0; i < 30; ++i) AttachTo(on, made.id, {.in = false}).client.Close();
  CHECK(Eventually([&] { return MonitorDescriptors(on, made.id) <= before + 1; }));
  CHECK(on.StatusOf(made.id).state() == cri::CONTAINER_RUNNING);
}

TEST_CASE("Attach to a terminal: one stream, sizes, Ctrl-C") {
  OnNode on;
  const Attached made =
      Run(on, "trap 'exit 9' INT; echo ready; while :; do stty size; sleep 0.1; done",
          [](cri::ContainerConfig& config) {
            config.set_stdin(true);
            config.set_tty(true);
          });
  auto client = AttachTo(on, made.id, {.in = true, .tty = true});
  client.client.Send(client.resize, R"({"Width":77,"Height":22})");
  CHECK(client.client.Read(
      [&] { return client.client.of(client.out).data.find("22 77") != std::string::npos; }));
  client.client.Send(client.in, "\x03");
  CHECK(ExitCodeIn(client.Finish()) == "0");
  CHECK(on.Exited(made.id).exit_code() == 9);
}

TEST_CASE(
    "Attach: a client that reads nothing does not stop the container, its log or the others") {
  OnNode on;
  const Attached made = Run(on,
                            "sleep 1; i=0; while [ $i -lt 300 ]; do head -c 65536 /dev/zero | tr "
                            "'\\0' x; echo; i=$((i+1)); done; echo finished",
                            [](cri::ContainerConfig&) {});
  auto stuck = AttachTo(on, made.id, {.in = false});
  auto reader = AttachTo(on, made.id, {.in = false});
  reader.client.Take(reader.out, [](std::string_view) {});
  CHECK(ExitCodeIn(reader.Finish(60s)) == "0");
  CHECK(reader.client.of(reader.out).size > 300 * 65536);
  CHECK(on.Exited(made.id).exit_code() == 0);
  const auto log = os::ReadFile(Node::LogPath(made.pod, made.config), MiB(64)).value();
  CHECK(log.ends_with("stdout F finished\n"));
  // It learns that it has missed something.
  CHECK(ExitCodeIn(stuck.Finish()) == "0");
  CHECK(stuck.client.of(stuck.err).data.find("bytes left out here") != std::string::npos);
}

TEST_CASE("Attach: clients that read nothing do not keep a log from being reopened") {
  OnNode on;
  const Attached made =
      Run(on, "while :; do head -c 65536 /dev/zero | tr '\\0' x; echo; sleep 0.001; done",
          [](cri::ContainerConfig&) {});
  const std::string path = Node::LogPath(made.pod, made.config);
  std::vector<std::unique_ptr<RemoteClient>> stuck;
  for (int i = 0; i < 5; ++i) {
    stuck.push_back(std::make_unique<RemoteClient>(on.node, AttachUrl(on, made.id, {}), false, true,
                                                   true, false));
    RemoteClient& client = *stuck.back();
    // Some of it has come: it is attached.
    CHECK(client.client.Read([&] { return client.client.of(client.out).size > 0; }));
    for (int round = 0; round < 5; ++round) {
      REQUIRE(os::Rename(path, path + ".old").ok());
      cri::ReopenContainerLogRequest request;
      request.set_container_id(made.id);
      const auto begin = std::chrono::steady_clock::now();
      const auto answer = on.cri.Call(&Runtime::ReopenContainerLog, request);
      CHECK(std::chrono::steady_clock::now() - begin < 500ms);
      REQUIRE_OK(answer);
    }
  }
}

TEST_CASE("Attach: rund restarted ends the session, and attaching again works at once") {
  OnNode on;
  const Attached made = Run(on, "while read x; do echo got $x; done",
                            [](cri::ContainerConfig& config) { config.set_stdin(true); });
  const auto talk = [](RemoteClient& with) {
    with.client.Send(with.in, "x\n");
    CHECK(with.client.Read([&] { return with.client.of(with.out).data == "got x\n"; }));
  };
  auto killed = AttachTo(on, made.id, {.in = true});
  talk(killed);
  on.node.KillDaemon("rund");
  killed.Finish();
  CHECK(killed.client.ended());
  on.node.WaitReady();
  auto told = AttachTo(on, made.id, {.in = true});
  talk(told);
  on.node.Signal("rund", "TERM");
  CHECK(told.Finish().find("rund is stopping") != std::string::npos);
  // While the old one is going it says so; then the new one is there.
  CHECK(Eventually([&] { return on.cri.Call(&Runtime::Exec, ExecOf(made.id, {"true"})).ok(); }));
  auto last = AttachTo(on, made.id, {.in = true});
  talk(last);
  CHECK(on.StatusOf(made.id).state() == cri::CONTAINER_RUNNING);
}

}  // namespace crisp::harness
