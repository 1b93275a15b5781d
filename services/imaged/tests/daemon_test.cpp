// The program itself, confined as it runs on a node: pulls from a registry that may lie, is killed
// at any moment, and its store is checked by crisp-store-check. Needs root.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <future>
#include <random>
#include <thread>

#include "libs/archive/tests/compress.h"
#include "libs/archive/tests/tar_writer.h"
#include "libs/digest/digest.h"
#include "libs/http/tests/raw_server.h"
#include "libs/json/json.h"
#include "libs/os/files.h"
#include "libs/process/command.h"
#include "services/imaged/tests/daemon_node.h"

namespace crisp::imaged {
namespace {

using namespace std::chrono_literals;
using archive::testing::GzipOf;
using archive::testing::TarWriter;
using http::testing::RawServer;
using nlohmann::json;

using Node = testing::DaemonNode;

CallContext Call() { return CallContext::Background(60s, "test"); }

/// Serves what it is given, by digest, and manifests by name.
class Registry {
 public:
  Registry() : server_([this](const std::string& head) { return Answer(head); }) {}

  std::string Add(std::string bytes) {
    std::string digest = digest::Sha256Digest(bytes).str();
    const std::lock_guard lock(mutex_);
    blobs_[digest] = std::move(bytes);
    return digest;
  }
  /// An image of layers (tars); its reference.
  std::string Image(const std::string& name, const std::vector<std::string>& tars) {
    json config = {{"os", "linux"}, {"architecture", "amd64"}, {"config", json::object()}};
    config["rootfs"] = {{"type", "layers"}, {"diff_ids", json::array()}};
    json manifest = {{"schemaVersion", 2},
                     {"mediaType", "application/vnd.oci.image.manifest.v1+json"},
                     {"layers", json::array()}};
    for (const std::string& tar : tars) {
      config["rootfs"]["diff_ids"].push_back(digest::Sha256Digest(tar).str());
      const std::string blob = GzipOf(tar);
      manifest["layers"].push_back({{"mediaType", "application/vnd.oci.image.layer.v1.tar+gzip"},
                                    {"digest", Add(blob)},
                                    {"size", blob.size()}});
    }
    const std::string text = config.dump();
    manifest["config"] = {{"mediaType", "application/vnd.oci.image.config.v1+json"},
                          {"digest", Add(text)},
                          {"size", text.size()}};
    const std::string body = manifest.dump();
    Add(body);
    const std::lock_guard lock(mutex_);
    manifests_[name] = body;
    return fmt::format("{}/{}:1", server_.HostPort(), name);
  }
  void SetManifest(const std::string& name, std::string body) {
    const std::lock_guard lock(mutex_);
    manifests_[name] = std::move(body);
  }
  std::string HostPort() const { return server_.HostPort(); }

 private:
  RawServer::Answer Answer(const std::string& head) {
    const std::string path = head.substr(4, head.find(' ', 4) - 4);
    const std::lock_guard lock(mutex_);
    if (path == "/v2/") return {RawServer::Ok("{}")};
    const std::string last = path.substr(path.rfind('/') + 1);
    if (const auto blob = blobs_.find(last); blob != blobs_.end())
      return {RawServer::Ok(blob->second)};
    for (const auto& [name, body] : manifests_)
      if (path == "/v2/" + name + "/manifests/1")
        return {
            RawServer::Ok(body, "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n")};
    return {"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"};
  }

  std::mutex mutex_;
  std::map<std::string, std::string> blobs_;
  std::map<std::string, std::string> manifests_;
  RawServer server_;
};

/// Random enough not to shrink.
std::string Noise(std::size_t size, unsigned seed) {
  std::mt19937_64 random(seed);
  std::string text;
  while (text.size() < size) {
    const std::uint64_t word = random();
    text.append(reinterpret_cast<const char*>(&word), sizeof word);
  }
  return text.substr(0, size);
}

std::string ManyFiles(unsigned seed) {
  TarWriter tar;
  for (int i = 0; i < 150; ++i)
    tar.File(fmt::format("d{}/f{}", i % 10, i), Noise(3000, seed * 1000 + unsigned(i)),
             {.mode = 0644, .uid = unsigned(i % 3) * 1000});
  return tar.Done();
}

TEST_CASE("The daemon has six capabilities, a filter and nothing to gain") {
  Registry registry;
  const Node node;
  REQUIRE(node.Pull(registry.Image("a", {ManyFiles(1)})).status().message() == "");
  const std::string status = node.ProcStatus();
  // CHOWN 0, DAC_OVERRIDE 1, FOWNER 3, FSETID 4, MKNOD 27, SETFCAP 31
  for (const char* line : {"CapPrm:\t000000008800001b", "CapEff:\t000000008800001b",
                           "CapBnd:\t000000008800001b", "CapInh:\t0000000000000000",
                           "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"}) {
    CAPTURE(line, status);
    CHECK(status.find(line) != std::string::npos);
  }
}

TEST_CASE("The daemon's memory is in no core dump, and nobody sees it who may not trace it") {
  const Node node;
  static_cast<void>(node.List());
  const std::string limits = *os::ReadFile(fmt::format("/proc/{}/limits", node.pid()));
  const std::size_t at = limits.find("Max core file size");
  REQUIRE(at != std::string::npos);
  CHECK(limits.substr(at, limits.find('\n', at) - at).find(" 0                    0 ") !=
        std::string::npos);
  const auto sees = [&node](const std::string& rights) {
    const auto output = process::Run(Call(), {.program = "/usr/bin/setpriv",
                                              .args = {"--bounding-set", rights, "/bin/cat",
                                                       fmt::format("/proc/{}/environ", node.pid())},
                                              .env = process::PlainEnvironment()});
    REQUIRE(output.ok());
    return output->exit_code == 0;
  };
  CHECK(sees("-sys_boot"));
  // Root without the rights to trace and to measure; it has all that the daemon has.
  CHECK_FALSE(sees("-sys_ptrace,-perfmon,-sys_admin"));
}

TEST_CASE("Whatever a layer tries, it is one error, nothing outside and nothing left") {
  Registry registry;
  const Node node("  max_layer_size: 2MiB\n  max_files: 1000\n  max_manifest_size: 64KiB\n");
  const auto fails = [&](const std::string& tar) {
    const auto pulled = node.Pull(registry.Image("evil", {tar}));
    CHECK_FALSE(pulled.ok());
    CHECK(os::ListDir(node.LayersDir())->empty());
    CHECK(os::ListDir(node.StagingDir())->empty());
    CHECK(node.List().empty());
    return pulled.status();
  };
  const std::string victim = node.root().Write("victim", "untouched");
  CHECK(fails(TarWriter().File("../../../../victim", "x").Done()).code() == Code::kInvalidArgument);
  CHECK(fails(TarWriter().HardLink("h", "../../../../victim").Done()).code() ==
        Code::kInvalidArgument);
  CHECK_FALSE(
      fails(TarWriter().Symlink("s", victim).HardLink("h", "s/x").Done()).message().empty());
  CHECK(fails(TarWriter().File("bomb", std::string(3U << 20U, '\0')).Done()).code() ==
        Code::kResourceExhausted);
  TarWriter many;
  for (int i = 0; i < 1001; ++i) many.File(fmt::format("{}", i), "");
  CHECK(fails(many.Done()).code() == Code::kResourceExhausted);
  CHECK(fails(std::string(100'000, 'x')).code() == Code::kDataLoss);
  CHECK(fails(TarWriter().File("f", std::string(1000, 'y')).Done().substr(0, 700)).code() ==
        Code::kDataLoss);
  registry.SetManifest("evil", std::string(1U << 20U, ' '));
  CHECK(node.Pull(registry.HostPort() + "/evil:1").code() == Code::kResourceExhausted);
  CHECK(node.root().Read("victim") == "untouched");
  // A sound image after all that.
  CHECK(node.Pull(registry.Image("good", {ManyFiles(2)})).ok());
}

TEST_CASE("The signature policy holds at the pull and again when a container is made") {
  Registry registry;
  const std::string image = registry.Image("a", {ManyFiles(3)});
  const Node node;
  node.Policy(R"({"type":"reject"})");
  const Status refused = node.Pull(image).status();
  CHECK(refused.code() == Code::kUnknown);
  CHECK(refused.message().starts_with("SignatureValidationFailed: " + image));
  CHECK(node.List().empty());
  node.Policy(R"({"type":"insecureAcceptAnything"})");
  const std::string id = *node.Pull(image);
  CHECK(node.Prepare("c1", id, image).ok());
  node.Policy(R"({"type":"reject"})");
  CHECK(node.Prepare("c1", id, image).ok());  // it is there already
  CHECK(
      node.Prepare("c2", id, image).status().message().starts_with("SignatureValidationFailed: "));
  CHECK(node.Prepare("c2", id, "").code() == Code::kUnknown);
  CHECK(node.Release("c1").ok());
}

TEST_CASE("The store's check finds what was lost or changed, and repairs that alone") {
  Registry registry;
  Node node;
  const std::string sound = registry.Image("sound", {ManyFiles(4)});
  const std::string hurt = registry.Image("hurt", {ManyFiles(5)});
  const std::string sound_id = *node.Pull(sound);
  const std::string hurt_id = *node.Pull(hurt);
  CHECK(node.Check({}).exit_code == 0);
  CHECK(node.Check({"--repair"}).exit_code == 2);  // imaged runs
  const std::string diff =
      node.LayersDir() + "/" + digest::Sha256Digest(ManyFiles(5)).str().substr(7) + "/diff";
  std::string text = *os::ReadFile(diff + "/d0/f0");
  const std::string before = text;
  text[7] = static_cast<char>(text[7] ^ 1);
  struct stat info {};
  REQUIRE(::stat((diff + "/d0/f0").c_str(), &info) == 0);
  REQUIRE(os::WriteFile(diff + "/d0/f0", text).ok());
  const std::array<timespec, 2> times = {info.st_mtim, info.st_mtim};
  REQUIRE(::utimensat(AT_FDCWD, (diff + "/d0/f0").c_str(), times.data(), 0) == 0);
  CHECK(node.Check({"--quick"}).exit_code == 0);
  const process::Output full = node.Check({});
  CHECK(full.exit_code == 1);
  CHECK(full.out.find("is not what it was") != std::string::npos);
  REQUIRE(os::RemoveFile(diff + "/d0/f10").ok());
  REQUIRE(os::MakeDirs(node.LayersDir() + "/" + std::string(64, 'f')).ok());
  const process::Output quick = node.Check({"--quick"});
  CHECK(quick.exit_code == 1);
  CHECK(quick.out.find("it had") != std::string::npos);
  CHECK(quick.out.find("belongs to nothing") != std::string::npos);
  node.Kill(SIGTERM);
  const process::Output repaired = node.Check({"--repair"});
  CHECK(repaired.exit_code == 0);
  CHECK(repaired.out.find(hurt_id) != std::string::npos);
  CHECK(node.Check({}).exit_code == 0);
  node.Start();
  CHECK(node.List() == std::vector<std::string>{sound_id});
  CHECK(*node.Pull(hurt) == hurt_id);
  CHECK(*os::ReadFile(diff + "/d0/f0") == before);
  // Wiping waits for the containers.
  CHECK(node.Prepare("c1", sound_id, "").ok());
  node.Kill(SIGTERM);
  CHECK(node.Check({"--wipe"}).exit_code == 2);
  node.Start();
  CHECK(node.Release("c1").ok());
  node.Kill(SIGTERM);
  CHECK(node.Check({"--wipe"}).exit_code == 0);
  CHECK(os::ListDir(node.LayersDir())->empty());
  node.Start();
  CHECK(node.List().empty());
}

TEST_CASE(
    "What the daemon says of the disk agrees with du, at once and after all that changes it") {
  Registry registry;
  Node node;
  const auto agrees = [&node] {
    const auto told = static_cast<double>(node.UsedBytes());
    const auto output =
        process::Run(Call(), {.program = "/usr/bin/du",
                              .args = {"-s", "--block-size=1", node.root() / "s/imaged"},
                              .env = process::PlainEnvironment()});
    REQUIRE(output.ok());
    const double wanted = std::stod(output->out);
    INFO("du says " << wanted << ", the daemon " << told);
    return std::abs(told - wanted) <= wanted / 100;
  };
  const std::string image =
      registry.Image("a", {TarWriter().File("big", Noise(60U << 20U, 7)).Done(), ManyFiles(7)});
  const auto pulled = node.Pull(image);
  REQUIRE(pulled.ok());
  CHECK(agrees());
  // An interrupted pull's remains count from the first question after a restart on.
  node.Kill(SIGKILL);
  const std::string stray = node.root() / "s/imaged/trash/stray";
  REQUIRE(os::MakeDirs(stray).ok());
  REQUIRE(os::WriteFile(stray + "/f", Noise(40U << 20U, 8)).ok());
  node.Start();
  CHECK(agrees());
  node.Remove(image);
  CHECK(node.List().empty());
}

TEST_CASE("kill -9 at any moment of a pull leaves a sound store, and the next pull goes on") {
  const char* more = std::getenv("CRISP_KILL_ROUNDS");
  const int rounds = more == nullptr ? 40 : std::atoi(more);
  Registry registry;
  const std::string shared = ManyFiles(6);
  Node node;
  std::mt19937 random(20);
  std::chrono::microseconds whole{0};  // what a pull takes
  for (int round = 0; round < rounds; ++round) {
    CAPTURE(round);
    const std::string image =
        registry.Image(fmt::format("i{}", round),
                       {shared, ManyFiles(unsigned(100 + round)),
                        TarWriter().File("big", Noise(1U << 20U, unsigned(round))).Done()});
    if (round % 10 == 0) {
      const auto start = std::chrono::steady_clock::now();
      REQUIRE(node.Pull(image).ok());
      whole = std::chrono::duration_cast<std::chrono::microseconds>(
          std::chrono::steady_clock::now() - start);
      continue;
    }
    auto pull = std::async(std::launch::async, [&] { return node.Pull(image); });
    std::this_thread::sleep_for(whole * (random() % 120) / 100);
    node.Kill(SIGKILL);
    // Before anything starts again, the catalogue promises nothing that is not there.
    const process::Output check = node.Check({"--quick"});
    for (std::size_t at = check.out.find("problem: "); at != std::string::npos;
         at = check.out.find("problem: ", at + 1))
      CHECK(check.out.substr(at, check.out.find('\n', at) - at).ends_with("belongs to nothing"));
    node.Start();
    static_cast<void>(pull.get().ok());  // it may have waited for the restart
    REQUIRE(node.Pull(image).status().message() == "");
    INFO(check.out);
    CHECK(node.Check({"--quick"}).out.find("problem: ") == std::string::npos);
    CHECK(os::ListDir(node.StagingDir())->empty());
    if (round % 3 == 0) node.Remove(image);
  }
  CHECK(node.Check({}).exit_code == 0);
}

}  // namespace
}  // namespace crisp::imaged
