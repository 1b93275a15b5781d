// crisp-bench-streams: how fast bytes go through exec and port-forward, beside socat doing the same
// with nobody between. Run it in the network namespace of the runtime (`run` does); the streams are
// SPDY, as the kubelet speaks it.
#include <fmt/core.h>
#include <sys/socket.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>

#include "integration/bench/samples.h"
#include "integration/harness/cri.h"
#include "integration/harness/spdy_client.h"

namespace crisp::bench {
namespace {

namespace cri = ::runtime::v1;
using harness::Cri;
using harness::SpdyClient;
using std::chrono::steady_clock;
using Runtime = cri::RuntimeService::StubInterface;

struct Settings {
  std::string socket;
  std::string image;
  std::string socat_exec;   // host:port of `socat TCP-LISTEN:...,fork EXEC:cat`
  std::string socat_relay;  // host:port of `socat TCP-LISTEN:...,fork TCP:127.0.0.1:echo_port`
  int echo_port = 7007;
  int megabytes = 512;
  int rounds = 3;
  int pings = 500;
};

constexpr std::size_t kBlock = std::size_t{64} << 10U;

template <typename Answer>
void Need(const Answer& answer, const std::string& what) {
  if (!answer.ok()) throw std::runtime_error(what + ": " + harness::Describe(answer.status));
}

/// Sends so many bytes and takes as many back.
class Echo {
 public:
  virtual ~Echo() = default;
  virtual void Send(std::string_view bytes) = 0;
  virtual void AwaitTotal(std::uint64_t total) = 0;
};

class PlainEcho final : public Echo {
 public:
  explicit PlainEcho(const std::string& address)
      : fd_(harness::ConnectTo("tcp://" + address + "/")) {}
  void Send(std::string_view bytes) override {
    while (!bytes.empty()) {
      const ssize_t n = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) throw std::runtime_error("the connection broke");
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
  }
  void AwaitTotal(std::uint64_t total) override {
    static thread_local std::string buffer(2 * kBlock, '\0');
    while (got_ < total) {
      const ssize_t n = ::read(fd_.get(), buffer.data(), buffer.size());
      if (n <= 0) throw std::runtime_error("the connection ended");
      got_ += static_cast<std::uint64_t>(n);
    }
  }

 private:
  os::UniqueFd fd_;
  std::uint64_t got_ = 0;
};

class StreamEcho final : public Echo {
 public:
  StreamEcho(SpdyClient& client, std::uint32_t in, std::uint32_t out)
      : client_(client), in_(in), out_(out) {
    client_.Take(out_, [](std::string_view) {});
  }
  void Send(std::string_view bytes) override { client_.Send(in_, bytes); }
  void AwaitTotal(std::uint64_t total) override {
    if (!client_.Read([&] { return client_.of(out_).size >= total; }, std::chrono::minutes(5))) {
      throw std::runtime_error("the stream ended");
    }
  }

 private:
  SpdyClient& client_;
  std::uint32_t in_, out_;
};

class Bench {
 public:
  explicit Bench(const Settings& settings) : settings_(settings), cri_(settings.socket) {}

  void Run() {
    StartPod();
    for (int i = 0; i < settings_.rounds; ++i) {
      {
        PlainEcho echo(settings_.socat_exec);
        Throughput(echo, "cat, socat");
      }
      {
        cri::ExecRequest request;
        request.set_container_id(container_);
        request.add_cmd("cat");
        request.set_stdin(true);
        request.set_stdout(true);
        const auto url = cri_.Call(&Runtime::Exec, request);
        Need(url, "Exec");
        harness::RemoteClient client(harness::ConnectTo(url->url()), url->url(), true, true, false,
                                     false);
        StreamEcho echo(client.client, client.in, client.out);
        Throughput(echo, "cat, exec");
      }
      {
        PlainEcho echo(settings_.socat_relay);
        Throughput(echo, "TCP, socat");
        Pings(echo, "TCP, socat");
      }
      {
        cri::PortForwardRequest request;
        request.set_pod_sandbox_id(pod_);
        const auto url = cri_.Call(&Runtime::PortForward, request);
        Need(url, "PortForward");
        SpdyClient client(harness::ConnectTo(url->url()), url->url(), {"portforward.k8s.io"});
        const std::string port = std::to_string(settings_.echo_port);
        client.Open({{"streamtype", "error"}, {"port", port}, {"requestid", "1"}});
        const auto data = client.Open({{"streamtype", "data"}, {"port", port}, {"requestid", "1"}});
        StreamEcho echo(client, data, data);
        Throughput(echo, "TCP, port-forward");
        Pings(echo, "TCP, port-forward");
      }
    }
    Need(cri_.StopPod(pod_), "StopPodSandbox");
    Need(cri_.RemovePod(pod_), "RemovePodSandbox");
  }
  const Samples& samples() const { return samples_; }

 private:
  void StartPod() {
    cri::PodSandboxConfig config;
    config.mutable_metadata()->set_name("streams");
    config.mutable_metadata()->set_uid(std::to_string(::getpid()));
    config.mutable_metadata()->set_namespace_("bench");
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
    const auto pod = cri_.RunPod(config);
    Need(pod, "RunPodSandbox");
    pod_ = pod->pod_sandbox_id();
    const auto created = cri_.Create(pod_, container, config);
    Need(created, "CreateContainer");
    container_ = created->container_id();
    Need(cri_.Start(container_), "StartContainer");
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
  }

  void Throughput(Echo& echo, const std::string& name) {
    const std::uint64_t total = std::uint64_t(settings_.megabytes) << 20U;
    const std::string block(kBlock, 'x');
    const auto start = steady_clock::now();
    std::thread sender([&] {
      for (std::uint64_t sent = 0; sent < total; sent += block.size()) echo.Send(block);
    });
    echo.AwaitTotal(total);
    const std::chrono::duration<double> took = steady_clock::now() - start;
    sender.join();
    samples_.Add("there and back, " + name, "MB/s", settings_.megabytes / took.count());
    base_ = total;
  }

  void Pings(Echo& echo, const std::string& name) {
    for (int i = 0; i < settings_.pings; ++i) {
      const auto start = steady_clock::now();
      echo.Send("x");
      echo.AwaitTotal(++base_);
      samples_.AddTime("one byte, " + name, steady_clock::now() - start);
    }
  }

  const Settings& settings_;
  Cri cri_;
  std::string pod_, container_;
  std::uint64_t base_ = 0;  // echoed before
  Samples samples_;
};

}  // namespace
}  // namespace crisp::bench

int main(int argc, char** argv) {
  using namespace crisp::bench;
  Settings settings;
  CLI::App app("Bytes through exec and port-forward, beside socat");
  app.add_option("--socket", settings.socket, "CRI socket")->required();
  app.add_option("--image", settings.image, "must have cat and busybox's nc")->required();
  app.add_option("--socat-exec", settings.socat_exec, "host:port of a socat that runs cat")
      ->required();
  app.add_option("--socat-relay", settings.socat_relay, "host:port of a socat in front of the echo")
      ->required();
  app.add_option("--echo-port", settings.echo_port, "where the pod's echo listens");
  app.add_option("--megabytes", settings.megabytes, "of each transfer");
  app.add_option("--rounds", settings.rounds, "of each measurement");
  app.add_option("--pings", settings.pings, "single bytes");
  CLI11_PARSE(app, argc, argv);
  Bench bench(settings);
  int code = 0;
  try {
    bench.Run();
  } catch (const std::exception& error) {
    fmt::print(stderr, "crisp-bench-streams: {}\n", error.what());
    code = 1;
  }
  bench.samples().Print();
  return code;
}
