#pragma once

#include <string>

#include "libs/base/result.h"

namespace crisp::os {

/// A fresh directory (mode 0700) that goes with the object, with all that is in it.
class TempDir {
 public:
  /// `prefix` is the start of the path: "/run/crisp/rund/tmp-" makes "/run/crisp/rund/tmp-xY12ab".
  static Result<TempDir> Create(const std::string& prefix);
  TempDir(TempDir&& other) noexcept;
  TempDir& operator=(TempDir&& other) noexcept;
  ~TempDir();

  const std::string& path() const { return path_; }
  /// Keeps the directory: somebody else removes it.
  std::string Release();

 private:
  explicit TempDir(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

}  // namespace crisp::os
