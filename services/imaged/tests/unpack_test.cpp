#include "services/imaged/core/unpack.h"

#include "services/imaged/tests/unpack_bench.h"

namespace crisp::imaged {
namespace {

using archive::testing::TarWriter;
using testing::Bench;

TEST_CASE("A layer comes out with contents, modes, owners, times and links") {
  Bench bench;
  TarWriter tar;
  tar.Dir("./").Dir("etc/", {.mode = 01777, .mtime = 5});
  tar.File("etc/passwd", "root", {.mode = 04755, .uid = 7, .gid = 8, .mtime = 1234});
  tar.Symlink("etc/link", "/outside/of/it").HardLink("etc/hard", "etc/passwd");
  tar.File("deep/down/file", std::string(100'000, 'x'));
  tar.Other("pipe", '6');
  REQUIRE(bench.Layer(tar.Done()).ok());
  CHECK(bench.Text("etc/passwd") == "root");
  const struct stat passwd = bench.Info("etc/passwd");
  CHECK((passwd.st_mode & 07777U) == 04755);
  CHECK(passwd.st_uid == 7);
  CHECK(passwd.st_gid == 8);
  CHECK(passwd.st_mtime == 1234);
  CHECK(passwd.st_nlink == 2);
  const struct stat etc = bench.Info("etc");
  CHECK((etc.st_mode & 07777U) == 01777);
  CHECK(etc.st_mtime == 5);
  CHECK(*os::ReadLink(bench.Top("etc/link")) == "/outside/of/it");
  CHECK(bench.Text("deep/down/file").size() == 100'000);
  CHECK(S_ISFIFO(bench.Info("pipe").st_mode));
  CHECK(bench.usage.inodes == 8);
  CHECK(bench.usage.bytes > 100'000);
}

TEST_CASE("Whiteouts become what overlayfs takes for them") {
  Bench bench;
  TarWriter tar;
  tar.File("a/.wh.gone", "").Dir("b/").File("b/.wh..wh..opq", "").File("b/new", "n");
  tar.File("c/.wh..wh.plnk", "");
  // A whiteout of a name that the layer itself brings hides only what is below.
  tar.File(".wh.d", "").Dir("d/").File("d/new", "n");
  tar.File(".wh.e", "").File("e/new", "n");
  tar.Dir("f/").File(".wh.f", "").File("g", "mine").File(".wh.g", "");
  tar.File(".wh.h", "").File("h", "mine");
  REQUIRE(bench.Layer(tar.Done()).ok());
  CHECK(bench.IsWhiteout("a/gone"));
  CHECK(bench.IsOpaque("b"));
  CHECK(bench.Text("b/new") == "n");
  CHECK_FALSE(os::Exists(bench.Top("c/.wh..wh.plnk")));
  CHECK(bench.IsOpaque("d"));
  CHECK(bench.IsOpaque("e"));
  CHECK(bench.Text("e/new") == "n");
  CHECK(bench.IsOpaque("f"));
  CHECK(bench.Text("g") == "mine");
  CHECK(bench.Text("h") == "mine");
  CHECK_FALSE(bench.IsOpaque("a"));
}

TEST_CASE("A directory that a layer only implies looks as in the layers below") {
  Bench bench;
  TarWriter low;
  low.Dir("./", {.mode = 0711, .mtime = 77}).Dir("home/", {.mode = 0700, .uid = 5, .mtime = 99});
  low.Dir("home/joe/", {.mode = 0750, .uid = 1000, .gid = 1000, .mtime = 42});
  REQUIRE(bench.Layer(low.Done()).ok());
  REQUIRE(bench.Layer(TarWriter().File("other", "x").Done()).ok());
  REQUIRE(
      bench.Layer(TarWriter().File("home/joe/.profile", "hi").File("new/dir/f", "").Done()).ok());
  const struct stat joe = bench.Info("home/joe");
  CHECK((joe.st_mode & 07777U) == 0750);
  CHECK(joe.st_uid == 1000);
  CHECK(joe.st_mtime == 42);
  CHECK(bench.Info("home").st_uid == 5);
  CHECK((bench.Info(".").st_mode & 07777U) == 0711);
  CHECK((bench.Info("new/dir").st_mode & 07777U) == 0755);
}

TEST_CASE("A hard link to a file of a lower layer copies it up, as the overlay shows it") {
  Bench bench;
  TarWriter low;
  low.File("bin/busybox", "elf", {.mode = 0755, .uid = 3, .mtime = 50}).File("bin/old", "o");
  low.Dir("gone/").File("gone/f", "x");
  REQUIRE(bench.Layer(low.Done()).ok());
  REQUIRE(
      bench.Layer(TarWriter().File("bin/.wh.old", "").File("gone/.wh..wh..opq", "").Done()).ok());
  SECTION("found") {
    REQUIRE(
        bench
            .Layer(
                TarWriter().HardLink("bin/sh", "bin/busybox").HardLink("ls", "bin/busybox").Done())
            .ok());
    CHECK(bench.Text("bin/sh") == "elf");
    CHECK(bench.Info("bin/sh").st_ino == bench.Info("bin/busybox").st_ino);
    CHECK(bench.Info("ls").st_nlink == 3);
    CHECK(bench.Info("ls").st_uid == 3);
    CHECK(bench.Info("ls").st_mtime == 50);
  }
  SECTION("a target that comes later in the archive") {
    REQUIRE(bench.Layer(TarWriter().HardLink("l", "later").File("later", "z").Done()).ok());
    CHECK(bench.Text("l") == "z");
  }
  SECTION("deleted, hidden or never there") {
    for (const char* target : {"bin/old", "gone/f", "nowhere", "bin"})
      CHECK_FALSE(bench.Layer(TarWriter().HardLink("l", target).Done()).ok());
  }
}

TEST_CASE("Of two entries with one name the later holds") {
  Bench bench;
  TarWriter tar;
  tar.File("f", "one").File("f", "two").Dir("d/").File("d/in", "x").File("d", "a file now");
  tar.File("g", "file").Dir("g/").File("g/in", "x").Symlink("s", "a").Symlink("s", "b");
  tar.Dir("k/", {.mode = 0700}).File("k/in", "x").Dir("k/", {.mode = 0711});
  REQUIRE(bench.Layer(tar.Done()).ok());
  CHECK(bench.Text("f") == "two");
  CHECK(bench.Text("d") == "a file now");
  CHECK(bench.Text("g/in") == "x");
  CHECK(*os::ReadLink(bench.Top("s")) == "b");
  CHECK(bench.Text("k/in") == "x");
  CHECK((bench.Info("k").st_mode & 07777U) == 0711);
}

TEST_CASE("No archive gets out of its directory") {
  Bench bench;
  const std::string victim = bench.root.Write("victim/file", "untouched");
  const std::string outside = bench.root / "victim";
  SECTION("by dot dot") {
    CHECK(bench.Layer(TarWriter().File("../victim/file", "x").Done()).code() ==
          Code::kInvalidArgument);
    CHECK_FALSE(bench.Layer(TarWriter().File("a/../../victim/file", "x").Done()).ok());
    CHECK_FALSE(bench.Layer(TarWriter().HardLink("h", "../victim/file").Done()).ok());
    CHECK_FALSE(bench.Layer(TarWriter().Dir("..").Done()).ok());
    CHECK_FALSE(bench.Layer(TarWriter().File(".wh...", "").Done()).ok());
  }
  SECTION("by a symbolic link as parent, absolute or not: the layer is its root") {
    for (const std::string& target : {outside, std::string("../victim"), std::string("/")}) {
      CAPTURE(target);
      const std::string inside = target == "../victim" ? "victim" : target;
      REQUIRE(bench.Layer(TarWriter().Symlink("s", target).File("s/file", "x").Done()).ok());
      CHECK(bench.Text(inside + "/file") == "x");
      CHECK(*os::ReadLink(bench.Top("s")) == target);
      REQUIRE(bench.Layer(TarWriter().Symlink("s", target).Dir("s/sub/").Done()).ok());
      CHECK(os::IsDirectory(bench.Top(inside + "/sub")));
      CHECK_FALSE(
          bench.Layer(TarWriter().Symlink("s", target).HardLink("h", "s/none").Done()).ok());
      REQUIRE(bench.Layer(TarWriter().Symlink("s", target).File("s/.wh.file", "").Done()).ok());
      CHECK(bench.IsWhiteout(inside + "/file"));
      REQUIRE(bench.Layer(TarWriter().Symlink("s", target).File("s/.wh..wh..opq", "").Done()).ok());
      CHECK(bench.IsOpaque(inside));
    }
  }
  SECTION("by links that lead to each other, or to a very long name") {
    TarWriter loop;
    loop.Symlink("a", "b").Symlink("b", "a").File("a/file", "x");
    CHECK(bench.Layer(loop.Done()).code() == Code::kInvalidArgument);
    TarWriter grows;
    grows.Symlink("a", "a/" + std::string(90, 'x')).File("a/file", "x");
    CHECK_FALSE(bench.Layer(grows.Done()).ok());
  }
  SECTION("by a link that is written through") {
    CHECK(bench.Layer(TarWriter().Symlink("s", victim).File("s", "mine").Done()).ok());
    CHECK(bench.Text("s") == "mine");
    CHECK(bench.Layer(TarWriter().Symlink("s", outside).Dir("s/", {.mode = 0777}).Done()).ok());
    CHECK(bench.Layer(TarWriter().Symlink("s", victim).HardLink("h", "s").Done()).ok());
  }
  SECTION("by an absolute name, which is one inside") {
    CHECK(bench.Layer(TarWriter().File("/etc/inside", "x").HardLink("/h", "/etc/inside").Done())
              .ok());
    CHECK(bench.Text("etc/inside") == "x");
  }
  SECTION("by a link into a lower layer") {
    REQUIRE(bench.Layer(TarWriter().Symlink("s", outside).Done()).ok());
    CHECK_FALSE(bench.Layer(TarWriter().HardLink("h", "s/file").Done()).ok());
  }
  CHECK(bench.root.Read("victim/file") == "untouched");
  CHECK(os::ListDir(outside)->size() == 1);
  struct stat info {};
  REQUIRE(::stat(victim.c_str(), &info) == 0);
  CHECK(info.st_nlink == 1);
}

TEST_CASE("What would speak to the kernel in our name is refused or left out") {
  Bench bench;
  CHECK(bench.Layer(TarWriter().Device("w", '3', 0, 0).Done()).code() == Code::kInvalidArgument);
  TarWriter tar;
  tar.File("f", "",
           {.pax = {{"SCHILY.xattr.user.overlay.opaque", "y"},
                    {"SCHILY.xattr.trusted.overlay.opaque", "y"},
                    {"SCHILY.xattr.security.selinux", "x"},
                    {"SCHILY.xattr.user.mine", "kept"}}});
  tar.Device("null", '3', 1, 3);
  REQUIRE(bench.Layer(tar.Done()).ok());
  std::array<char, 256> names{};
  const ssize_t size = ::llistxattr(bench.Top("f").c_str(), names.data(), names.size());
  REQUIRE(size > 0);
  CHECK(std::string(names.data(), static_cast<std::size_t>(size)) ==
        std::string("user.mine\0", 10));
  CHECK(bench.Info("null").st_rdev == ::makedev(1, 3));
}

TEST_CASE("A layer larger than allowed is refused before it is written") {
  Bench bench;
  CHECK(bench.Layer(TarWriter().File("f", std::string(100'000, 'x')).Done(), {.max_size = KiB(64)})
            .code() == Code::kResourceExhausted);
  CHECK_FALSE(
      bench.Layer(TarWriter().File("f", "", {.pax = {{"path", std::string(300, 'n')}}}).Done())
          .ok());
}

}  // namespace
}  // namespace crisp::imaged
