#pragma once

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include <array>
#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "libs/archive/tests/tar_writer.h"
#include "libs/os/files.h"
#include "libs/testing/test_root.h"
#include "services/imaged/core/unpack.h"
#include "services/imaged/store/erofs_writer.h"

namespace crisp::imaged::testing {

/// Unpacks archives into layers of a temporary directory.
struct Bench {
  crisp::testing::TestRoot root;
  std::vector<std::string> layers;  // topmost first
  Usage usage;
  bool images = false;  // each becomes one, which the next is finished with

  Status Layer(const std::string& archive, const UnpackLimits& limit = {.max_size = MiB(64)},
               const CallContext& finish = CallContext::Background(std::chrono::minutes(1))) {
    const std::string directory = root / fmt::format("layer{}", layers.size());
    REQUIRE(os::MakeDirs(directory).ok());
    Result<Unpacker> unpacker = Unpacker::Create(directory, limit);
    REQUIRE(unpacker.ok());
    archive::StringSource source(archive, 1000);
    archive::TarReader tar(source);
    Status status = unpacker->Unpack(tar);
    if (status.ok()) status = unpacker->Finish(finish, layers);
    usage = unpacker->usage();
    layers.insert(layers.begin(), directory);
    if (!images || !status.ok()) return status;
    const Result<bool> made = WriteErofs(finish, directory, directory + ".erofs");
    if (!made.ok()) return made.status();
    REQUIRE(*made);
    REQUIRE(os::RemoveTree(directory).ok());
    layers.front() += ".erofs";
    return Status::Ok();
  }
  std::string Top(const std::string& path) const { return layers.front() + "/" + path; }
  std::string Text(const std::string& path) const {
    return os::ReadFile(Top(path)).value_or("<absent>");
  }
  struct stat Info(const std::string& path) const {
    struct stat info {};
    CHECK(::lstat(Top(path).c_str(), &info) == 0);
    return info;
  }
  bool IsWhiteout(const std::string& path) const {
    const struct stat info = Info(path);
    return S_ISCHR(info.st_mode) && info.st_rdev == 0;
  }
  bool IsOpaque(const std::string& path) const {
    std::array<char, 2> value{};
    return ::lgetxattr(Top(path).c_str(), "user.overlay.opaque", value.data(), value.size()) == 1 &&
           value[0] == 'y';
  }
};

}  // namespace crisp::imaged::testing
