// Checkpoints as files: archives from outside, and the changes of a root file system.
#include "services/rund/runtime/checkpoint_archive.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>

#include "libs/archive/tar_writer.h"
#include "libs/os/files.h"
#include "libs/testing/test_root.h"
#include "services/rund/runtime/criu.h"
#include "services/rund/runtime/rootfs_diff.h"

namespace crisp::rund {
namespace {

using archive::EntryType;
using archive::TarEntry;

const CallContext kCall = CallContext::Background(std::chrono::seconds(10), "test");

struct Member {
  TarEntry entry;
  std::string contents = {};
};

std::string Tar(std::vector<Member> members) {
  std::string tar;
  for (Member& member : members) {
    member.entry.size = member.contents.size();
    if (member.entry.mode == 0) member.entry.mode = 0644;
    tar += archive::TarHeader(member.entry).value();
    tar += member.contents;
    tar += archive::TarPadding(member.contents.size());
  }
  return tar + archive::TarEnd();
}

std::vector<Member> Whole() {
  return {{{.path = "config.dump"},
           R"({"name":"c","rootfsImageRef":"abc","rootfsImageName":"busybox:1"})"},
          {{.path = "spec.dump"},
           R"({"mounts":[{"destination":"/data","type":"bind","source":"/x"},
                         {"destination":"/etc/hosts","type":"bind"},
                         {"destination":"/proc","type":"proc"}],
               "linux":{"maskedPaths":["/proc/kcore"]}})"},
          {{.type = EntryType::kDirectory, .path = "checkpoint/", .mode = 0755}},
          {{.path = "checkpoint/inventory.img"}, "images"}};
}

struct Unpacked {
  testing::TestRoot root;
  CheckpointDir dir{root / "staged"};
  Status status;
  explicit Unpacked(const std::vector<Member>& members)
      : status(UnpackCheckpoint(kCall, root.Write("a.tar", Tar(members)), dir)) {}
};

TEST_CASE("The place of an archive is checked before anything is done for it") {
  const testing::TestRoot root;
  root.Write("there", "");
  CHECK(CheckLocation(root / "new.tar").ok());
  const auto refused = [](const std::string& location, Code code, const std::string& word) {
    const Status status = CheckLocation(location);
    INFO(status.ToString());
    CHECK(status.code() == code);
    CHECK(status.message().find("location") != std::string::npos);
    CHECK(status.message().find(word) != std::string::npos);
  };
  refused("", Code::kInvalidArgument, "absolute");
  refused("a.tar", Code::kInvalidArgument, "absolute");
  refused(root / "x/../a.tar", Code::kInvalidArgument, "..");
  refused(root / "..", Code::kInvalidArgument, "..");
  refused(root.path(), Code::kInvalidArgument, "directory");
  refused(root / "new/", Code::kInvalidArgument, "directory");
  refused(root / "there", Code::kAlreadyExists, "there");
  refused(root / "missing/a.tar", Code::kFailedPrecondition, "missing");
}

TEST_CASE("An archive has what a checkpoint has, is root's alone, and replaces nothing") {
  const testing::TestRoot root;
  const CheckpointDir dir{root / "work"};
  root.Write("work/config.dump", "{}");
  root.Write("work/checkpoint/pages-1.img", "pages");
  root.Write("work/restore.log", "not of it");
  const std::string location = root / "a.tar";
  const std::string partial = PartialPath(location, "id");
  CHECK(partial == root / ".crisp-checkpoint-id");
  REQUIRE(PackCheckpoint(kCall, dir, partial, location).ok());
  CHECK_FALSE(os::Exists(partial));
  struct stat info {};
  REQUIRE(::stat(location.c_str(), &info) == 0);
  CHECK((info.st_mode & 0777U) == 0600);
  const CheckpointDir back{root / "back"};
  REQUIRE(UnpackCheckpoint(kCall, location, back).ok());
  CHECK(root.Read("back/checkpoint/pages-1.img") == "pages");
  CHECK(root.Read("back/config.dump") == "{}");
  CHECK_FALSE(os::Exists(root / "back/restore.log"));
  CHECK(PackCheckpoint(kCall, dir, partial, location).code() == Code::kAlreadyExists);
}

TEST_CASE("What a checkpoint needs is read from it") {
  Unpacked unpacked(Whole());
  REQUIRE(unpacked.status.ok());
  const auto facts = ReadFacts(unpacked.dir);
  REQUIRE(facts.ok());
  CHECK(facts->container_name == "c");
  CHECK(facts->image_id == "abc");
  CHECK(facts->image_name == "busybox:1");
  CHECK(facts->bind_mounts == std::vector<std::string>{"/data"});
  CHECK(facts->masked_paths == std::vector<std::string>{"/proc/kcore"});
  CHECK(ReadDeleted(unpacked.dir)->empty());
}

TEST_CASE("An archive that is no checkpoint says what it lacks") {
  const auto [without, word] =
      GENERATE(std::pair{"config.dump", "config.dump"}, std::pair{"spec.dump", "spec.dump"},
               std::pair{"checkpoint/inventory.img", "inventory.img"});
  auto members = Whole();
  std::erase_if(members,
                [name = without](const Member& member) { return member.entry.path == name; });
  Unpacked unpacked(members);
  REQUIRE(unpacked.status.ok());
  const auto facts = ReadFacts(unpacked.dir);
  CHECK(facts.code() == Code::kInvalidArgument);
  CHECK(facts.status().message().find(word) != std::string::npos);
}

TEST_CASE("Hostile archives of checkpoints") {
  const auto refused = [](const Member& hostile, Code code) {
    auto members = Whole();
    members.push_back(hostile);
    const Unpacked unpacked(members);
    INFO(unpacked.status.ToString());
    CHECK(unpacked.status.code() == code);
  };
  const auto left_out = [](const Member& hostile) {
    auto members = Whole();
    members.push_back(hostile);
    const Unpacked unpacked(members);
    INFO(unpacked.status.ToString());
    REQUIRE(unpacked.status.ok());
    CHECK(os::ListDir(unpacked.dir.path).value() ==
          std::vector<std::string>{"checkpoint", "config.dump", "spec.dump"});
    CHECK(os::ListDir(unpacked.dir.Images()).value() == std::vector<std::string>{"inventory.img"});
    CHECK(os::ListDir(unpacked.root.path()).value() == std::vector<std::string>{"a.tar", "staged"});
  };
  // Links in the place of files.
  refused({{.type = EntryType::kSymlink, .path = "dump.log", .link = "/etc/shadow"}},
          Code::kInvalidArgument);
  refused({{.type = EntryType::kSymlink, .path = "checkpoint/x.img", .link = "/etc/shadow"}},
          Code::kInvalidArgument);
  refused({{.type = EntryType::kHardLink, .path = "deleted.files", .link = "/etc/shadow"}},
          Code::kInvalidArgument);
  refused({{.type = EntryType::kFifo, .path = "rootfs-diff.tar"}}, Code::kInvalidArgument);
  // The same name twice.
  refused({{.path = "config.dump"}, "{}"}, Code::kAlreadyExists);
  refused({{.path = "./config.dump"}, "{}"}, Code::kAlreadyExists);
  // Names that lead elsewhere, and what nobody asked for.
  left_out({{.path = "../out"}, "x"});
  left_out({{.path = "/etc/out"}, "x"});
  left_out({{.path = "checkpoint/../../out"}, "x"});
  left_out({{.path = "checkpoint/deep/x.img"}, "x"});
  left_out({{.type = EntryType::kSymlink, .path = "checkpoint", .link = "/etc"}});
  left_out({{.path = "ctr.log"}, "x"});
  left_out({{.type = EntryType::kCharDevice, .path = "null", .device_major = 1}});

  const testing::TestRoot root;
  const CheckpointDir dir{root / "staged"};
  CHECK(UnpackCheckpoint(kCall, root / "missing", dir).code() == Code::kFailedPrecondition);
  CHECK(UnpackCheckpoint(kCall, root.path(), dir).code() == Code::kInvalidArgument);
  CHECK(UnpackCheckpoint(kCall, "/dev/zero", dir).code() == Code::kInvalidArgument);
  const std::string tar = Tar(Whole());
  CHECK(UnpackCheckpoint(kCall, root.Write("cut.tar", tar.substr(0, 550)), dir).code() ==
        Code::kDataLoss);
}

TEST_CASE("A checkpoint is copied out of an image, and nothing that links elsewhere") {
  const testing::TestRoot root;
  root.Write("image/config.dump", "{}");
  root.Write("image/checkpoint/inventory.img", "x");
  root.Write("image/etc/passwd", "x");
  root.Write("secret", "x");
  SECTION("whole") {
    const CheckpointDir dir{root / "staged"};
    REQUIRE(CopyCheckpoint(kCall, root / "image", dir).ok());
    CHECK(os::ListDir(dir.path).value() == std::vector<std::string>{"checkpoint", "config.dump"});
    CHECK(root.Read("staged/checkpoint/inventory.img") == "x");
  }
  SECTION("a link in the place of a file") {
    REQUIRE(os::Symlink("../secret", root / "image/spec.dump").ok());
    CHECK_FALSE(CopyCheckpoint(kCall, root / "image", {root / "staged"}).ok());
  }
  SECTION("a link in the place of the directory") {
    REQUIRE(os::RemoveTree(root / "image/checkpoint").ok());
    REQUIRE(os::Symlink(root.path(), root / "image/checkpoint").ok());
    CHECK_FALSE(CopyCheckpoint(kCall, root / "image", {root / "staged"}).ok());
  }
}

/// An overlay's directories, as it is after a container has worked in it.
struct Overlay {
  testing::TestRoot root;
  crisp::imaged::v1::MountInstruction mount;
  Overlay() {
    root.Write("lower/etc/passwd", "old");
    root.Write("lower/etc/group", "old");
    root.Write("lower/again/old", "old");
    root.Write("lower/again/both", "old");
    root.Write("upper/etc/passwd", "new");
    root.Write("upper/again/both", "new");
    root.Write("upper/dev/console", "");
    mount.set_kind("overlay");
    mount.add_lower_dirs(root / "lower");
    mount.set_upper_dir(root / "upper");
  }
};

std::string DiffOf(const Overlay& overlay, std::vector<std::string>& deleted) {
  std::string tar;
  const auto written =
      WriteRootfsDiff(kCall, overlay.mount, {"/dev"}, [&tar](std::string_view bytes) {
        tar += bytes;
        return Status::Ok();
      });
  INFO(written.status().ToString());
  REQUIRE(written.ok());
  deleted = *written;
  return tar;
}

TEST_CASE("The changes of a root file system are brought into another") {
  if (::geteuid() != 0) return;
  Overlay overlay;
  REQUIRE(::mknod((overlay.root / "upper/etc/group").c_str(), S_IFCHR, 0) == 0);
  REQUIRE(::setxattr((overlay.root / "upper/again").c_str(), "user.overlay.opaque", "y", 1, 0) ==
          0);
  REQUIRE(os::Symlink("passwd", overlay.root / "upper/etc/link").ok());
  REQUIRE(::link((overlay.root / "upper/etc/passwd").c_str(),
                 (overlay.root / "upper/etc/same").c_str()) == 0);
  REQUIRE(::chown((overlay.root / "upper/etc/passwd").c_str(), 7, 8) == 0);
  REQUIRE(::chmod((overlay.root / "upper/etc/passwd").c_str(), 04711) == 0);
  std::vector<std::string> deleted;
  const std::string tar = DiffOf(overlay, deleted);
  CHECK(deleted == std::vector<std::string>{"/again/old", "/etc/group"});
  const testing::TestRoot& root = overlay.root;
  for (int time = 0; time < 2; ++time) {  // the second one finds it all done
    archive::StringSource source(tar, 1000);
    const Status applied = ApplyRootfsDiff(kCall, root / "lower", source, deleted);
    INFO(applied.ToString());
    REQUIRE(applied.ok());
    CHECK(root.Read("lower/etc/passwd") == "new");
    CHECK(root.Read("lower/etc/same") == "new");
    CHECK(os::ReadLink(root / "lower/etc/link").value() == "passwd");
    CHECK_FALSE(os::Exists(root / "lower/etc/group"));
    CHECK(os::ListDir(root / "lower/again").value() == std::vector<std::string>{"both"});
    CHECK(root.Read("lower/again/both") == "new");
    CHECK_FALSE(os::Exists(root / "lower/dev"));
    struct stat info {};
    REQUIRE(::stat((root / "lower/etc/passwd").c_str(), &info) == 0);
    CHECK((info.st_mode & 07777U) == 04711);
    CHECK(info.st_uid == 7);
    CHECK(info.st_nlink == 2);
  }
}

TEST_CASE("A root file system that is a copy has no changes that could be told") {
  crisp::imaged::v1::MountInstruction bind;
  bind.set_kind("bind");
  bind.set_source("/");
  const auto written =
      WriteRootfsDiff(kCall, bind, {}, [](std::string_view) { return Status::Ok(); });
  CHECK(written.code() == Code::kUnimplemented);
}

TEST_CASE("Hostile changes of a root file system stay in it") {
  if (::geteuid() != 0) return;
  const testing::TestRoot root;
  root.Write("outside/file", "safe");
  root.Write("rootfs/etc/passwd", "old");
  REQUIRE(os::Symlink(root / "outside", root / "rootfs/away").ok());
  REQUIRE(os::Symlink("../../outside", root / "rootfs/up").ok());
  const auto apply = [&](const std::vector<Member>& members,
                         const std::vector<std::string>& deleted = {}, Bytes limit = MiB(1)) {
    const std::string tar = Tar(members);
    archive::StringSource source(tar);
    const Status status = ApplyRootfsDiff(kCall, root / "rootfs", source, deleted, limit);
    UNSCOPED_INFO(status.ToString());
    CHECK(os::ListDir(root / "outside").value() == std::vector<std::string>{"file"});
    CHECK(root.Read("outside/file") == "safe");
    return status.code();
  };
  CHECK(apply({{{.path = "../outside/new"}, "x"}}) == Code::kInvalidArgument);
  CHECK(apply({{{.path = "etc/../../outside/new"}, "x"}}) == Code::kInvalidArgument);
  // As the container would see it: "/…/outside" in its own root.
  apply({{{.path = "away/new"}, "x"}});
  apply({{{.path = "up/new"}, "x"}});
  apply({{{.type = EntryType::kSymlink, .path = "l", .link = root / "outside"}},
         {{.path = "l/new"}, "x"}});
  // A link's own name is replaced, not followed.
  CHECK(apply({{{.path = "away"}, "mine"}}) == Code::kOk);
  CHECK(root.Read("rootfs/away") == "mine");
  CHECK(apply({{{.type = EntryType::kHardLink, .path = "h", .link = "../outside/file"}}}) ==
        Code::kInvalidArgument);
  apply({{{.type = EntryType::kHardLink, .path = "h", .link = "up/file"}}});
  CHECK(apply({}, {"/../outside/file"}) == Code::kInvalidArgument);
  apply({}, {"/up/file"});
  CHECK(apply({}, {"/"}) == Code::kInvalidArgument);
  CHECK(apply({}, {"/never/there"}) == Code::kOk);
  CHECK(apply({{{.type = EntryType::kCharDevice, .path = "etc/passwd"}}}) ==
        Code::kInvalidArgument);
  CHECK(apply({{{.path = "big"}, std::string(3000, 'x')}}, {}, Bytes(2000)) ==
        Code::kResourceExhausted);
  // What would speak to overlayfs, or is the host's to give.
  CHECK(apply({{{.path = "x",
                 .xattrs = {{"trusted.overlay.opaque", "y"},
                            {"user.overlay.opaque", "y"},
                            {"user.fine", "1"}}}}}) == Code::kOk);
  char value[8];
  CHECK(::getxattr((root / "rootfs/x").c_str(), "trusted.overlay.opaque", value, 8) < 0);
  CHECK(::getxattr((root / "rootfs/x").c_str(), "user.overlay.opaque", value, 8) < 0);
  CHECK(::getxattr((root / "rootfs/x").c_str(), "user.fine", value, 8) == 1);
}

TEST_CASE("CRIU's words are the errors at the end of its log") {
  CHECK(CriuWords("(00.1) Warn  (criu/a.c:1): nothing\n"
                  "(02.727936) Error (criu/files-reg.c:1710): Can't lookup mount=22\n"
                  "(02.728) Error (criu/cr-dump.c:1635): Dump files (pid: 302) failed with -1\n"
                  "(02.729) \tUnseizing 302 into 1\n"
                  "(02.996) Error (criu/cr-dump.c:2053): Dumping FAILED.\n") ==
        "Can't lookup mount=22; Dump files (pid: 302) failed with -1");
  CHECK(CriuWords("(00.1) Error (criu/cr-dump.c:2053): Dumping FAILED.") == "Dumping FAILED.");
  CHECK(CriuWords("").empty());
  CHECK(CriuWords("a process named 'x Error (y' (1): z").empty());
  std::string many;
  for (int i = 0; i < 100; ++i) many += fmt::format("(0.1) Error (criu/a.c:1): {}\n", i);
  CHECK(CriuWords(many) == "96; 97; 98; 99");
  CHECK(CriuWordsIn("/nonexistent", "dump.log", "what runc said") == "what runc said");
}

}  // namespace
}  // namespace crisp::rund
