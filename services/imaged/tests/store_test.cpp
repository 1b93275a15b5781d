// What the store tells of itself: pinned images, file systems and their use, drivers.
#include <fcntl.h>
#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <future>

#include "libs/os/files.h"
#include "libs/testing/manual_clock.h"
#include "libs/testing/test_root.h"
#include "services/imaged/core/images.h"
#include "services/imaged/core/store_check.h"
#include "services/imaged/store/layer_store.h"
#include "services/imaged/store/tree_digest.h"
#include "services/imaged/tests/unpack_bench.h"

namespace crisp::imaged {
namespace {

using archive::testing::TarWriter;

struct Store {
  crisp::testing::TestRoot root;
  settings::Settings settings = [this] {
    settings::Settings made;
    made.state_root = root / "state";
    return made;
  }();
  std::optional<Layout> layout;
  std::optional<LayerStore> store;
  std::unique_ptr<Catalogue> catalogue;

  void Open() {
    layout.emplace(settings);
    store.emplace(*LayerStore::Open(*layout));
    catalogue = *Catalogue::Open(layout->Catalogue(), "boot");
  }
  /// A layer in place and in the catalogue with an image "q.io/<name>:1" on it.
  void Image(const std::string& name, const std::string& archive) {
    const digest::Digest chain = digest::Sha256Digest(archive);
    const std::string staged = *store->Stage(chain);
    Unpacker unpacker = *Unpacker::Create(staged + "/diff", {});
    archive::StringSource source(archive);
    archive::TarReader tar(source);
    REQUIRE(unpacker.Unpack(tar).ok());
    REQUIRE(unpacker.Finish(CallContext::Background(std::chrono::minutes(1)), {}).ok());
    REQUIRE(store->Commit(staged, chain).ok());
    NewImage image;
    image.id = digest::Sha256Digest("config of " + name).str();
    image.config = "{}";
    image.chain = {chain};
    image.fresh_layers = {{chain, chain, unpacker.usage().bytes, unpacker.usage().inodes}};
    image.tag = "q.io/" + name + ":1";
    image.digests = {"q.io/" + name + "@" + digest::Sha256Digest(name).str()};
    REQUIRE(catalogue->CommitImage(image, {}).ok());
  }
  runtime::v1::ImageFsInfoResponse FsInfo() {
    Images images(*catalogue, *layout, {}, Clock::System());
    runtime::v1::ImageFsInfoResponse response;
    REQUIRE(images.FsInfo(response).ok());
    return response;
  }
};

TEST_CASE("Images are pinned by name, glob and keyword") {
  Store store;
  store.Open();
  store.Image("team/web", TarWriter().File("f", "x").Done());
  const auto pinned = [&store](const std::string& pattern) {
    Images images(*store.catalogue, *store.layout, {pattern}, Clock::System());
    runtime::v1::ListImagesResponse response;
    REQUIRE(images.List({}, response).ok());
    return response.images(0).pinned();
  };
  for (const char* pattern : {"q.io/team/web:1", "q.io/team/*", "*", "*team*", "q.io/*/web:1",
                              "*web:1", "q*t*w*1", "sha256:*"}) {
    CAPTURE(pattern);
    CHECK(pinned(pattern));
  }
  for (const char* pattern :
       {"q.io/team/web:2", "q.io/team/we", "team", "*teams*", "q.io/*/web", "*b:1*1", "x*"}) {
    CAPTURE(pattern);
    CHECK_FALSE(pinned(pattern));
  }
}

TEST_CASE("What images take agrees with du, pulls' space and trash counted") {
  Store store;
  store.Open();
  TarWriter tar;
  for (int i = 0; i < 500; ++i)
    tar.File(fmt::format("dir{}/file{}", i % 7, i),
             std::string(static_cast<std::size_t>(i * 37), 'x'));
  store.Image("a", tar.Done());
  store.Image("b", TarWriter().File("big", std::string(3U << 20U, 'b')).Done());
  const auto agrees = [&store] {
    const runtime::v1::FilesystemUsage usage = store.FsInfo().image_filesystems(0);
    std::uint64_t du = 0;
    for (const std::string& path :
         {store.layout->Layers(), store.layout->Staging(), store.layout->Trash()})
      du += MeasureTree(path)->bytes;
    const auto told = static_cast<double>(usage.used_bytes().value());
    INFO(told << " told, du says " << du);
    CHECK(told == Approx(static_cast<double>(du)).epsilon(0.01));
    CHECK(usage.timestamp() > 0);
  };
  agrees();
  const std::string staged = *store.store->Stage(digest::Sha256Digest("on its way"));
  REQUIRE(os::WriteFile(staged + "/diff/half", std::string(2U << 20U, 'h')).ok());
  agrees();
  REQUIRE(store.store->Discard(staged).ok());
  agrees();
  const std::vector<std::string> trash = store.store->Trash().value();
  for (const std::string& path : trash) REQUIRE(*store.store->DeleteSome(path, 1000));
  agrees();
}

TEST_CASE("A tree deeper than descriptors and stacks go is measured and deleted") {
  Store store;
  store.Open();
  constexpr int kDepth = 20'000;
  REQUIRE(store.store->MakeSnapshot("c1", store.layout->Empty()).ok());
  const std::string upper = store.layout->Snapshot("c1") + "/upper";
  os::UniqueFd at = *os::Open(upper, O_RDONLY | O_DIRECTORY);
  for (int i = 0; i < kDepth; ++i) {
    REQUIRE(::mkdirat(at.get(), "d", 0755) == 0);
    if (i % 1000 == 0) {
      REQUIRE(::mkdirat(at.get(), "beside", 0755) == 0);
      REQUIRE(::mkdirat(at.get(), "z", 0755) == 0);
    }
    at = os::UniqueFd(::openat(at.get(), "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    REQUIRE(at.valid());
  }
  CHECK(MeasureTree(upper)->inodes == 1 + kDepth + 2 * kDepth / 1000);
  REQUIRE(store.store->Discard(store.layout->Snapshot("c1")).ok());
  const std::string trash = store.store->Trash()->front();
  while (!store.store->DeleteSome(trash, 5000).value()) {
  }
  CHECK(store.store->Trash()->empty());
}

TEST_CASE("Images and containers may lie on file systems of their own") {
  Store store;
  store.Open();
  auto info = store.FsInfo();
  CHECK(info.image_filesystems(0).fs_id().mountpoint() == store.root / "state/imaged");
  CHECK(info.container_filesystems(0).fs_id().mountpoint() == store.root / "state/imaged");
  store.settings.imaged.image_root = store.root / "images";
  store.Open();
  REQUIRE(store.store->MakeSnapshot("c1", store.layout->Empty()).ok());
  REQUIRE(os::WriteFile(store.layout->Snapshot("c1") + "/upper/f", std::string(100'000, 'x')).ok());
  info = store.FsInfo();
  CHECK(info.image_filesystems(0).fs_id().mountpoint() == store.root / "images");
  CHECK(info.container_filesystems(0).fs_id().mountpoint() == store.root / "state/imaged");
  CHECK(info.container_filesystems(0).used_bytes().value() > 100'000);
  CHECK(info.image_filesystems(0).used_bytes().value() < 100'000);
  CHECK(os::Exists(store.root / "images/catalogue.db"));
  CHECK(store.layout->Snapshot("c1").starts_with(store.root / "state/imaged/snapshots"));
  // Thrown away without leaving its file system.
  REQUIRE(store.store->Discard(store.layout->Snapshot("c1")).ok());
  CHECK(os::ListDir(store.layout->SnapshotsTrash())->size() == 1);
  CHECK(store.store->Trash()->size() == 1);
}

TEST_CASE("Who asks for the disk's usage waits for a fresh answer, but not for long") {
  Store store;
  store.Open();
  crisp::testing::ManualClock clock;
  std::function<void()> task;
  DiskUsage usage(*store.layout, clock,
                  [&task](std::function<void()> measure) { task = std::move(measure); });
  const auto stage = [&store](const std::string& name) {
    const std::string staged = *store.store->Stage(digest::Sha256Digest(name));
    REQUIRE(os::WriteFile(staged + "/diff/f", std::string(1U << 20U, 'x')).ok());
  };
  const auto ask = [&usage] { return std::async(std::launch::async, [&] { return usage.Get(); }); };
  stage("a");
  // A measurement that is dropped does not stop the next one, and nobody waits for it.
  usage.Refresh();
  REQUIRE(task);
  task = nullptr;
  usage.Refresh();
  REQUIRE(task);
  auto asked = ask();
  REQUIRE(clock.WaitForWaiters(1));
  std::exchange(task, nullptr)();
  const std::uint64_t first = asked.get().temporary.bytes;
  CHECK(first > 1U << 20U);
  CHECK(usage.Get().temporary.bytes == first);
  CHECK_FALSE(task);  // fresh enough
  stage("b");
  // Containers' trees are not walked where nobody asks for them.
  REQUIRE(store.store->MakeSnapshot("c1", store.layout->Empty()).ok());
  clock.Advance(std::chrono::minutes(1));
  // One that takes long is for the next question.
  asked = ask();
  REQUIRE(clock.WaitForWaiters(1));
  clock.Advance(std::chrono::milliseconds(200));
  CHECK(asked.get().temporary.bytes == first);
  REQUIRE(task);
  std::exchange(task, nullptr)();
  CHECK(usage.Get().temporary.bytes > first);
  CHECK(usage.Get().containers.inodes == 0);
}

TEST_CASE("A tree's digest sees every change that a container would") {
  testing::Bench bench;
  const auto digest = [&bench](TarWriter& tar) {
    REQUIRE(bench.Layer(tar.Done()).ok());
    return TreeDigest(bench.layers.front(), [](std::uint64_t) { return Status::Ok(); }).value();
  };
  const auto base = [](const std::string& text = "x", unsigned mode = 0644, long mtime = 5) {
    TarWriter tar;
    tar.Dir("./", {.mode = 0755, .mtime = 1}).File("f", text, {.mode = mode, .mtime = mtime});
    return tar;
  };
  TarWriter same = base();
  const std::string first = digest(same);
  TarWriter again = base();
  CHECK(digest(again) == first);
  TarWriter text = base("y");
  CHECK(digest(text) != first);
  TarWriter mode = base("x", 0640);
  CHECK(digest(mode) != first);
  TarWriter time = base("x", 0644, 6);
  CHECK(digest(time) != first);
  TarWriter more = base();
  more.Symlink("s", "f");
  CHECK(digest(more) != first);
  const auto stopped = TreeDigest(bench.layers.front(),
                                  [](std::uint64_t) { return Status(Code::kCancelled, "enough"); });
  CHECK(stopped.code() == Code::kCancelled);
}

TEST_CASE("A large file is read in pieces, and its holes not at all") {
  testing::Bench bench;
  std::uint64_t read = 0;
  const auto digest = [&bench, &read] {
    read = 0;
    return TreeDigest(bench.root.path(),
                      [&read](std::uint64_t bytes) {
                        CHECK(bytes <= 256U << 10U);
                        read += bytes;
                        return Status::Ok();
                      })
        .value();
  };
  const std::string path = bench.root / "f";
  const std::string block(4096, 'x');
  const auto write = [&path](const std::vector<std::pair<off_t, std::string>>& extents,
                             off_t size) {
    os::UniqueFd fd = *os::Open(path, O_RDWR | O_CREAT, 0600);
    REQUIRE(::ftruncate(fd.get(), 0) == 0);
    for (const auto& [offset, bytes] : extents)
      REQUIRE(::pwrite(fd.get(), bytes.data(), bytes.size(), offset) ==
              static_cast<ssize_t>(bytes.size()));
    REQUIRE(::ftruncate(fd.get(), size) == 0);
    const std::array<timespec, 2> times{};
    REQUIRE(::futimens(fd.get(), times.data()) == 0);
  };
  constexpr off_t kFar = off_t{1} << 40U;
  write({{0, block}, {kFar, "tail"}}, kFar + 4);
  const std::string sparse = digest();
  CHECK(read < 1U << 20U);
  write({{0, block}, {kFar + 1, "tail"}}, kFar + 5);
  CHECK(digest() != sparse);
  const off_t size = off_t{1} << 20U;
  write({{0, block + std::string(900'000, '\0')}}, size);
  const std::string stored = digest();
  CHECK(read > 900'000);
  write({{0, block}}, size);
  CHECK(digest() == stored);
  write({{0, block}}, size + 1);
  CHECK(digest() != stored);
}

TEST_CASE("A layer that takes too long to read does not keep the others from their turn") {
  Store store;
  store.Open();
  store.Image("a", TarWriter().File("f", "a").Done());
  store.Image("b", TarWriter().File("f", "b").Done());
  constexpr std::uint64_t kRate = std::uint64_t{1} << 30U;
  const auto verify = [&store](std::chrono::seconds time) {
    return VerifyOne(CallContext::Background(time), *store.catalogue, *store.store, Clock::System(),
                     kRate)
        .code();
  };
  const auto unread = [&store] {
    const std::vector<CatalogueLayer> layers = *store.catalogue->AllLayers();
    return std::count_if(layers.begin(), layers.end(),
                         [](const CatalogueLayer& each) { return each.tree.empty(); });
  };
  CHECK(verify(std::chrono::seconds(0)) == Code::kDeadlineExceeded);
  CHECK(unread() == 2);
  CHECK(verify(std::chrono::seconds(30)) == Code::kOk);
  CHECK(unread() == 1);
  CHECK(verify(std::chrono::seconds(30)) == Code::kOk);
  CHECK(unread() == 0);
}

}  // namespace
}  // namespace crisp::imaged
