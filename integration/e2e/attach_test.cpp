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

}  // namespace crisp::harness
