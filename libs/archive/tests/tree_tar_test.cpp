#include "libs/archive/tree_tar.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "libs/os/files.h"
#include "libs/testing/test_root.h"

namespace crisp::archive {
namespace {

const CallContext kCall = CallContext::Background(std::chrono::seconds(10), "test");

std::string Tar(const std::string& dir, const Shape& shape) {
  std::string tar;
  const Status written =
      WriteTree(kCall, *ReadDirectory(dir), shape, [&tar](std::string_view bytes) {
        tar += bytes;
        return Status::Ok();
      });
  INFO(written.ToString());
  REQUIRE(written.ok());
  return tar;
}

std::vector<std::string> Names(const std::string& tar) {
  StringSource source(tar, 1000);
  TarReader reader(source);
  std::vector<std::string> names;
  TarEntry entry;
  while (reader.Next(entry).value()) {
    names.push_back(entry.path + (entry.link.empty() ? "" : " -> " + entry.link));
  }
  return names;
}

TEST_CASE("A tree as a tar has its members in order, each file's contents once") {
  const testing::TestRoot root;
  root.Write("b/file", "contents");
  root.Write("a", std::string(100'000, 'x'));
  REQUIRE(::link((root / "a").c_str(), (root / "b/again").c_str()) == 0);
  REQUIRE(os::Symlink("/etc/passwd", root / "c").ok());
  REQUIRE(::mkfifo((root / "d").c_str(), 0600) == 0);
  const auto all = [](TarEntry&) -> Result<Shaped> { return Shaped{}; };
  const std::string tar = Tar(root.path(), all);
  CHECK(Names(tar) == std::vector<std::string>{"./", "a", "b/", "b/again -> a", "b/file",
                                               "c -> /etc/passwd", "d"});
  CHECK(tar == Tar(root.path(), all));
}

TEST_CASE("What is not wanted of a tree is left out, and may be replaced") {
  const testing::TestRoot root;
  root.Write("keep/file", "");
  root.Write("drop/file", "");
  const auto shape = [](TarEntry& entry) -> Result<Shaped> {
    if (entry.path == "./") return Shaped{.itself = false};
    if (entry.path == "keep") return Shaped{.after = {{.path = "keep/more", .mode = 0644}}};
    return Shaped{.wanted = entry.path != "drop"};
  };
  CHECK(Names(Tar(root.path(), shape)) ==
        std::vector<std::string>{"keep/", "keep/more", "keep/file"});
}

TEST_CASE("The first failure ends the writing of a tree") {
  const testing::TestRoot root;
  root.Write("file", "");
  const auto all = [](TarEntry&) -> Result<Shaped> { return Shaped{}; };
  const Status full = WriteTree(kCall, *ReadDirectory(root.path()), all,
                                [](std::string_view) { return ResourceExhausted("full"); });
  CHECK(full.code() == Code::kResourceExhausted);
}

}  // namespace
}  // namespace crisp::archive
