#include "libs/os/temp_dir.h"

#include <stdlib.h>  // NOLINT(modernize-deprecated-headers): mkdtemp is POSIX

#include <cerrno>
#include <utility>

#include "libs/os/files.h"

namespace crisp::os {
namespace {

void RemoveQuietly(const std::string& path) {
  if (path.empty()) return;
  // What cannot be removed (a mount inside) stays, for whoever looks into the directory next.
  static_cast<void>(RemoveTree(path).ok());
}

}  // namespace

Result<TempDir> TempDir::Create(const std::string& prefix) {
  std::string path = prefix + "XXXXXX";
  if (::mkdtemp(path.data()) == nullptr) {
    return Status::Errno(errno, "make a temporary directory {}", path);
  }
  return TempDir(std::move(path));
}

TempDir::TempDir(TempDir&& other) noexcept : path_(other.Release()) {}

TempDir& TempDir::operator=(TempDir&& other) noexcept {
  if (this != &other) {
    RemoveQuietly(path_);
    path_ = other.Release();
  }
  return *this;
}

TempDir::~TempDir() { RemoveQuietly(path_); }

std::string TempDir::Release() { return std::exchange(path_, {}); }

}  // namespace crisp::os
