// crisp-bench-streams: bytes through exec and port-forward, beside socat doing the same with nobody
// between; and many exec sessions, one after the other and at a time. See README.md beside this
// file.
#include <fmt/core.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "integration/bench/echo.h"
#include "integration/bench/processes.h"
#include "integration/bench/samples.h"
#include "integration/harness/cri.h"
#include "integration/harness/spdy_client.h"
#include "libs/digest/digest.h"

namespace crisp::bench {
namespace {

namespace cri = ::runtime::v1;
using harness::Cri;
using harness::RemoteClient;
using harness::SpdyClient;
using std::chrono::steady_clock;
using Runtime = cri::RuntimeService::StubInterface;

struct Settings {
  std::string socket;
  std::string image;
  std::string handler;
  std::vector<std::string> cases = {"bytes", "digest", "sequence", "at-once"};
  std::string socat_exec;   // IPv4:port of `socat TCP-LISTEN:...,fork EXEC:cat`
  std::string socat_relay;  // IPv4:port of `socat TCP-LISTEN:...,fork TCP:127.0.0.1:echo_port`
  std::vector<std::string> daemons = {"crisp-rund"};
  std::string json;
  std::string floor_json;
  int echo_port = 7007;
  int megabytes = 512;
  int rounds = 3;
  int pings = 500;
  int digest_megabytes = 1024;
  int execs = 1000;
  int at_once = 200;
};

constexpr std::size_t kBlock = std::size_t{64} << 10U;
constexpr std::chrono::minutes kPatience{5};
/// Pool and gRPC threads end after ten idle seconds; and every thirty seconds rund looks after its
/// containers, for which it has threads again. So the least of what is seen meanwhile counts.
constexpr int kSettleSeconds = 45;
/// Execs after which caches and arenas are as large as they get.
constexpr int kWarmUp = 100;

template <typename Answer>
void Need(const Answer& answer, const std::string& what) {
  if (!answer.ok()) throw std::runtime_error(what + ": " + harness::Describe(answer.status));
}

/// What the daemon holds.
struct Held {
  double descriptors = 0;
  double threads = 0;
  double resident_mb = 0;
};

Held HeldBy(const std::vector<std::string>& daemons) {
  const std::vector<std::string> processes = ProcessesOf(daemons);
  return {static_cast<double>(CountEntries(processes, "fd")),
          static_cast<double>(CountEntries(processes, "task")),
          SumMb(processes, "status", "VmRSS:")};
}

/// What it holds when nothing is asked of it.
Held HeldAtRest(const std::vector<std::string>& daemons) {
  Held least = HeldBy(daemons);
  for (int i = 0; i < kSettleSeconds; ++i) {
    std::this_thread::sleep_for(std::chrono::seconds(1));
    const Held now = HeldBy(daemons);
    least = {std::min(least.descriptors, now.descriptors), std::min(least.threads, now.threads),
             std::min(least.resident_mb, now.resident_mb)};
  }
  return least;
}

/// Runs a sender on a thread of its own while `receive` runs on this one. What either throws is
/// thrown, the receiver's first.
template <typename Sender, typename Receiver>
void Both(const Sender& send, const Receiver& receive) {
  std::exception_ptr failed;
  std::thread sender([&] {
    try {
      send();
    } catch (...) {
      failed = std::current_exception();
    }
  });
  try {
    receive();
  } catch (...) {
    sender.join();
    throw;
  }
  sender.join();
  if (failed) std::rethrow_exception(failed);
}

class Bench {
 public:
  explicit Bench(const Settings& settings) : settings_(settings), cri_(settings.socket) {}

  void Run() {
    StartPod();
    for (const std::string& one : settings_.cases) {
      if (one == "bytes") {
        for (int i = 0; i < settings_.rounds; ++i) Bytes();
      }
      if (one == "digest") Digests();
      if (one == "sequence") Sequence();
      if (one == "at-once") AtOnce();
    }
    Need(cri_.StopPod(pod_), "StopPodSandbox");
    Need(cri_.RemovePod(pod_), "RemovePodSandbox");
  }
  const Samples& samples() const { return samples_; }
  const Samples& floor() const { return floor_; }

 private:
  /// Host network, so that the port-forward and socat's relay have the same way to go.
  void StartPod() {
    cri::PodSandboxConfig config;
    config.mutable_metadata()->set_name("streams");
    config.mutable_metadata()->set_uid(std::to_string(::getpid()));
    config.mutable_metadata()->set_namespace_("bench");
    // Where the other cases have theirs: the benchmark takes it away, however it ends.
    config.mutable_linux()->set_cgroup_parent("/crisp-bench/streams");
    config.mutable_linux()->mutable_security_context()->mutable_namespace_options()->set_network(
        cri::NamespaceMode::NODE);
    cri::ContainerConfig container;
    container.mutable_metadata()->set_name("echo");
    container.mutable_image()->set_image(settings_.image);
    for (const std::string& word :
         {std::string("nc"), std::string("-ll"), std::string("-p"),
          std::to_string(settings_.echo_port), std::string("-e"), std::string("cat")}) {
      container.add_command(word);
    }
    Need(cri_.Pull(settings_.image), "PullImage");
    const auto pod = cri_.RunPod(config, settings_.handler);
    Need(pod, "RunPodSandbox");
    pod_ = pod->pod_sandbox_id();
    const auto created = cri_.Create(pod_, container, config);
    Need(created, "CreateContainer");
    container_ = created->container_id();
    Need(cri_.Start(container_), "StartContainer");
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
  }

  /// stdin and stdout, or stdout alone.
  std::unique_ptr<RemoteClient> Exec(const std::string& program, bool with_in) const {
    cri::ExecRequest request;
    request.set_container_id(container_);
    request.add_cmd(program);
    request.set_stdin(with_in);
    request.set_stdout(true);
    const auto url = cri_.Call(&Runtime::Exec, request);
    Need(url, "Exec");
    return std::make_unique<RemoteClient>(harness::ConnectTo(url->url()), url->url(), with_in, true,
                                          false, false);
  }

  SpdyClient Forward() const {
    cri::PortForwardRequest request;
    request.set_pod_sandbox_id(pod_);
    const auto url = cri_.Call(&Runtime::PortForward, request);
    Need(url, "PortForward");
    return {harness::ConnectTo(url->url()), url->url(), {"portforward.k8s.io"}};
  }
  /// A connection to the pod's echo: its data stream.
  std::uint32_t OpenForward(SpdyClient& client) const {
    const std::string port = std::to_string(settings_.echo_port);
    client.Open({{"streamtype", "error"}, {"port", port}, {"requestid", "1"}});
    return client.Open({{"streamtype", "data"}, {"port", port}, {"requestid", "1"}});
  }

  /// Until the end of a session whose command should succeed.
  static void NeedSuccess(RemoteClient& exec) {
    const std::string status = exec.Finish(kPatience);
    if (status.find(R"("Success")") == std::string::npos) {
      throw std::runtime_error("an exec ended with: " + status);
    }
  }

  /// One round: the floor, then the runtime.
  void Bytes() {
    if (!settings_.socat_exec.empty()) {
      PlainEcho echo(settings_.socat_exec);
      Throughput(echo, floor_, "exec, stdin to stdout");
    }
    {
      const auto exec = Exec("cat", true);
      StreamEcho echo(exec->client, exec->in, exec->out);
      Throughput(echo, samples_, "exec, stdin to stdout");
    }
    if (!settings_.socat_relay.empty()) {
      PlainEcho echo(settings_.socat_relay);
      Throughput(echo, floor_, "port-forward, there and back");
      RoundTrips(echo, floor_);
    }
    {
      SpdyClient client = Forward();
      const std::uint32_t data = OpenForward(client);
      StreamEcho echo(client, data, data);
      Throughput(echo, samples_, "port-forward, there and back");
      RoundTrips(echo, samples_);
    }
  }

  void Throughput(Echo& echo, Samples& into, const std::string& name) const {
    const std::uint64_t total = std::uint64_t(settings_.megabytes) << 20U;
    const std::string block(kBlock, 'x');
    const auto start = steady_clock::now();
    Both(
        [&] {
          for (std::uint64_t sent = 0; sent < total; sent += block.size()) echo.Send(block);
        },
        [&] { echo.AwaitTotal(total); });
    const std::chrono::duration<double> took = steady_clock::now() - start;
    into.Add(name, "MB/s", settings_.megabytes / took.count());
  }

  /// After Throughput() on the same connection.
  void RoundTrips(Echo& echo, Samples& into) const {
    std::uint64_t total = std::uint64_t(settings_.megabytes) << 20U;
    for (int i = 0; i < settings_.pings; ++i) {
      const auto start = steady_clock::now();
      echo.Send("x");
      echo.AwaitTotal(++total);
      into.AddTime("port-forward, round trip of a byte", steady_clock::now() - start);
    }
  }

  /// Random bytes through `cat`, by exec and by port-forward.
  void Digests() {
    {
      const auto exec = Exec("cat", true);
      Digest("exec", exec->client, exec->in, exec->out, [&] { NeedSuccess(*exec); });
    }
    SpdyClient client = Forward();
    const std::uint32_t data = OpenForward(client);
    Digest("port-forward", client, data, data, [&] {
      if (!client.Read([&] { return client.of(data).fin; }, kPatience)) {
        throw std::runtime_error("a port-forward does not end");
      }
    });
  }

  /// Whoever loses, repeats or changes one of the bytes has another digest.
  template <typename AwaitEnd>
  void Digest(const std::string& way, SpdyClient& client, std::uint32_t in, std::uint32_t out,
              const AwaitEnd& await_end) {
    const std::uint64_t total = std::uint64_t(settings_.digest_megabytes) << 20U;
    digest::Sha256 sent;
    digest::Sha256 received;
    client.Take(out, [&](std::string_view piece) { received.Update(piece); });
    const auto start = steady_clock::now();
    Both(
        [&] {
          std::mt19937_64 random(42);  // NOLINT(cert-msc51-cpp): the same bytes in each run
          std::vector<std::uint64_t> block(kBlock / sizeof(std::uint64_t));
          const std::string_view bytes(reinterpret_cast<const char*>(block.data()), kBlock);
          for (std::uint64_t at = 0; at < total; at += kBlock) {
            std::generate(block.begin(), block.end(), std::ref(random));
            sent.Update(bytes);
            client.Send(in, bytes);
          }
          client.Send(in, "", /*fin=*/true);
        },
        await_end);
    const std::chrono::duration<double> took = steady_clock::now() - start;
    const std::string name = fmt::format("{}, {} MB", way, settings_.digest_megabytes);
    samples_.Add(name + " with SHA-256 at both ends", "MB/s",
                 settings_.digest_megabytes / took.count());
    samples_.Add(name + ": wrong digests", "", sent.Hex() == received.Hex() ? 0 : 1);
  }

  /// What is left of sessions that have ended.
  void Sequence() {
    const auto one = [this] { NeedSuccess(*Exec("true", false)); };
    for (int i = 0; i < kWarmUp; ++i) one();
    const Held before = HeldAtRest(settings_.daemons);
    for (int i = 0; i < settings_.execs; ++i) {
      const auto start = steady_clock::now();
      one();
      samples_.AddTime("exec session, true", steady_clock::now() - start);
    }
    const Held after = HeldAtRest(settings_.daemons);
    const std::string with = fmt::format(" left by {} execs in sequence", settings_.execs);
    samples_.Add("descriptors" + with, "", after.descriptors - before.descriptors);
    samples_.Add("threads" + with, "", after.threads - before.threads);
    samples_.Add("memory" + with, "MB", after.resident_mb - before.resident_mb);
  }

  void AtOnce() {
    const int count = settings_.at_once;
    const Held before = HeldBy(settings_.daemons);
    std::vector<std::unique_ptr<RemoteClient>> clients(static_cast<std::size_t>(count));
    const auto up = InParallel(count, 4, [&](int number) {
      auto exec = Exec("cat", true);
      exec->client.Send(exec->in, std::to_string(number));
      if (!exec->client.Read([&] { return exec->client.of(exec->out).size > 0; }, kPatience)) {
        throw std::runtime_error("an exec does not answer");
      }
      clients[static_cast<std::size_t>(number)] = std::move(exec);
    });
    const std::string name = fmt::format("{} exec sessions at a time", count);
    samples_.Add(name + ": started", "a second", count / std::chrono::duration<double>(up).count());
    samples_.Add(name + ": memory of each", "MB",
                 (HeldBy(settings_.daemons).resident_mb - before.resident_mb) / count);
    int right = 0;
    for (const auto& exec : clients) exec->client.Send(exec->in, " and more", /*fin=*/true);
    for (std::size_t i = 0; i < clients.size(); ++i) {
      NeedSuccess(*clients[i]);
      right += clients[i]->client.of(clients[i]->out).data == std::to_string(i) + " and more";
    }
    samples_.Add(name + ": with the right answer", "", right);
  }

  const Settings& settings_;
  Cri cri_;
  std::string pod_, container_;
  Samples samples_, floor_;
};

}  // namespace
}  // namespace crisp::bench

int main(int argc, char** argv) {
  using namespace crisp::bench;
  Settings settings;
  CLI::App app("Bytes through exec and port-forward, beside socat; many exec sessions");
  app.add_option("--socket", settings.socket, "CRI socket")->required();
  app.add_option("--image", settings.image, "must have cat, true and busybox's nc")->required();
  app.add_option("--handler", settings.handler, "runtime handler; empty = the default");
  app.add_option("--case", settings.cases, "bytes digest sequence at-once")->delimiter(',');
  app.add_option("--socat-exec", settings.socat_exec,
                 "IPv4:port of a socat that runs cat; empty = no floor for exec");
  app.add_option("--socat-relay", settings.socat_relay,
                 "IPv4:port of a socat in front of the echo; empty = no floor for port-forward");
  app.add_option("--daemon", settings.daemons, "process names of what serves the streams")
      ->delimiter(',');
  app.add_option("--echo-port", settings.echo_port, "where the pod's echo listens");
  app.add_option("--megabytes", settings.megabytes, "of each transfer");
  app.add_option("--rounds", settings.rounds, "of each transfer");
  app.add_option("--pings", settings.pings, "single bytes in a round");
  app.add_option("--digest-megabytes", settings.digest_megabytes, "whose digest is compared");
  app.add_option("--execs", settings.execs, "in sequence");
  app.add_option("--at-once", settings.at_once, "sessions at a time");
  app.add_option("--json", settings.json, "file for the figures");
  app.add_option("--floor-json", settings.floor_json, "file for socat's, by the same names");
  CLI11_PARSE(app, argc, argv);
  Bench bench(settings);
  int code = 0;
  try {
    bench.Run();
  } catch (const std::exception& error) {
    fmt::print(stderr, "crisp-bench-streams: {}\n", error.what());
    code = 1;
  }
  fmt::print("socat\n");
  bench.floor().Print();
  fmt::print("\nthe runtime\n");
  bench.samples().Print();
  if (!settings.json.empty() && !bench.samples().WriteJson(settings.json)) code = 1;
  if (!settings.floor_json.empty() && !bench.floor().WriteJson(settings.floor_json)) code = 1;
  return code;
}
