#include <fcntl.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "libs/base/cleanup.h"
#include "services/imaged/tests/fake_registry.h"
#include "services/imaged/tests/node.h"

namespace crisp::imaged {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): what the tests are written in

constexpr std::size_t kLarge = 3 * kPartSize + 12'345;

/// One layer of four parts, the last a short one.
TestImage OneLargeLayer() {
  return TestImage::Make({{TarWriter().File("noise", Noise(kLarge)).Done(), Pack::kPlain}});
}

bool HasNoise(Node& node, const std::string& image) {
  const auto chains = node.catalogue->Layers(image);
  REQUIRE(chains.ok());
  const std::string path = node.layout.Diff(chains->front().hex()) + "/noise";
  return os::ReadFile(path, MiB(64)).value_or("") == Noise(kLarge);
}

PullOptions Ranged() {
  PullOptions options;
  options.spread = {.first = 3, .most = 3};
  options.ranged_from = MiB(1);
  return options;
}

TEST_CASE("A large layer comes in ranges, over several connections") {
  LyingRegistry registry(OneLargeLayer());
  Node node(Ranged());
  const auto id = node.Pull(registry.Name());
  REQUIRE(id.status().message() == "");
  CHECK(HasNoise(node, *id));
  CHECK(registry.Seen("Range: bytes=0-4194303\r\n") == 1);
  CHECK(registry.Seen("Range: bytes=4194304-8388607\r\n") == 1);
  CHECK(registry.Seen("Range: bytes=") == 4);
  CHECK(registry.server().connection_count() >= 3);
  node.CheckClean();
  const std::string metrics = node.registry.Render();
  CHECK(
      metrics.find("crisp_imaged_fetched_bytes_total " +
                   std::to_string(registry.image.blobs[registry.image.layer_digests[0]].size())) !=
      std::string::npos);
  CHECK(metrics.find("crisp_imaged_stage_seconds_total{stage=\"unpack\"} 0.") != std::string::npos);
  CHECK(metrics.find("crisp_imaged_layers_active 0") != std::string::npos);
}

/// What ConnectionCount comes to where `rate` connections bring that much.
std::size_t Settled(std::size_t most, const std::function<double(std::size_t)>& rate) {
  ConnectionCount count(1, most);
  for (int i = 0; i < 20; ++i) count.Measured(rate(count.now()));
  return count.now();
}

TEST_CASE("A layer comes over as many connections as bring more") {
  const auto each = [](std::size_t count) { return 10.0 * static_cast<double>(count); };
  CHECK(Settled(16, each) == 16);
  CHECK(Settled(6, each) == 6);
  CHECK(Settled(1, each) == 1);
  // The line, the registry or our own processors are full already.
  CHECK(Settled(16, [](std::size_t) { return 100.0; }) == 1);
  CHECK(Settled(16, [&](std::size_t count) { return std::min(40.0, each(count)); }) == 4);
  CHECK(Settled(16, [](std::size_t count) { return 100.0 / static_cast<double>(count); }) == 1);

  ConnectionCount count(1, 4);
  count.Measured(100);
  CHECK(count.now() == 2);  // on trial
  count.Measured(110);
  CHECK(count.now() == 1);
  int rest = 0;
  for (; count.now() == 1; ++rest) count.Measured(10);
  CHECK(rest > 10);
  count.Measured(20);
  CHECK(count.now() == 4);
}

/// A source each of whose connections brings a buffer in `pause`.
struct SlowSource {
  struct Reader : BlobReader {
    Reader(BlobRange of, std::chrono::milliseconds after) : range(of), pause(after) {}
    Result<std::size_t> Read(const CallContext& /*cc*/, std::span<char> into) override {
      std::this_thread::sleep_for(pause);
      const std::size_t count = std::min<std::uint64_t>(into.size(), range.size);
      range.size -= count;
      for (char& byte : into.first(count)) byte = static_cast<char>(range.from++ / kPartSize);
      return count;
    }
    std::optional<std::uint64_t> total() const override { return kSize; }
    bool is_range() const override { return true; }
    BlobRange range;
    std::chrono::milliseconds pause;
  };
  static constexpr std::uint64_t kSize = 10 * kPartSize + 1;

  /// Reads all of it, and whether it was right.
  bool Fetch(const Spread& spread) {
    const OpenBlob open = [this](const CallContext&, BlobRange range) {
      ++opened;
      return Result<std::unique_ptr<BlobReader>>(std::make_unique<Reader>(range, pause));
    };
    BufferPool pool;
    Slots slots(16);
    RangedFetch fetch(CallContext::Background(std::chrono::seconds(60)), kSize,
                      *open(CallContext(), spread.FirstRange(kSize)), open, spread, slots, pool);
    std::uint64_t at = 0;
    bool right = true;
    while (const std::optional<Buffer> buffer = fetch.Next()) {
      for (const char byte : buffer->view())
        right = right && byte == static_cast<char>(at++ / kPartSize);
    }
    return right && at == kSize;
  }

  std::chrono::milliseconds pause{0};
  std::atomic<int> opened = 0;
};

TEST_CASE("One connection is one stream, however many may be tried later") {
  SlowSource source;
  CHECK(source.Fetch({.first = 1, .most = 4, .window = std::chrono::hours(1)}));
  CHECK(source.opened == 1);
}

TEST_CASE("Slow connections become more while a layer comes") {
  SlowSource source{.pause = std::chrono::milliseconds(2)};
  CHECK(source.Fetch({.first = 1, .most = 4, .window = std::chrono::milliseconds(20)}));
  CHECK(source.opened > 3);
}

TEST_CASE("A layer may come over as many connections as there are from its beginning") {
  SlowSource source;
  CHECK(source.Fetch({.first = 3, .most = 3}));
  CHECK(source.opened == 11);
}

TEST_CASE("A smaller layer, and any with one connection allowed, comes in one piece") {
  LyingRegistry registry(OneLargeLayer());
  PullOptions options = Ranged();
  SECTION("smaller") { options.ranged_from = GiB(1); }
  SECTION("one connection") { options.spread = {}; }
  Node node(options);
  REQUIRE(node.Pull(registry.Name()).status().message() == "");
  CHECK(registry.Seen("Range: bytes=") == 0);
}

TEST_CASE("A large layer comes with a single node-wide connection, too") {
  LyingRegistry registry(OneLargeLayer());
  PullOptions options = Ranged();
  options.parallel_downloads = 1;
  options.parallel_unpackers = 1;
  Node node(options);
  const auto id = node.Pull(registry.Name());
  REQUIRE(id.status().message() == "");
  CHECK(HasNoise(node, *id));
}

TEST_CASE("A registry whose ranges cannot be relied on is asked for the rest in one piece") {
  LyingRegistry registry(OneLargeLayer());
  SECTION("it has none: its answer to the first request is all of it") {
    registry.no_ranges = true;
  }
  SECTION("it has only the first") { registry.no_tail_ranges = true; }
  SECTION("it sends other bytes than were asked for") { registry.shifted_ranges = true; }
  SECTION("each range is of another version") { registry.new_versions = true; }
  Node node(Ranged());
  const auto id = node.Pull(registry.Name());
  REQUIRE(id.status().message() == "");
  CHECK(HasNoise(node, *id));
  if (registry.no_ranges) CHECK(registry.blob_requests == 2);  // with the config
  node.CheckClean();
}

TEST_CASE("Ranges whose connections break go on from the last good byte of each") {
  LyingRegistry registry(OneLargeLayer());
  registry.cut_blob = registry.image.layer_digests[0];
  Node node(Ranged());
  const auto id = node.Pull(registry.Name());
  REQUIRE(id.status().message() == "");
  CHECK(HasNoise(node, *id));
  CHECK(registry.blob_requests > 100);
  node.CheckClean();
}

TEST_CASE("A large blob with other bytes is refused, in ranges as in one piece") {
  LyingRegistry registry(OneLargeLayer());
  registry.wrong_blob = registry.image.layer_digests[0];
  Node node(Ranged());
  const auto id = node.Pull(registry.Name());
  CHECK(id.code() == Code::kDataLoss);
  CHECK(id.status().message().find("has the digest sha256:") != std::string::npos);
  node.CheckClean();
}

TEST_CASE("A large blob that never comes whole is given up") {
  LyingRegistry registry(OneLargeLayer());
  registry.cut_blob = registry.image.layer_digests[0];
  registry.always_short = true;
  Node node(Ranged());
  CHECK(node.Pull(registry.Name()).code() == Code::kDataLoss);
  node.CheckClean();
}

TEST_CASE("A layer in the form of zstd:chunked is taken as the zstd that it is") {
  const std::string tar = TarWriter().File("a", Noise(100'000)).File("b", "end").Done();
  LyingRegistry registry(TestImage::Make({{tar, Pack::kZstd}}));
  // A frame for each file, and frames to skip with the table of contents and its place.
  const auto skipped = [](std::uint32_t size) {
    std::string frame = "\x50\x2a\x4d\x18";
    frame.append(reinterpret_cast<const char*>(&size), sizeof size);
    return frame + std::string(size, 'j');
  };
  const std::string blob =
      ZstdOf(tar.substr(0, 70'000)) + ZstdOf(tar.substr(70'000)) + skipped(5000) + skipped(64);
  nlohmann::json manifest = nlohmann::json::parse(registry.image.manifest);
  manifest["layers"][0]["digest"] = registry.image.Add(blob);
  manifest["layers"][0]["size"] = blob.size();
  manifest["layers"][0]["annotations"] = {
      {"io.github.containers.zstd-chunked.manifest-position", "1:2:3:1"}};
  registry.image.manifest = manifest.dump();
  Node node;
  const auto id = node.Pull(registry.Name());
  REQUIRE(id.status().message() == "");
  CHECK(node.File(*id, 0, "a") == Noise(100'000));
  CHECK(node.File(*id, 0, "b") == "end");
}

TEST_CASE("The log tells again and again how far a long pull is") {
  LyingRegistry registry(TwoLayers());
  registry.stalled_blob = registry.image.layer_digests[0];
  PullOptions options;
  options.tell_every = std::chrono::milliseconds(20);
  Node node(http::ClientOptions{.stall_timeout = std::chrono::milliseconds(1500)}, options);
  const std::string path = node.root.Write("log", "");
  {
    const os::UniqueFd old(::dup(STDERR_FILENO));
    const os::UniqueFd log(::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
    REQUIRE(::dup2(log.get(), STDERR_FILENO) == STDERR_FILENO);
    const Cleanup back([&old] { ::dup2(old.get(), STDERR_FILENO); });
    REQUIRE(node.Pull(registry.Name()).status().message() == "");
  }
  const std::string log = *os::ReadFile(path);
  const std::size_t line = log.find("image is being pulled image=" + registry.Name());
  REQUIRE(line != std::string::npos);
  CHECK(log.find("image is being pulled", line + 1) != std::string::npos);
  CHECK(log.find("layers=1/2 bytes=") != std::string::npos);
  CHECK(log.find("bytes_per_second=") != std::string::npos);
}

}  // namespace
}  // namespace crisp::imaged
