#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cstdio>
#include <regex>
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

/// Each line is as the format wants it.
bool HasWholeLines(const std::string& log) {
  static const std::regex kLines(
      R"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}[+-]\d\d:\d\d (stdout|stderr) [FP] [^\n]*\n)");
  for (std::size_t at = 0; at < log.size();) {
    const std::size_t end = std::min(log.find('\n', at), log.size() - 1);
    const std::string line = log.substr(at, end + 1 - at);
    if (!std::regex_match(line, kLines)) {
      UNSCOPED_INFO(line);
      return false;
    }
    at = end + 1;
  }
  return true;
}

void Limit(cri::PodSandboxConfig& pod, const std::string& limit) {
  if (!limit.empty()) (*pod.mutable_annotations())["crisp.logs/rate"] = limit;
}

/// Takes the lines that stand for gaps out; how many lines and how many of those there were.
struct Gaps {
  int count = 0;
  int lines = 0;
};
Gaps TakeGaps(std::string& texts) {
  static const std::regex kGap(R"(\[crisp: (\d+) lines \(\d+ bytes\) left out: [^\n]*\]\n)");
  Gaps gaps;
  for (auto at = std::sregex_iterator(texts.begin(), texts.end(), kGap);
       at != std::sregex_iterator(); ++at) {
    ++gaps.count;
    gaps.lines += std::stoi((*at)[1]);
  }
  texts = std::regex_replace(texts, kGap, "");
  return gaps;
}

std::string Numbers(int count) {
  std::string lines;
  for (int i = 0; i < count; ++i) lines += std::to_string(i) + "\n";
  return lines;
}

/// A journal that only takes what it gets, where the node's containers look for one.
class FakeJournal {
 public:
  explicit FakeJournal(const Node& node)
      : node_(node), fd_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    const std::string path = node.dir() + "/journal";
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    REQUIRE(::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    Do("mkdir -p /run/systemd && mount -t tmpfs tmpfs /run/systemd && mkdir /run/systemd/journal "
       "&& "
       "touch /run/systemd/journal/socket && mount --bind " +
       path + " /run/systemd/journal/socket");
  }
  FakeJournal(const FakeJournal&) = delete;
  FakeJournal& operator=(const FakeJournal&) = delete;
  ~FakeJournal() { Do("umount /run/systemd/journal/socket && umount /run/systemd"); }

  /// The next entry: FIELD=value lines. Empty when none comes.
  std::string Entry() const {
    pollfd ready{.fd = fd_.get(), .events = POLLIN, .revents = 0};
    if (::poll(&ready, 1, 10'000) <= 0) return "";
    std::string entry(64 << 10, '\0');
    const ssize_t size = ::recv(fd_.get(), entry.data(), entry.size(), 0);
    entry.resize(static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
    return entry;
  }

 private:
  void Do(const std::string& script) const {
    const Ran ran = node_.Inside({"sh", "-c", script});
    INFO(ran.err);
    CHECK(ran.code == 0);
  }

  const Node& node_;
  os::UniqueFd fd_;
};

/// A file system of 4 MiB in the node's namespaces, with room for two files and a directory.
class SmallDisk {
 public:
  SmallDisk(const Node& node, std::string path) : node_(node), path_(std::move(path)) {
    Do({"mkdir", "-p", path_});
    Do({"mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=4", "tmpfs", path_});
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  ~SmallDisk() {
    CHECK(Eventually([this] { return node_.Inside({"umount", path_}).code == 0; }));
  }

  void Fill() const { node_.Inside({"dd", "if=/dev/zero", "of=" + path_ + "/filler", "bs=4k"}); }
  void Empty() const { Do({"rm", path_ + "/filler"}); }
  void Move(const std::string& from, const std::string& to) const { Do({"mv", from, to}); }
  std::string Read(const std::string& file) const { return node_.Inside({"cat", file}).out; }

 private:
  void Do(const std::vector<std::string>& argv) const {
    const Ran ran = node_.Inside(argv);
    INFO(argv.front() << ": " << ran.err);
    CHECK(ran.code == 0);
  }

  const Node& node_;
  std::string path_;
};

}  // namespace

TEST_CASE("A log that is rotated again and again loses no line and repeats none") {
  OnNode on;
  auto pod_config = on.node.PodConfig("rotate", true);
  // Within the limit; and often held up by it.
  const std::string limit = GENERATE("", "1GiB", "300KiB,burst=16KiB,block");
  INFO("limit: " << limit);
  Limit(pod_config, limit);
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
  CHECK(files.size() > 1);
  CHECK(TextsOf(all) == Numbers(20000));
}

TEST_CASE(
    "A log is reopened in milliseconds, also before the start and while a stop is under way") {
  OnNode on;
  auto pod_config = on.node.PodConfig("reopen", true);
  Limit(pod_config, GENERATE("", "1MiB"));
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

TEST_CASE("What a container logs over its limit is left out, counted, and holds nobody up") {
  OnNode on;
  auto pod_config = on.node.PodConfig("limited", true);
  Limit(pod_config, "64KiB,burst=32KiB");
  const std::string pod = on.Pod(pod_config);
  auto config = on.node.ContainerConfig(
      "c", {"sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done; exit 7"});
  const std::string id = on.Running(pod, pod_config, config);
  CHECK(on.Exited(id).exit_code() == 7);
  // All of it is there when the end is told.
  std::string texts = TextsOf(os::ReadFile(Node::LogPath(pod_config, config), MiB(16)).value());
  const Gaps gaps = TakeGaps(texts);
  CHECK(gaps.count > 0);
  // A line may be cut at either end of a gap.
  const auto present = std::count(texts.begin(), texts.end(), '\n');
  CHECK(std::abs(gaps.lines + present - 20000) <= 2 * gaps.count);
  CHECK(texts.starts_with(Numbers(100)));
}

TEST_CASE("A container whose log holds it up loses no line, and ends when it is told to") {
  OnNode on;
  auto pod_config = on.node.PodConfig("held", true);
  Limit(pod_config, "512KiB,burst=16KiB,block");
  const std::string pod = on.Pod(pod_config);
  const auto config = on.node.ContainerConfig(
      "c", {"sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done; exit 7"});
  const std::string id = on.Running(pod, pod_config, config);
  CHECK(on.Exited(id).exit_code() == 7);
  const std::string log = os::ReadFile(Node::LogPath(pod_config, config), MiB(16)).value();
  CHECK(TextsOf(log) == Numbers(20000));

  (*pod_config.mutable_annotations())["crisp.logs/rate"] = "1KiB,burst=16KiB,block";
  pod_config.mutable_metadata()->set_attempt(1);
  const std::string slow_pod = on.Pod(pod_config);
  auto slow_config = on.node.ContainerConfig("slow", {"sh", "-c", "while :; do echo yes; done"});
  const std::string slow = on.Running(slow_pod, pod_config, slow_config);
  on.Log(pod_config, slow_config, "yes");
  // What waits in pipes by now would take minutes.
  REQUIRE_OK(on.cri.Stop(slow, 0));
  CHECK(on.StatusOf(slow).exit_code() == 137);
}

TEST_CASE("A log goes on while rund is away, and is reopened by the next one") {
  OnNode on;
  auto pod_config = on.node.PodConfig("away", true);
  Limit(pod_config, GENERATE("", "1MiB,block"));
  const auto config = on.node.ContainerConfig(
      "c", {"sh", "-c", "i=0; while [ $i -lt 300 ]; do echo $i; i=$((i+1)); sleep 0.01; done"});
  const std::string id = on.Running(on.Pod(pod_config), pod_config, config);
  const std::string path = Node::LogPath(pod_config, config);
  on.Log(pod_config, config, " F 3\n");
  {
    const auto away = on.node.Away("rund");
    const std::string before = os::ReadFile(path).value();
    CHECK(Eventually([&] { return os::ReadFile(path).value() != before; }));
  }
  on.node.WaitReady();
  REQUIRE(std::rename(path.c_str(), (path + ".1").c_str()) == 0);
  const grpc::Status status = Reopen(on.cri, id);
  INFO(Describe(status));
  REQUIRE(status.ok());
  CHECK(os::Exists(path));
  on.Exited(id);
  CHECK(TextsOf(os::ReadFile(path + ".1").value() + os::ReadFile(path).value()) == Numbers(300));
}

TEST_CASE("A limit that cannot be read fails the create by its annotation") {
  OnNode on;
  auto pod_config = on.node.PodConfig("wrong", true);
  const std::string limit = GENERATE("fast", "0", "1KiB,slow", "64KiB,burst=1", "-5", "");
  (*pod_config.mutable_annotations())["crisp.logs/rate"] = limit;
  const std::string pod = on.Pod(pod_config);
  const auto answer = on.cri.Create(pod, on.node.ContainerConfig("c", {"true"}), pod_config);
  INFO(limit << ": " << answer.message());
  CHECK(answer.code() == grpc::StatusCode::INVALID_ARGUMENT);
  CHECK(answer.message().find("crisp.logs/rate") != std::string::npos);
}

TEST_CASE("A full disk neither holds a container up nor ends it, and the log goes on afterwards") {
  OnNode on;
  auto pod_config = on.node.PodConfig("full", true);
  const std::string limit = GENERATE("", "1GiB", "1GiB,block");
  INFO("limit: " << limit);
  Limit(pod_config, limit);
  const SmallDisk disk(on.node, pod_config.log_directory());
  const std::string pod = on.Pod(pod_config);
  const auto config = on.node.ContainerConfig(
      "c", {"sh", "-c",
            "await() { while [ ! -e $1 ]; do sleep 0.05; done; }; echo before; await /full; "
            "i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done; touch /written; "
            "await /go; echo after; exit 7"});
  const std::string id = on.Running(pod, pod_config, config);
  const std::string path = Node::LogPath(pod_config, config);
  const auto in_container = [&](const std::vector<std::string>& argv) {
    const auto ran = on.cri.ExecSync(id, argv);
    REQUIRE_OK(ran);
    return ran->exit_code() == 0;
  };
  CHECK(Eventually([&] { return disk.Read(path).find("before") != std::string::npos; }));
  disk.Fill();
  CHECK(in_container({"touch", "/full"}));
  CHECK(Eventually([&] { return in_container({"test", "-e", "/written"}); }, 60s));
  // No file can be made there either: it is not rotated, and the container does not notice.
  disk.Move(path, path + ".1");
  CHECK_FALSE(Reopen(on.cri, id).ok());
  CHECK(on.node.Inside({"test", "-e", path}).code == 1);
  disk.Move(path + ".1", path);
  CHECK(on.StatusOf(id).state() == cri::ContainerState::CONTAINER_RUNNING);
  // There is room again.
  disk.Empty();
  disk.Move(path, path + ".1");
  const grpc::Status reopened = Reopen(on.cri, id);
  INFO(Describe(reopened));
  CHECK(reopened.ok());
  CHECK(in_container({"touch", "/go"}));
  CHECK(on.Exited(id).exit_code() == 7);
  const std::string log = disk.Read(path + ".1") + disk.Read(path);
  CHECK(TextsOf(log).starts_with("before\n"));
  CHECK(TextsOf(log).ends_with("after\n"));
  CHECK(std::count(log.begin(), log.end(), '\n') < 20000);
  // conmon by itself says nothing, and may leave half a line.
  if (!limit.empty()) CHECK(HasWholeLines(log));
  CHECK((log.find("lost: No space left on device]\n") != std::string::npos) == !limit.empty());
  REQUIRE_OK(on.cri.RemovePod(pod));
}

TEST_CASE("Lines go to the journal as well where the settings say so, with the container's names") {
  Node node({.yaml = "", .without_unified = false, .start = false});
  const std::string drop_in = node.dir() + "/crisp.yaml.d/journal.yaml";
  REQUIRE(os::WriteFile(drop_in, "rund:\n  log_journald: true\n").ok());
  const FakeJournal journal(node);
  node.StartDaemons();
  const Cri& cri = node.cri();
  const auto pod_config = node.PodConfig("journal", true);
  const auto pod = cri.RunPod(pod_config);
  REQUIRE_OK(pod);
  const auto config =
      node.ContainerConfig("c", {"sh", "-c", "echo to both; echo wrong >&2; exit 0"});
  const auto created = cri.Create(pod->pod_sandbox_id(), config, pod_config);
  REQUIRE_OK(created);
  REQUIRE_OK(cri.Start(created->container_id()));
  const std::string id = "CONTAINER_ID_FULL=" + created->container_id() + "\n";
  const auto& metadata = pod_config.metadata();
  const std::string name =
      "CONTAINER_NAME=k8s_c_" + metadata.name() + "_tests_" + metadata.uid() + "_0\n";
  for (const char* fields : {"to both\n", "wrong\n"}) {
    const std::string entry = journal.Entry();
    INFO(entry);
    CHECK(entry.find(fields) != std::string::npos);
    CHECK(entry.find(id) != std::string::npos);
    CHECK(entry.find(name) != std::string::npos);
  }
  const std::string path = Node::LogPath(pod_config, config);
  CHECK(Eventually(
      [&] { return os::ReadFile(path).value_or("").find(" F wrong\n") != std::string::npos; }));
  REQUIRE_OK(cri.RemovePod(pod->pod_sandbox_id()));
}

}  // namespace crisp::harness
