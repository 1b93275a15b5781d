#include "libs/os/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "libs/os/atomic_file.h"
#include "libs/os/beneath.h"
#include "libs/os/file_lock.h"
#include "libs/os/file_stamp.h"
#include "libs/os/temp_dir.h"

namespace crisp::os {
namespace {

TempDir Temp() {
  auto dir = TempDir::Create("/tmp/crisp-os-");
  REQUIRE(dir.ok());
  return std::move(dir).value();
}

TEST_CASE("A descriptor is closed once, by its last owner") {
  auto opened = Open("/dev/null", O_RDONLY);
  REQUIRE(opened.ok());
  UniqueFd fd = std::move(opened).value();
  const int number = fd.get();
  CHECK(::fcntl(number, F_GETFD) == FD_CLOEXEC);
  UniqueFd other = std::move(fd);
  CHECK_FALSE(fd.valid());  // NOLINT(bugprone-use-after-move)
  other.reset();
  CHECK(::fcntl(number, F_GETFD) == -1);
}

TEST_CASE("Files are written, appended, read back, and bounded") {
  const TempDir dir = Temp();
  const std::string path = dir.path() + "/f";
  CHECK(WriteFile(path, "one", 0600).ok());
  CHECK(AppendFile(path, " two").ok());
  CHECK(ReadFile(path).value() == "one two");
  CHECK(ReadFile(path, Bytes(7)).ok());
  CHECK(ReadFile(path, Bytes(6)).code() == Code::kResourceExhausted);
  CHECK(ReadFile(dir.path() + "/none").code() == Code::kNotFound);
  CHECK(ReadFile("/proc/self/stat").ok());
  CHECK(WriteExisting(dir.path() + "/none", "x").code() == Code::kNotFound);
  CHECK(ListDir(dir.path()).value() == std::vector<std::string>{"f"});
  CHECK(RemoveFile(path).ok());
  CHECK(RemoveFile(path).ok());
  CHECK(BootId().value().size() == 36);
}

TEST_CASE("A place in a file is read whole, or not at all") {
  const TempDir dir = Temp();
  const std::string path = dir.path() + "/f";
  REQUIRE(WriteFile(path, "0123456789").ok());
  const auto fd = Open(path, O_RDONLY);
  REQUIRE(fd.ok());
  std::string text(4, ' ');
  CHECK(ReadAt(fd->get(), 3, text, "f").ok());
  CHECK(text == "3456");
  CHECK(ReadAt(fd->get(), 8, text, "f").code() == Code::kDataLoss);
  CHECK(ReadAt(-1, 0, text, "f").message().find("read f") == 0);
}

TEST_CASE("A file's stamp changes when it is written, replaced, or gone") {
  const TempDir dir = Temp();
  const std::string path = dir.path() + "/f";
  const std::string link = dir.path() + "/link";
  REQUIRE(::symlink("f", link.c_str()) == 0);
  CHECK(FileStamp(path).empty());
  CHECK(FileStamp(link).empty());
  REQUIRE(WriteFile(path, "one").ok());
  const std::string first = FileStamp(path);
  CHECK(FileStamp(path) == first);
  CHECK(FileStamp(link) == first);
  REQUIRE(WriteFile(path, "longer").ok());
  const std::string written = FileStamp(path);
  CHECK(written != first);
  REQUIRE(WriteFile(dir.path() + "/other", "longer").ok());
  REQUIRE(::rename((dir.path() + "/other").c_str(), path.c_str()) == 0);
  CHECK(FileStamp(link) != written);
}

TEST_CASE("A path is below a directory by whole names") {
  CHECK(IsAtOrBelow("/dev/shm", "/dev"));
  CHECK(IsAtOrBelow("/dev", "/dev"));
  CHECK_FALSE(IsAtOrBelow("/device", "/dev"));
  CHECK_FALSE(IsAtOrBelow("/", "/dev"));
  CHECK(IsAtOrBelow("/dev", "/"));
}

TEST_CASE("Directories are made whole, whatever the umask") {
  const TempDir dir = Temp();
  const mode_t before = ::umask(077);
  CHECK(MakeDirs(dir.path() + "/a/b//c/", 0755).ok());
  ::umask(before);
  struct stat info = {};
  REQUIRE(::stat((dir.path() + "/a/b/c").c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0755);
  CHECK(MakeDirs(dir.path() + "/a/b/c").ok());
  CHECK(WriteFile(dir.path() + "/a/file", "").ok());
  CHECK(MakeDirs(dir.path() + "/a/file").code() == Code::kInvalidArgument);
  CHECK(MakeDirs(dir.path() + "/a/file/x").code() == Code::kInvalidArgument);
}

TEST_CASE("RemoveTree takes all that is inside and follows no symlink") {
  const TempDir dir = Temp();
  CHECK(MakeDirs(dir.path() + "/keep").ok());
  CHECK(WriteFile(dir.path() + "/keep/file", "x").ok());
  CHECK(MakeDirs(dir.path() + "/t/a/b").ok());
  CHECK(Symlink(dir.path() + "/keep", dir.path() + "/t/a/link").ok());
  for (int i = 0; i < 500; ++i) CHECK(WriteFile(fmt::format("{}/t/a/{}", dir.path(), i), "").ok());
  CHECK(RemoveTree(dir.path() + "/t/").ok());
  CHECK_FALSE(Exists(dir.path() + "/t"));
  CHECK(Exists(dir.path() + "/keep/file"));
  CHECK(Symlink(dir.path() + "/keep", dir.path() + "/link").ok());
  CHECK(RemoveTree(dir.path() + "/link").ok());
  CHECK(Exists(dir.path() + "/keep/file"));
  CHECK(RemoveTree(dir.path() + "/none").ok());
  CHECK(RemoveTree("/").code() == Code::kInvalidArgument);
}

void MakeDeep(const std::string& path, int depth) {
  auto at = Open(path, O_RDONLY | O_DIRECTORY);
  REQUIRE(at.ok());
  for (int i = 0; i < depth; ++i) {
    REQUIRE(::mkdirat(at->get(), "deep", 0755) == 0);
    at = UniqueFd(::openat(at->get(), "deep", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    REQUIRE(at->valid());
  }
}

TEST_CASE("RemoveTree takes a tree that is deeper than any path may be") {
  const TempDir dir = Temp();
  MakeDeep(dir.path(), 3000);
  CHECK(RemoveTree(dir.path() + "/deep").ok());
  CHECK_FALSE(Exists(dir.path() + "/deep"));
}

TEST_CASE("A tree goes in pieces, however deep it is and whatever names are in it") {
  const TempDir dir = Temp();
  MakeDeep(dir.path(), 3000);
  for (int i = 0; i < 5; ++i)
    REQUIRE(MakeDirs(fmt::format("{}/deep/.deep-{}/x", dir.path(), i)).ok());
  int calls = 1;
  while (!RemoveSome(dir.path() + "/deep", 100).value()) ++calls;
  CHECK(calls >= 30);
  CHECK(calls < 60);
  CHECK_FALSE(Exists(dir.path() + "/deep"));
  CHECK(*RemoveSome(dir.path() + "/deep", 1));
}

TEST_CASE("An atomic write replaces the file and leaves nothing beside it") {
  const TempDir dir = Temp();
  const std::string path = dir.path() + "/f";
  CHECK(WriteFileAtomic(path, "one", 0640).ok());
  CHECK(WriteFileAtomic(path, "two", 0600, true).ok());
  CHECK(ReadFile(path).value() == "two");
  CHECK(ListDir(dir.path()).value().size() == 1);
  CHECK_FALSE(WriteFileAtomic(dir.path() + "/none/f", "x").ok());
}

TEST_CASE("Nothing outside a Beneath is reached") {
  const TempDir dir = Temp();
  CHECK(MakeDirs(dir.path() + "/in/sub").ok());
  CHECK(WriteFile(dir.path() + "/out", "secret").ok());
  CHECK(WriteFile(dir.path() + "/in/sub/file", "mine").ok());
  CHECK(Symlink("../out", dir.path() + "/in/link").ok());
  CHECK(Symlink("/sub", dir.path() + "/in/abs").ok());
  const auto in = Beneath::Open(dir.path() + "/in");
  REQUIRE(in.ok());
  CHECK(in->ReadFile("sub/file").value() == "mine");
  CHECK(in->ReadFile("sub/../sub/file").value() == "mine");
  for (const char* path : {"../out", "link", "/etc/passwd", "abs/file", "sub/../../out"}) {
    CHECK(in->ReadFile(path).code() == Code::kInvalidArgument);
  }
  const auto made = in->MakeDirs("x/y");
  REQUIRE(made.ok());
  CHECK(made->WriteFile("f", "t").ok());
  CHECK(ReadFile(dir.path() + "/in/x/y/f").value() == "t");
  CHECK_FALSE(in->MakeDirs("../z").ok());

  const auto root = Beneath::Open(dir.path() + "/in", Scope::kInRoot);
  REQUIRE(root.ok());
  CHECK(root->ReadFile("/abs/file").value() == "mine");
  CHECK(root->ReadFile("../../sub/file").value() == "mine");
  CHECK(root->ReadFile("link").code() == Code::kNotFound);
  CHECK(root->MakeDirs("abs/new").ok());
  CHECK(IsDirectory(dir.path() + "/in/sub/new"));
  CHECK(ReadFile(root->ProcPath() + "/sub/file").value() == "mine");
}

TEST_CASE("A TempDir goes unless it is released") {
  std::string gone;
  std::string kept;
  {
    TempDir one = Temp();
    TempDir two = Temp();
    CHECK(WriteFile(one.path() + "/f", "x").ok());
    gone = one.path();
    kept = two.Release();
  }
  CHECK_FALSE(Exists(gone));
  CHECK(Exists(kept));
  CHECK(RemoveTree(kept).ok());
}

TEST_CASE("A lock lasts as long as a copy of its descriptor, unless it is given back") {
  const TempDir dir = Temp();
  const std::string path = dir.path() + "/lock";
  UniqueFd copy;
  {
    const auto held = FileLock::TryLock(path);
    REQUIRE(held.ok());
    copy = UniqueFd(::dup(held->fd()));
  }
  CHECK(FileLock::TryLockShared(path).code() == Code::kUnavailable);
  copy.reset();
  auto held = FileLock::TryLock(path);
  REQUIRE(held.ok());
  copy = UniqueFd(::dup(held->fd()));
  held->Unlock();
  CHECK(FileLock::TryLock(path).ok());
}

TEST_CASE("A lock has one holder") {
  const TempDir dir = Temp();
  {
    const auto held = FileLock::TryLock(dir.path() + "/lock");
    REQUIRE(held.ok());
    CHECK(FileLock::TryLock(dir.path() + "/lock").code() == Code::kUnavailable);
  }
  CHECK(FileLock::TryLock(dir.path() + "/lock").ok());
  const auto shared = FileLock::TryLockShared(dir.path() + "/lock");
  CHECK(FileLock::TryLockShared(dir.path() + "/lock").ok());
  CHECK(FileLock::TryLock(dir.path() + "/lock").code() == Code::kUnavailable);
}

}  // namespace
}  // namespace crisp::os
