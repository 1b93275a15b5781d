// The unpacker's odd forms: what a layer may look like beyond plain files, and what it costs.
#include <sys/wait.h>
#include <unistd.h>

#include "libs/os/confine.h"
#include "services/imaged/tests/unpack_bench.h"

namespace crisp::imaged {
namespace {

using archive::testing::TarWriter;
using testing::Bench;

/// One extended attribute, "" when absent.
std::string Xattr(const std::string& path, const char* name) {
  std::array<char, 4096> value{};
  const ssize_t size = ::lgetxattr(path.c_str(), name, value.data(), value.size());
  return size < 0 ? "" : std::string(value.data(), static_cast<std::size_t>(size));
}

TEST_CASE("A name that goes up and stays inside is the name without it") {
  Bench bench;
  TarWriter tar;
  tar.File("a/../b", "x").File("./c//d/./e", "y").HardLink("f", "c/../b").Dir("g/../h/");
  REQUIRE(bench.Layer(tar.Done()).ok());
  CHECK(bench.Text("b") == "x");
  CHECK(bench.Text("c/d/e") == "y");
  CHECK(bench.Info("f").st_ino == bench.Info("b").st_ino);
  CHECK(os::IsDirectory(bench.Top("h")));
  CHECK_FALSE(os::Exists(bench.Top("a")));
}

TEST_CASE("A path through a link of the same layer goes where the link leads") {
  Bench bench;
  TarWriter tar;
  tar.Dir("usr/").Dir("usr/lib/").Symlink("lib", "usr/lib").File("lib/a.so", "a");
  tar.Symlink("usr/up", "../usr/./lib").File("usr/up/b.so", "b").HardLink("h", "lib/a.so");
  tar.Symlink("late", "not/yet").File("late/c", "c").Symlink("abs", "/usr").File("abs/d", "d");
  tar.File("lib/a.so", "second");
  REQUIRE(bench.Layer(tar.Done()).ok());
  CHECK(bench.Text("usr/lib/a.so") == "second");
  CHECK(bench.Text("usr/lib/b.so") == "b");
  CHECK(bench.Text("h") == "a");
  CHECK(bench.Text("not/yet/c") == "c");
  CHECK(bench.Text("usr/d") == "d");
  CHECK(*os::ReadLink(bench.Top("lib")) == "usr/lib");
}

TEST_CASE("A path through a link of a layer below goes where the link leads") {
  Bench bench;
  TarWriter low;
  low.Dir("usr/").Dir("usr/lib/", {.mode = 0711, .gid = 7}).File("usr/lib/old", "old");
  low.Symlink("lib", "usr/lib").Symlink("abs", "/usr/lib/sub").Symlink("chain", "abs");
  low.Symlink("nowhere", "not/yet").Symlink("round", "round/x").Symlink("top", "/");
  low.Symlink("up", "../../../../up-there");
  REQUIRE(bench.Layer(low.Done()).ok());
  TarWriter tar;
  SECTION("files, directories, deletions and hard links") {
    tar.File("lib/new", "new", {.mode = 0600, .uid = 5}).File("lib/.wh.old", "");
    tar.Dir("lib/deep/", {.mode = 0750, .uid = 3, .mtime = 77}).File("lib/deep/er/f", "f");
    tar.File("chain/c", "c").File("nowhere/n", "n").File("top/t", "t").File("up/u", "u");
    tar.HardLink("linked", "lib/new").HardLink("low-linked", "chain/none-yet");
    tar.File("usr/lib/sub/none-yet", "later");
    REQUIRE(bench.Layer(tar.Done()).message() == "");
    CHECK(bench.Text("usr/lib/new") == "new");
    CHECK(bench.Info("usr/lib/new").st_uid == 5);
    CHECK(bench.IsWhiteout("usr/lib/old"));
    CHECK(bench.Info("usr/lib/deep").st_uid == 3);
    CHECK(bench.Info("usr/lib/deep").st_mtim.tv_sec == 77);
    CHECK(bench.Text("usr/lib/deep/er/f") == "f");
    CHECK(bench.Text("usr/lib/sub/c") == "c");
    CHECK(bench.Text("not/yet/n") == "n");
    CHECK(bench.Text("t") == "t");
    CHECK(bench.Text("up-there/u") == "u");
    CHECK(bench.Info("linked").st_ino == bench.Info("usr/lib/new").st_ino);
    CHECK(bench.Text("low-linked") == "later");
    // The links are still to be seen, and the directory is as it was.
    for (const char* link : {"lib", "abs", "chain", "nowhere", "top", "up"})
      CHECK_FALSE(os::Exists(bench.Top(link)));
    CHECK((bench.Info("usr/lib").st_mode & 07777U) == 0711);
    CHECK(bench.Info("usr/lib").st_gid == 7);
    const auto measured = MeasureTree(bench.layers.front());
    CHECK(measured->inodes == bench.usage.inodes);
    CHECK(measured->bytes == bench.usage.bytes);
  }
  SECTION("what is called so itself stays, and a deletion hides nothing of the layer") {
    tar.File("usr/lib/same", "by name").File("lib/same", "by link");
    tar.File("usr/lib/.wh.old", "").File("lib/old", "new");
    tar.Dir("usr/lib/both/").File("usr/lib/both/a", "a").File("lib/both/b", "b");
    REQUIRE(bench.Layer(tar.Done()).message() == "");
    CHECK(bench.Text("usr/lib/same") == "by name");
    CHECK(bench.Text("usr/lib/old") == "new");
    CHECK(bench.Text("usr/lib/both/a") == "a");
    CHECK(bench.Text("usr/lib/both/b") == "b");
  }
  SECTION("a link that the layer deletes or replaces is none any more") {
    tar.File(".wh.lib", "").File("lib/own", "own").Dir("abs/").File("abs/own", "own");
    REQUIRE(bench.Layer(tar.Done()).message() == "");
    CHECK(bench.Text("lib/own") == "own");
    CHECK(bench.Text("abs/own") == "own");
    CHECK_FALSE(os::Exists(bench.Top("usr")));
  }
  SECTION("links that lead to themselves") {
    CHECK(bench.Layer(tar.File("round/f", "").Done()).code() == Code::kInvalidArgument);
  }
}

TEST_CASE("What lies in a directory with setgid has the group that its entry says") {
  Bench bench;
  TarWriter low;
  low.Dir("local/", {.mode = 02775, .gid = 50}).File("local/file", "", {.mode = 0644});
  low.Dir("local/sub/", {.mode = 0755}).File("local/implied/file", "").Symlink("local/link", "x");
  REQUIRE(bench.Layer(low.Done()).ok());
  CHECK(bench.Info("local").st_gid == 50);
  CHECK((bench.Info("local").st_mode & 07777U) == 02775);
  for (const char* path : {"local/file", "local/sub", "local/implied", "local/link"})
    CHECK(bench.Info(path).st_gid == 0);
  CHECK((bench.Info("local/sub").st_mode & 07777U) == 0755);
  CHECK((bench.Info("local/implied").st_mode & 07777U) == 0755);
  // The same where the directory is only implied in the layer above.
  REQUIRE(bench.Layer(TarWriter().File("local/new", "").Done()).ok());
  CHECK((bench.Info("local").st_mode & 07777U) == 02775);
  CHECK(bench.Info("local/new").st_gid == 0);
}

TEST_CASE("Opaque marks hold before and after their directory, and at the root") {
  Bench bench;
  TarWriter low;
  low.File("old", "x").Dir("dir/").File("dir/old", "x").File("both/old", "x");
  REQUIRE(bench.Layer(low.Done()).ok());
  TarWriter tar;
  tar.File("a/.wh..wh..opq", "").Dir("a/", {.mode = 0700, .mtime = 9}).File("a/f", "1");
  tar.Dir("b/").File("b/f", "1").File("b/.wh..wh..opq", "");
  REQUIRE(bench.Layer(tar.Done()).ok());
  CHECK(bench.IsOpaque("a"));
  CHECK(bench.Info("a").st_mtime == 9);
  CHECK(bench.IsOpaque("b"));
  REQUIRE(bench.Layer(TarWriter().File(".wh..wh..opq", "").File("both/new", "n").Done()).ok());
  for (const char* name : {"old", "dir", "a", "b"}) CHECK(bench.IsWhiteout(name));
  CHECK(bench.IsOpaque("both"));
  CHECK(bench.Text("both/new") == "n");
}

TEST_CASE("File capabilities stay, other words to the kernel do not") {
  Bench bench;
  const std::string capability("\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
  TarWriter tar;
  tar.File("ping", "elf",
           {.mode = 04755,
            .uid = 9,
            .pax = {{"SCHILY.xattr.security.capability", capability},
                    {"SCHILY.xattr.system.posix_acl_access", std::string("\2\0\0\0", 4)},
                    {"SCHILY.xattr.security.ima", "x"},
                    {"SCHILY.xattr.user.empty", ""}}});
  tar.Dir("dir/", {.mode = 0755, .pax = {{"SCHILY.xattr.user.on.dir", "d"}}});
  REQUIRE(bench.Layer(tar.Done()).ok());
  CHECK(Xattr(bench.Top("ping"), "security.capability") == capability);
  CHECK((bench.Info("ping").st_mode & 07777U) == 04755);
  CHECK(Xattr(bench.Top("dir"), "user.on.dir") == "d");
  std::array<char, 256> names{};
  const ssize_t size = ::llistxattr(bench.Top("ping").c_str(), names.data(), names.size());
  const std::string all(names.data(), static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
  CHECK(all.find("ima") == std::string::npos);
  CHECK(all.find("acl") == std::string::npos);
  CHECK(all.find("user.empty") != std::string::npos);
}

TEST_CASE("A sparse file has its holes") {
  Bench bench;
  const std::string size = std::to_string(8 << 20);
  TarWriter tar;
  tar.File("s", "headtail",
           {.mode = 0640,
            .uid = 5,
            .pax = {{"GNU.sparse.size", size}, {"GNU.sparse.map", "0,4,8388600,4"}}});
  REQUIRE(bench.Layer(tar.Done()).ok());
  const std::string text = os::ReadFile(bench.Top("s"), MiB(9)).value();
  CHECK(text.size() == 8U << 20U);
  CHECK(text.starts_with("head"));
  CHECK(text.substr(8388600, 4) == "tail");
  CHECK(std::count(text.begin(), text.end(), '\0') == (8 << 20) - 8);
  CHECK(bench.Info("s").st_blocks * 512 < 64 << 10);
  CHECK(bench.usage.bytes < 64U << 10U);
  // It counts in full where size is limited: a reader gets all of it.
  CHECK(bench.Layer(tar.Done(), {.max_size = MiB(1)}).code() == Code::kResourceExhausted);
}

TEST_CASE("Depth, names, files and bytes of a layer are bounded") {
  Bench bench;
  std::string deep;
  for (int i = 0; i < 300; ++i) deep += "d/";
  CHECK(bench.Layer(TarWriter().File("x", "", {.pax = {{"path", deep + "f"}}}).Done()).code() ==
        Code::kResourceExhausted);
  CHECK(bench.Layer(TarWriter().File("x", "", {.pax = {{"path", std::string(256, 'n')}}}).Done())
            .code() == Code::kResourceExhausted);
  REQUIRE(bench.Layer(TarWriter().File("x", "", {.pax = {{"path", std::string(255, 'n')}}}).Done())
              .ok());
  TarWriter many;
  for (int i = 0; i < 20; ++i) many.File(fmt::format("implied{}/f", i), "");
  CHECK(bench.Layer(many.Done(), {.max_inodes = 41}).ok());
  CHECK(bench.Layer(many.Done(), {.max_inodes = 40}).code() == Code::kResourceExhausted);
}

TEST_CASE("What must be remembered of an archive is bounded") {
  const std::string name(200, 'n');
  const auto refused = [&name](int kind, int count) {
    Bench bench;
    TarWriter tar;
    for (int i = 0; i < count; ++i) {
      const std::string each = fmt::format("{}{}", name, i);
      if (kind == 0) tar.File("x", "", {.pax = {{"path", each + "/f"}}});
      if (kind == 1) tar.Dir("x/", {.mode = 0755, .pax = {{"path", each + "/"}}});
      if (kind == 2) tar.File("x", "", {.pax = {{"path", ".wh." + each}}});
      if (kind == 3) tar.HardLink(each.substr(120), "later");
    }
    tar.File("later", "");
    return bench.Layer(tar.Done(), {.max_names = KiB(64)}).code() == Code::kResourceExhausted;
  };
  for (int kind = 0; kind < 4; ++kind) {
    CAPTURE(kind);
    CHECK_FALSE(refused(kind, 20));
    CHECK(refused(kind, 400));
  }
}

TEST_CASE("What is copied up and what is a hole counts where size is limited") {
  Bench bench;
  const auto sparse = [](const char* name, TarWriter& tar) {
    tar.File(name, "ht",
             {.pax = {{"GNU.sparse.size", "8388608"}, {"GNU.sparse.map", "0,1,8388607,1"}}});
  };
  TarWriter low;
  sparse("s", low);
  REQUIRE(bench.Layer(low.Done()).ok());
  TarWriter two;
  sparse("a", two);
  sparse("b", two);
  CHECK(bench.Layer(two.Done(), {.max_size = MiB(16)}).ok());
  CHECK(bench.Layer(two.Done(), {.max_size = MiB(15)}).code() == Code::kResourceExhausted);
  const std::string link = TarWriter().HardLink("l", "s").Done();
  CHECK(bench.Layer(link, {.max_size = MiB(7)}).code() == Code::kResourceExhausted);
  CHECK(bench.Layer(link, {}, CallContext::Background(std::chrono::seconds(0))).code() ==
        Code::kDeadlineExceeded);
  REQUIRE(bench.Layer(link).ok());
  CHECK(bench.Info("l").st_size == 8 << 20);
  CHECK(bench.Info("l").st_blocks * 512 < 64 << 10);  // its hole is one here, too
  REQUIRE(os::RemoveTree(bench.layers.front()).ok());
  CHECK(bench.Layer(link).code() == Code::kAborted);  // whoever pulls looks again
}

TEST_CASE("What a layer takes on disk is what du says") {
  Bench bench;
  TarWriter tar;
  tar.File("big", std::string(1'000'001, 'b')).File("small", "s").HardLink("link", "big");
  for (int i = 0; i < 300; ++i) tar.File(fmt::format("many/with-a-longer-name-{}", i), "x");
  tar.Symlink("short", "s").Symlink("long", std::string(200, 'l')).File("implied/dir/f", "");
  tar.File("sparse", "x", {.pax = {{"GNU.sparse.size", "9999999"}, {"GNU.sparse.map", "0,1"}}});
  SECTION("each entry once") {}
  SECTION("some replaced") {
    tar.File("small", std::string(50'000, 's')).File("many", "a file now").File("big", "x");
  }
  REQUIRE(bench.Layer(tar.Done()).ok());
  const Usage measured = MeasureTree(bench.Top("")).value();
  CHECK(bench.usage.bytes == measured.bytes);
  CHECK(bench.usage.inodes == measured.inodes);
}

TEST_CASE("Times before 1970, in nanoseconds and beyond 2038 are kept") {
  Bench bench;
  TarWriter tar;
  tar.File("old", "", {.pax = {{"mtime", "-86400.5"}}});
  tar.File("fine", "", {.pax = {{"mtime", "1600000000.123456789"}}});
  tar.File("far", "", {.pax = {{"mtime", "4102444800"}}});
  tar.Dir("dir/", {.mode = 0755, .pax = {{"mtime", "-1"}}}).File("dir/f", "");
  REQUIRE(bench.Layer(tar.Done()).ok());
  CHECK(bench.Info("old").st_mtim.tv_sec == -86401);
  CHECK(bench.Info("old").st_mtim.tv_nsec == 500'000'000);
  CHECK(bench.Info("fine").st_mtim.tv_nsec == 123'456'789);
  CHECK(bench.Info("far").st_mtim.tv_sec == 4102444800);
  CHECK(bench.Info("dir").st_mtim.tv_sec == -1);
}

TEST_CASE("A hard link to a symbolic link is that link, one to itself is nothing") {
  Bench bench;
  TarWriter tar;
  tar.Symlink("s", "nowhere").HardLink("h", "s").File("f", "1").HardLink("f", "f").Dir("d/");
  REQUIRE(bench.Layer(tar.Done()).ok());
  CHECK(*os::ReadLink(bench.Top("h")) == "nowhere");
  CHECK(bench.Info("h").st_ino == bench.Info("s").st_ino);
  CHECK(bench.Text("f") == "1");
  CHECK_FALSE(bench.Layer(TarWriter().Dir("d/").HardLink("h", "d").Done()).ok());
  CHECK_FALSE(bench.Layer(TarWriter().HardLink("h", "/").Done()).ok());
}

TEST_CASE("A hard link means the file that was there when its turn came") {
  Bench bench;
  TarWriter low;
  low.File("old", "content").Dir("d/").File("d/f", "deep").File("both", "theirs");
  low.Dir("o/").File("o/f", "hidden later");
  REQUIRE(bench.Layer(low.Done()).ok());
  TarWriter tar;
  tar.HardLink("new", "old").HardLink("new2", "new").File(".wh.old", "");
  tar.HardLink("kept", "d/f").File(".wh.d", "");
  tar.HardLink("was", "both").File("both", "mine");
  tar.Dir("o/").HardLink("from-o", "o/f").File("o/.wh..wh..opq", "");
  tar.HardLink("over", "both").File("over", "later");
  REQUIRE(bench.Layer(tar.Done()).message() == "");
  CHECK(bench.Text("new") == "content");
  CHECK(bench.Info("new").st_ino == bench.Info("new2").st_ino);
  CHECK(bench.Info("new").st_nlink == 2);
  CHECK(bench.IsWhiteout("old"));
  CHECK(bench.Text("kept") == "deep");
  CHECK(bench.IsWhiteout("d"));
  CHECK(bench.Text("was") == "theirs");
  CHECK(bench.Text("both") == "mine");
  CHECK(bench.Text("from-o") == "hidden later");
  CHECK_FALSE(os::Exists(bench.Top("o/f")));
  CHECK(bench.Text("over") == "later");
  CHECK_FALSE(bench.Layer(TarWriter().File(".wh.new", "").HardLink("l", "new").Done()).ok());
}

TEST_CASE("Anything may replace anything") {
  Bench bench;
  const auto put = [](TarWriter& tar, int kind) {
    switch (kind) {
      case 0: tar.File("x", "file"); break;
      case 1: tar.Dir("x/").File("x/in", "1"); break;
      case 2: tar.Symlink("x", "target"); break;
      case 3: tar.Other("x", '6'); break;
      case 4: tar.Device("x", '3', 1, 3); break;
      case 5: tar.File("other", "o").HardLink("x", "other"); break;
      default: tar.File(".wh.x", ""); break;
    }
  };
  for (int first = 0; first < 7; ++first)
    for (int second = 0; second < 6; ++second) {
      CAPTURE(first, second);
      TarWriter tar;
      put(tar, first);
      put(tar, second);
      REQUIRE(bench.Layer(tar.Done()).ok());
      const mode_t kind = bench.Info("x").st_mode & S_IFMT;
      constexpr std::array<mode_t, 6> kKinds = {S_IFREG, S_IFDIR, S_IFLNK,
                                                S_IFIFO, S_IFCHR, S_IFREG};
      CHECK(kind == kKinds.at(static_cast<std::size_t>(second)));
      if (second == 1) CHECK(bench.Text("x/in") == "1");
      if (first == 6 && second == 1) CHECK(bench.IsOpaque("x"));
      if (first == 5 && second != 5) CHECK(bench.Text("other") == "o");
    }
  // Nothing but the directory's own goes with it.
  TarWriter tar;
  for (const char* name : {"x/", "x/in/", "x-y/", "x.y/", "x0/"})
    tar.Dir(name, {.mode = 0755, .mtime = 77});
  tar.File("x/.wh.w", "").File("x", "a file now").File("x-y/f", "").File("x0/f", "");
  REQUIRE(bench.Layer(tar.Done()).ok());
  CHECK(bench.Text("x") == "a file now");
  for (const char* name : {"x-y", "x.y", "x0"}) CHECK(bench.Info(name).st_mtime == 77);
}

TEST_CASE("A confined unpacker leaves out devices that would open the machine") {
  Bench bench;
  const std::string layer = bench.root / "confined";
  REQUIRE(os::MakeDirs(layer).ok());
  TarWriter tar;
  tar.Device("null", '3', 1, 3).Device("mem", '3', 1, 1).Device("disk", '4', 8, 0);
  tar.File("f", "x", {.mode = 04755, .uid = 1000, .gid = 1000});
  const std::string archive = tar.Done();
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const auto confined =
        os::Confine({.capabilities = {"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD"},
                     .read = {"/proc"},
                     .write = {layer}});
    if (!confined.ok()) ::_exit(2);
    Result<Unpacker> unpacker = Unpacker::Create(layer, {});
    archive::StringSource source(archive);
    archive::TarReader reader(source);
    if (!unpacker.ok() || !unpacker->Unpack(reader).ok() ||
        !unpacker->Finish(CallContext::Background(std::chrono::minutes(1)), {}).ok())
      ::_exit(3);
    ::_exit(unpacker->devices_left_out() == 2 ? 0 : 4);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(os::Exists(layer + "/null"));
  CHECK_FALSE(os::Exists(layer + "/mem"));
  CHECK_FALSE(os::Exists(layer + "/disk"));
  struct stat info {};
  REQUIRE(::stat((layer + "/f").c_str(), &info) == 0);
  CHECK((info.st_mode & 07777U) == 04755);
  CHECK(info.st_uid == 1000);
}

}  // namespace
}  // namespace crisp::imaged
