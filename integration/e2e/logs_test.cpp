#include <sys/stat.h>

#include <cstdio>
#include <thread>

#include "integration/e2e/shared_node.h"
#include "libs/os/files.h"

// The log of a container and its rotation, as the kubelet does it.
namespace crisp::harness {
namespace {

using namespace std::chrono_literals;
using Runtime = cri::RuntimeService::StubInterface;
using std::chrono::steady_clock;

grpc::Status Reopen(const Cri& cri, const std::string& id) {
  cri::ReopenContainerLogRequest request;
  request.set_container_id(id);
  return cri.Call(&Runtime::ReopenContainerLog, request).status;
}

/// What was written: a piece that is tagged P goes on in the next line.
std::string TextsOf(const std::string& log) {
  std::string texts;
  for (std::size_t at = 0; at < log.size();) {
    const std::size_t end = std::min(log.find('\n', at), log.size());
    const std::string line = log.substr(at, end - at);
    const std::size_t tag = line.find("stdout ") + 7;
    if (line.size() > tag + 1) {
      texts += line.substr(tag + 2);
      if (line[tag] == 'F') texts += "\n";
    }
    at = end + 1;
  }
  return texts;
}

}  // namespace

TEST_CASE("A log that is rotated again and again loses no line and repeats none") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("rotate", true);
  const auto config = on.node.ContainerConfig(
      "c", {"sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done"});
  const std::string id = on.Running(on.Pod(pod_config), pod_config, config);
  const std::string path = Node::LogPath(pod_config, config);
  std::vector<std::string> files;
  for (int i = 0; i < 200; ++i) {
    const std::string rotated = path + "." + std::to_string(i);
    REQUIRE(std::rename(path.c_str(), rotated.c_str()) == 0);
    files.push_back(rotated);
    const grpc::Status status = Reopen(on.cri, id);
    if (!status.ok()) {
      // It has ended, as the kubelet would see it: the file goes back.
      REQUIRE(std::rename(rotated.c_str(), path.c_str()) == 0);
      files.pop_back();
      break;
    }
    // There when the call returns.
    REQUIRE(os::Exists(path));
  }
  on.Exited(id);
  files.push_back(path);
  std::string all;
  for (const std::string& file : files) all += os::ReadFile(file, MiB(16)).value();
  std::string expected;
  for (int i = 0; i < 20000; ++i) expected += std::to_string(i) + "\n";
  CHECK(files.size() > 1);
  CHECK(TextsOf(all) == expected);
}

TEST_CASE(
    "A log is reopened in milliseconds, also before the start and while a stop is under way") {
  OnNode on;
  const auto pod_config = on.node.PodConfig("reopen", true);
  const auto config = on.node.ContainerConfig(
      "c", {"sh", "-c", "trap '' TERM; echo begin; while :; do sleep 0.1; echo tick; done"});
  const std::string id = on.Created(on.Pod(pod_config), pod_config, config);
  const std::string path = Node::LogPath(pod_config, config);
  const auto rotate = [&](const std::string& suffix) {
    REQUIRE(std::rename(path.c_str(), (path + suffix).c_str()) == 0);
    const auto start = steady_clock::now();
    const grpc::Status status = Reopen(on.cri, id);
    INFO(Describe(status));
    CHECK(status.ok());
    CHECK(steady_clock::now() - start < 500ms);
    struct stat file {};
    REQUIRE(stat(path.c_str(), &file) == 0);
    CHECK((file.st_mode & 0777) == 0640);
  };
  rotate(".created");
  REQUIRE_OK(on.cri.Start(id));
  CHECK(on.Log(pod_config, config, "begin").find("begin") != std::string::npos);
  std::thread stop([&] { CHECK(on.node.NewClient()->Stop(id, 3).ok()); });
  std::this_thread::sleep_for(500ms);
  rotate(".stopping");
  CHECK(on.Log(pod_config, config, "tick").find("tick") != std::string::npos);
  stop.join();
  CHECK_FALSE(Reopen(on.cri, id).ok());
}

}  // namespace crisp::harness
