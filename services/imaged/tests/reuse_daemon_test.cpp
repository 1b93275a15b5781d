// The program itself, confined as it runs on a node, pulls versions of an image in the form of
// zstd:chunked. Needs root.
#include <catch2/catch.hpp>
#include <chrono>
#include <csignal>
#include <future>
#include <random>
#include <thread>

#include "services/imaged/tests/chunked_blob.h"
#include "services/imaged/tests/daemon_node.h"

namespace crisp::imaged {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): what the tests are written in

constexpr unsigned kFiles = 16;

/// Of its files a fourth is its own, the others are those of all versions.
TestImage Version(unsigned version) {
  TarWriter tar;
  for (unsigned i = 0; i < kFiles; ++i)
    tar.File(std::to_string(i), NoiseOf(i < kFiles / 4 ? 100 * (version + 1) + i : i, 200'000));
  return ChunkedImage(tar.Done(), ChunkedWriter().Write(tar.Done()));
}

TEST_CASE("kill -9 while a layer is made of others' files leaves a sound store", "[trees]") {
  LyingRegistry registry(Version(0));
  DaemonNode node;
  REQUIRE(node.Pull(registry.Name()).status().message() == "");
  std::mt19937 random(21);
  std::uint64_t size = 0;
  std::uint64_t sent = 0;
  std::chrono::microseconds whole{0};  // what a pull takes
  for (unsigned round = 1; round < 12; ++round) {
    CAPTURE(round);
    const TestImage image = Version(round);
    registry.Also(image, fmt::format("r{}", round));
    const std::string name = registry.Name(fmt::format(":r{}", round));
    if (round == 1) {
      const auto start = std::chrono::steady_clock::now();
      REQUIRE(node.Pull(name).status().message() == "");
      whole = std::chrono::duration_cast<std::chrono::microseconds>(
          std::chrono::steady_clock::now() - start);
    } else {
      auto pull = std::async(std::launch::async, [&] { return node.Pull(name); });
      std::this_thread::sleep_for(whole * (random() % 100) / 100);
      node.Kill(SIGKILL);
      node.Start();
      static_cast<void>(pull.get().ok());  // it may have waited for the restart
      REQUIRE(node.Pull(name).status().message() == "");
    }
    CHECK(node.Check({"--quick"}).out.find("problem: ") == std::string::npos);
    CHECK(os::ListDir(node.StagingDir())->empty());
    size += image.blobs.at(image.layer_digests[0]).size();
    sent += registry.Answered(image.layer_digests[0]);
  }
  CHECK(sent < size);  // a third for each pull, of which all but one may come twice
  CHECK(node.Check({}).exit_code == 0);
}

}  // namespace
}  // namespace crisp::imaged
