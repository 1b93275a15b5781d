#include "libs/testing/test_root.h"

#include <sys/stat.h>

#include <cstdio>
#include <cstdlib>

#include "libs/base/check.h"
#include "libs/os/files.h"
#include "libs/os/mount.h"
#include "libs/os/temp_dir.h"

namespace crisp::testing {
namespace {

std::string Parent() {
  const char* elsewhere = std::getenv("CRISP_TEST_ROOT");
  return elsewhere == nullptr ? "/tmp" : elsewhere;
}

}  // namespace

TestRoot::TestRoot() {
  auto dir = os::TempDir::Create(Parent() + "/cr-");
  CRISP_CHECK(dir.ok());
  path_ = dir->Release();
  CRISP_CHECK(::chmod(path_.c_str(), 0755) == 0);
}

TestRoot::~TestRoot() {
  Status status = os::UnmountBelow(path_);
  if (status.ok()) status = os::RemoveTree(path_);
  if (!status.ok()) {
    std::fprintf(stderr, "TestRoot %s stays: %s\n", path_.c_str(), status.ToString().c_str());
  }
}

std::string TestRoot::operator/(std::string_view relative) const {
  return path_ + "/" + std::string(relative);
}

std::string TestRoot::Write(std::string_view relative, std::string_view text, unsigned mode) const {
  std::string path = *this / relative;
  CRISP_CHECK(os::MakeDirs(path.substr(0, path.rfind('/'))).ok());
  CRISP_CHECK(os::WriteFile(path, text).ok());
  CRISP_CHECK(::chmod(path.c_str(), mode) == 0);
  return path;
}

std::string TestRoot::Script(std::string_view relative, std::string_view body) const {
  return Write(relative, "#!/bin/sh\n" + std::string(body), 0755);
}

std::string TestRoot::Read(std::string_view relative) const {
  return os::ReadFile(*this / relative).value_or("");
}

}  // namespace crisp::testing
