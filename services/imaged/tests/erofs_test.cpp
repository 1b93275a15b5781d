// Layers of one file: what is written is what the kernel's EROFS and our own reader show.
#include <fcntl.h>
#include <sys/sysmacros.h>

#include <random>

#include "libs/os/image_mount.h"
#include "services/imaged/core/layer_tar.h"
#include "services/imaged/store/flatten.h"
#include "services/imaged/store/layer_reader.h"
#include "services/imaged/store/tree_digest.h"
#include "services/imaged/tests/unpack_bench.h"

namespace crisp::imaged {
namespace {

using archive::testing::TarWriter;

CallContext Call() { return CallContext::Background(std::chrono::minutes(1)); }

std::string DigestOf(const std::string& path) {
  const auto digest = TreeDigest(path, [](std::uint64_t) { return Status::Ok(); });
  INFO(path);
  REQUIRE(digest.status().message() == "");
  return *digest;
}

/// Something of all that a form on disk could get wrong, made in place.
struct Tree {
  crisp::testing::TestRoot root;
  std::string path = root / "tree";
  std::string image = root / "image";

  Tree() {
    REQUIRE(os::MakeDirs(path + "/empty", 0700).ok());
    for (const int size : {0, 1, 4031, 4032, 4095, 4096, 4097, 8192, 70'001})
      Write(fmt::format("size{}", size), std::string(static_cast<std::size_t>(size), 's'));
    // Several blocks of names, some before "." and "..".
    for (int i = 0; i < 700; ++i) Write(fmt::format("many/{}-{:0200}", i % 2 ? "n" : "!", i), "x");
    Write("linked/a", "one file");
    REQUIRE(::link(At("linked/a").c_str(), At("size-link").c_str()) == 0);
    REQUIRE(::symlink(std::string(4000, 't').c_str(), At("long").c_str()) == 0);
    REQUIRE(::symlink("linked/a", At("short").c_str()) == 0);
    REQUIRE(::mknod(At("null").c_str(), S_IFCHR | 0666, makedev(1, 3)) == 0);
    REQUIRE(::mknod(At("many/minor").c_str(), S_IFBLK | 0600, makedev(259, 70'000)) == 0);
    REQUIRE(::mknod(At("gone").c_str(), S_IFCHR, 0) == 0);
    REQUIRE(::mkfifo(At("pipe").c_str(), 0640) == 0);
    Sparse("sparse", off_t{1} << 32U);
    REQUIRE(::chown(At("size1").c_str(), 4'000'000'000, 70'000) == 0);
    REQUIRE(::chmod(At("size4096").c_str(), 06755) == 0);
    const std::string value(2000, 'v');
    Xattr("size4097", "user.long", value);
    Xattr("size0", "user.empty", "");
    Xattr("many", "user.overlay.opaque", "y");
    const std::string capability("\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
    Xattr("size4032", "security.capability", capability);
    Touch("size8192", {-600'000'000, 123'456'789});
    Touch("empty", {5'000'000'000, 999'999'999});
    Touch("long", {1, 2});
    Touch("", {7, 0});
  }
  std::string At(const std::string& name) const { return path + "/" + name; }
  void Write(const std::string& name, const std::string& text) const {
    root.Write("tree/" + name, text);
  }
  void Xattr(const std::string& name, const char* xattr, const std::string& value) const {
    REQUIRE(::setxattr(At(name).c_str(), xattr, value.data(), value.size(), 0) == 0);
  }
  void Touch(const std::string& name, const timespec& time) const {
    const std::array<timespec, 2> times = {time, time};
    REQUIRE(::utimensat(AT_FDCWD, At(name).c_str(), times.data(), AT_SYMLINK_NOFOLLOW) == 0);
  }
  void Sparse(const std::string& name, off_t size) const {
    const os::UniqueFd fd = *os::Open(At(name), O_WRONLY | O_CREAT, 0600);
    REQUIRE(::pwrite(fd.get(), "middle", 6, size / 2) == 6);
    REQUIRE(::ftruncate(fd.get(), size) == 0);
  }
};

TEST_CASE("A tree's image has all of it, to the kernel and to us") {
  const Tree tree;
  const Result<bool> written = WriteErofs(Call(), tree.path, tree.image);
  REQUIRE(written.status().message() == "");
  REQUIRE(*written);
  // With its holes: half of them could not be stored here.
  CHECK(MeasureTree(tree.image)->bytes < 4U << 20U);

  // Copied from the image by our reader as from the tree: deletions and opaque marks take effect.
  for (const char* name : {"copy", "again"}) REQUIRE(os::MakeDirs(tree.root / name).ok());
  REQUIRE(Flatten(Call(), {tree.path}, tree.root / "copy").ok());
  REQUIRE(Flatten(Call(), {tree.image}, tree.root / "again").message() == "");
  CHECK(DigestOf(tree.root / "again") == DigestOf(tree.root / "copy"));
  struct stat a {};
  struct stat b {};
  REQUIRE(::stat((tree.root / "again/linked/a").c_str(), &a) == 0);
  REQUIRE(::stat((tree.root / "again/size-link").c_str(), &b) == 0);
  CHECK(a.st_ino == b.st_ino);

  if (!os::CheckImageLayers().ok()) return;
  const Result<os::UniqueFd> mount = os::MountImage(tree.image);
  REQUIRE(mount.status().message() == "");
  const std::string mounted = fmt::format("/proc/self/fd/{}/.", mount->get());
  CHECK(DigestOf(mounted) == DigestOf(tree.path));
  REQUIRE(::stat((mounted + "/linked/a").c_str(), &a) == 0);
  REQUIRE(::stat((mounted + "/size-link").c_str(), &b) == 0);
  CHECK(a.st_ino == b.st_ino);
  CHECK(a.st_nlink == 2);
  REQUIRE(::stat(mounted.c_str(), &a) == 0);
  REQUIRE(::stat(tree.path.c_str(), &b) == 0);
  CHECK(a.st_nlink == b.st_nlink);
}

TEST_CASE("The same tree makes the same image, whatever its order on disk") {
  const Tree tree;
  REQUIRE(*WriteErofs(Call(), tree.path, tree.image));
  REQUIRE(os::Rename(tree.At("many"), tree.At("elsewhere")).ok());
  REQUIRE(os::Rename(tree.At("elsewhere"), tree.At("many")).ok());
  tree.Touch("", {7, 0});
  REQUIRE(*WriteErofs(Call(), tree.path, tree.root / "second"));
  CHECK(DigestOf(tree.root / "second").size() == 64);
  REQUIRE(::truncate(tree.At("sparse").c_str(), 0) ==
          0);  // so that the next ones can be read whole
  REQUIRE(*WriteErofs(Call(), tree.path, tree.root / "third"));
  REQUIRE(*WriteErofs(Call(), tree.path, tree.root / "fourth"));
  CHECK(os::ReadFile(tree.root / "third").value() == os::ReadFile(tree.root / "fourth").value());
}

TEST_CASE("A tree of too many files stays one") {
  const Tree tree;
  const Result<bool> written = WriteErofs(Call(), tree.path, tree.image, 100);
  REQUIRE(written.ok());
  CHECK_FALSE(*written);
  CHECK_FALSE(os::Exists(tree.image));
  CHECK(WriteErofs(Call(), tree.root / "absent", tree.image).code() == Code::kNotFound);
  const CallContext over(SteadyTime::min(), {}, "over");
  CHECK(WriteErofs(over, tree.path, tree.image).code() == Code::kDeadlineExceeded);
  CHECK_FALSE(os::Exists(tree.image));
}

TEST_CASE("Whatever is damaged in an image, reading it ends, and leads nowhere outside") {
  testing::Bench bench;
  bench.images = true;
  REQUIRE(bench
              .Layer(TarWriter()
                         .Dir("d/", {.mode = 0755, .mtime = 1})
                         .File("d/f", std::string(5000, 'x'))
                         .File("d/g", "g")
                         .Symlink("d/s", "f")
                         .HardLink("d/h", "d/f")
                         .Done())
              .ok());
  const std::string whole = os::ReadFile(bench.layers.front()).value();
  const std::string path = bench.root / "damaged";
  const auto read = [&path] {
    std::uint64_t bytes = 0;
    return WriteLayerTar(Call(), path, [&bytes](std::string_view text) {
      bytes += text.size();
      return bytes > 100U << 20U ? ResourceExhausted("endless") : Status::Ok();
    });
  };
  std::mt19937 random(7);
  int refused = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string text = whole;
    // The superblock and the inodes, mostly.
    const std::size_t range = round % 4 == 0 ? text.size() : 2200;
    for (int i = 0; i < 1 + round % 3; ++i)
      text[1024 + random() % (range - 1024)] = static_cast<char>(random());
    REQUIRE(os::WriteFile(path, text).ok());
    const Status status = read();
    CAPTURE(round, status.message());
    CHECK(status.code() != Code::kResourceExhausted);
    if (!status.ok()) ++refused;
  }
  CHECK(refused > 100);
  for (const std::size_t size : {std::size_t{0}, std::size_t{1100}, whole.size() - 1}) {
    REQUIRE(os::WriteFile(path, whole.substr(0, size)).ok());
    CHECK(read().code() == Code::kDataLoss);
  }
}

}  // namespace
}  // namespace crisp::imaged
