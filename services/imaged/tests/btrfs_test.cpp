// The driver btrfs on a real file system in a file.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <catch2/catch.hpp>
#include <cstdlib>

#include "libs/os/btrfs.h"
#include "libs/os/mount.h"
#include "libs/process/command.h"
#include "services/imaged/core/store_check.h"
#include "services/imaged/store/disk_usage.h"
#include "services/imaged/tests/fake_registry.h"
#include "services/imaged/tests/node.h"

namespace crisp::imaged {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): what the tests are written in

void Tool(const std::string& program, const std::vector<std::string>& args) {
  const auto output =
      process::Run(CallContext::Background(std::chrono::seconds(60)),
                   {.program = program, .args = args, .env = process::PlainEnvironment()});
  REQUIRE(output.status().message() == "");
  INFO(output->out << output->err);
  REQUIRE(output->exit_code == 0);
}

/// While it lives, test roots lie on a btrfs of their own.
class OnBtrfs {
 public:
  OnBtrfs() {
    REQUIRE(os::MakeDirs(root_ / "m").ok());
    const os::UniqueFd file = *os::Open(root_ / "disk", O_RDWR | O_CREAT, 0600);
    REQUIRE(::ftruncate(file.get(), off_t{1} << 30U) == 0);
    Tool("/usr/sbin/mkfs.btrfs", {"-q", root_ / "disk"});
    Tool("/usr/bin/mount", {"-o", "loop", root_ / "disk", root_ / "m"});
    REQUIRE(::setenv("CRISP_TEST_ROOT", (root_ / "m").c_str(), 1) == 0);
  }
  OnBtrfs(const OnBtrfs&) = delete;
  OnBtrfs& operator=(const OnBtrfs&) = delete;
  ~OnBtrfs() {
    ::unsetenv("CRISP_TEST_ROOT");
    CHECK(os::Unmount(root_ / "m").ok());
  }
  /// Bytes of the disk that are used, once all is written.
  std::uint64_t Used() const {
    REQUIRE(os::SyncFilesystem(root_ / "m").ok());
    struct statvfs info {};
    REQUIRE(::statvfs((root_ / "m").c_str(), &info) == 0);
    return (info.f_blocks - info.f_bfree) * info.f_frsize;
  }

 private:
  crisp::testing::TestRoot root_;
};

struct BtrfsNode : Node {
  Snapshots btrfs{*catalogue, store, trust, metrics, Clock::System(), Snapshots::Driver::kBtrfs};

  std::string Flat(const std::string& id) const {
    const auto layers = catalogue->Layers(id);
    REQUIRE(layers.ok());
    return layout.Flat(layers->back().hex());
  }
  std::vector<std::string> Strays() {
    const auto report = CheckStore(Call(), *catalogue, store, Clock::System(), {.contents = false});
    REQUIRE(report.ok());
    return report->problems;
  }
  void EmptyTrash() {
    while (!*gc.EmptyTrash(Call())) {
    }
  }
};

constexpr std::size_t kLarge = std::size_t{40} << 20U;

TestImage LargeFile() {
  return TestImage::Make(
      {{TarWriter().Dir("etc/").File("etc/gone", "x").File("large", Noise(kLarge)).Done(),
        Pack::kPlain},
       {TarWriter().File("etc/.wh.gone", "").File("etc/name", "high").Done(), Pack::kPlain}});
}

TEST_CASE("Containers share one copy of their image, which shares its layers' blocks") {
  const OnBtrfs disk;
  LyingRegistry registry(LargeFile());
  BtrfsNode node;
  const auto id = node.Pull(registry.Name());
  REQUIRE(id.status().message() == "");
  const std::uint64_t pulled = disk.Used();
  std::vector<std::string> roots;
  for (const char* owner : {"a", "b", "c"}) {
    const auto prepared = node.btrfs.Prepare(Node::Call(), OwnerId(owner), *id);
    REQUIRE(prepared.status().message() == "");
    CHECK(prepared->is_branch);
    roots.push_back(prepared->copied_root);
    CHECK(os::ReadFile(roots.back() + "/etc/name").value_or("") == "high");
    CHECK_FALSE(os::Exists(roots.back() + "/etc/gone"));
    CHECK(os::ReadFile(roots.back() + "/large", MiB(64)).value_or("").size() == kLarge);
    CHECK(node.btrfs.Prepare(Node::Call(), OwnerId(owner), *id)->copied_root == roots.back());
  }
  CHECK(disk.Used() < pulled + kLarge / 4);
  REQUIRE(os::WriteFile(roots[0] + "/etc/name", "changed").ok());
  CHECK(os::ReadFile(roots[1] + "/etc/name").value_or("") == "high");
  CHECK(os::ReadFile(node.Flat(*id) + "/etc/name").value_or("") == "high");
  CHECK(node.Strays().empty());

  // Nothing is left of a container, and of the copy when its image goes.
  for (const char* owner : {"a", "b", "c"})
    REQUIRE(node.btrfs.Release(Node::Call(), OwnerId(owner)).ok());
  REQUIRE(node.images.Remove(*id).ok());
  REQUIRE(node.gc.Collect().ok());
  node.EmptyTrash();
  CHECK(os::ListDir(node.layout.Flats())->empty());
  CHECK(os::ListDir(node.layout.Snapshots())->empty());
  CHECK(os::ListDir(node.layout.Trash())->empty());
}

TEST_CASE("The copy of an image stays while a container of it does, and no longer") {
  const OnBtrfs disk;
  LyingRegistry registry(TwoLayers());
  BtrfsNode node;
  const auto id = node.Pull(registry.Name());
  REQUIRE(id.ok());
  const std::string flat = node.Flat(*id);
  const auto volume = node.btrfs.PrepareVolume(Node::Call(), OwnerId("v"), 0, *id);
  REQUIRE(volume.status().message() == "");
  CHECK(volume->layers == std::vector{flat});
  CHECK(volume->options == std::vector<std::string>{"ro"});
  REQUIRE(node.images.Remove(registry.Name()).ok());
  REQUIRE(node.gc.Collect().ok());
  CHECK(os::Exists(flat));
  REQUIRE(node.btrfs.Release(Node::Call(), OwnerId("v")).ok());
  REQUIRE(node.gc.Collect().ok());
  CHECK_FALSE(os::Exists(flat));
}

TEST_CASE("What a process left half made is found at the next start") {
  const OnBtrfs disk;
  LyingRegistry registry(TwoLayers());
  BtrfsNode node;
  const auto id = node.Pull(registry.Name());
  REQUIRE(id.ok());
  const std::string flat = node.Flat(*id);
  REQUIRE(os::MakeDirs(node.layout.Flats()).ok());
  for (const std::string& stray :
       {flat + ".partial", node.layout.Flat(std::string(64, 'a')), node.layout.Flat("word")}) {
    REQUIRE(os::MakeSubvolume(stray).ok());
    REQUIRE(os::WriteFile(stray + "/f", "x").ok());
  }
  REQUIRE(os::MakeDirs(node.layout.Snapshot("nobody")).ok());
  REQUIRE(os::MakeSubvolume(node.layout.Snapshot("nobody") + "/rootfs").ok());
  CHECK(node.Strays().size() == 4);
  // One that is being made is not touched by a round of the collector, nor is a lock's holder
  // waited for at start.
  REQUIRE(node.gc.Collect().ok());
  CHECK(os::Exists(flat + ".partial"));
  CHECK(node.Strays().size() == 2);
  REQUIRE(node.gc.Recover().ok());
  CHECK(node.Strays().empty());
  node.EmptyTrash();
  CHECK(os::ListDir(node.layout.Trash())->empty());
  // And made anew by whoever needs it.
  REQUIRE(os::MakeSubvolume(flat + ".partial").ok());
  REQUIRE(os::WriteFile(flat + ".partial/stray", "x").ok());
  const auto prepared = node.btrfs.Prepare(Node::Call(), OwnerId("a"), *id);
  REQUIRE(prepared.ok());
  CHECK_FALSE(os::Exists(prepared->copied_root + "/stray"));
}

TEST_CASE("Of a container's root counts what it has changed, not its image") {
  const OnBtrfs disk;
  LyingRegistry registry(LargeFile());
  BtrfsNode node;
  const auto id = node.Pull(registry.Name());
  REQUIRE(id.ok());
  const std::string root = node.btrfs.Prepare(Node::Call(), OwnerId("a"), *id)->copied_root;
  const std::uint64_t before = MeasureTree(root)->bytes;
  CHECK(before < 1U << 20U);
  REQUIRE(os::WriteFile(root + "/etc/new", Noise(700'000)).ok());
  REQUIRE(os::SyncFilesystem(root).ok());
  const std::uint64_t after = MeasureTree(root)->bytes;
  CHECK(after >= before + 700'000);
  CHECK(after < before + 1'000'000);
}

TEST_CASE("An image without layers is an empty subvolume") {
  const OnBtrfs disk;
  LyingRegistry registry(TestImage::Make({}));
  BtrfsNode node;
  const auto id = node.Pull(registry.Name());
  REQUIRE(id.status().message() == "");
  const auto prepared = node.btrfs.Prepare(Node::Call(), OwnerId("a"), *id);
  REQUIRE(prepared.status().message() == "");
  CHECK(os::ListDir(prepared->copied_root)->empty());
  CHECK(os::IsSubvolume(prepared->copied_root));
  CHECK(node.btrfs.PrepareVolume(Node::Call(), OwnerId("a"), 0, *id).ok());
}

TEST_CASE("A subvolume that may not be deleted as a whole goes file by file") {
  const OnBtrfs disk;
  const crisp::testing::TestRoot root;
  CHECK(*os::IsOnBtrfs(root.path()));
  CHECK_FALSE(*os::IsOnBtrfs("/proc"));
  REQUIRE(os::MakeSubvolume(root / "s").ok());
  CHECK(os::MakeSubvolume(root / "s").code() == Code::kAlreadyExists);
  CHECK_FALSE(os::MakeSubvolume("/proc/s").ok());
  REQUIRE(os::MakeDirs(root / "s/deep/below").ok());
  REQUIRE(os::SnapshotSubvolume(root / "s", root / "t").ok());
  REQUIRE(os::RemoveTree(root / "t").message() == "");
  CHECK(*os::DeleteSubvolume(root / "s"));
  REQUIRE(os::MakeDirs(root / "d").ok());
  CHECK_FALSE(*os::DeleteSubvolume(root / "d"));
  CHECK_FALSE(os::SnapshotSubvolume(root / "d", root / "u").ok());
}

}  // namespace
}  // namespace crisp::imaged
