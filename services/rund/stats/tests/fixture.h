#pragma once

#include <string>

#include <catch2/catch.hpp>

#include "libs/os/cgroup.h"
#include "libs/os/files.h"
#include "libs/testing/test_root.h"

namespace crisp::rund {

/// A cgroup tree made of plain files.
class CgroupTree {
 public:
  enum class Kind { kV1, kV2 };
  explicit CgroupTree(Kind kind) : kind_(kind) {
    std::string mounts;
    const auto mount = [&](const std::string& dir, const char* type, const std::string& options) {
      mounts += "30 20 0:30 / " + root_.path() + dir + " rw - " + type + " " + type + " " +
                options + "\n";
      REQUIRE(os::MakeDirs(root_.path() + dir + kPath).ok());
    };
    if (kind == Kind::kV2) {
      mount("", "cgroup2", "rw");
      REQUIRE(os::WriteFile(root_ / "cgroup.controllers", "cpu memory io pids hugetlb\n").ok());
    } else {
      for (const char* name : {"cpu", "cpuacct", "memory", "blkio", "pids", "hugetlb"}) {
        mount(std::string("/") + name, "cgroup", std::string("rw,") + name);
      }
      mount("/unified", "cgroup2", "rw");
      REQUIRE(os::WriteFile(root_ / "unified/cgroup.controllers", "\n").ok());
    }
    REQUIRE(os::WriteFile(root_ / "mountinfo", mounts).ok());
    auto detected = os::Cgroups::Detect(root_.path(), root_ / "mountinfo");
    REQUIRE(detected.ok());
    cgroups_ = *std::move(detected);
  }

  const os::Cgroups& cgroups() const { return cgroups_; }
  /// Of the cgroup "/pod/c". `controller` counts on v1 only.
  void Write(const std::string& controller, const std::string& file, const std::string& text) {
    const std::string dir = kind_ == Kind::kV2 ? "" : "/" + controller;
    REQUIRE(os::WriteFile(root_.path() + dir + kPath + "/" + file, text).ok());
  }

  static constexpr const char* kPath = "/pod/c";

 private:
  const Kind kind_;
  testing::TestRoot root_;
  os::Cgroups cgroups_;
};

}  // namespace crisp::rund
