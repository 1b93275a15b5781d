#pragma once

#include <string>
#include <string_view>

#include "libs/os/unique_fd.h"

namespace crisp::rund {

/// What the files of one reading are read into, again and again.
class Scratch {
 public:
  Scratch() : buffer_(kBytes, '\0') {}
  char* data() { return buffer_.data(); }
  std::size_t size() const { return buffer_.size(); }

 private:
  // memory.stat is the longest of the files with 2 to 4 KiB; a cut one loses its last keys.
  static constexpr std::size_t kBytes = 32 << 10;
  std::string buffer_;
};

/// A file of a cgroup, opened at its first reading and kept open: a reading is then one pread(2).
/// A file that is not there stays absent. Removing the cgroup does not mind the open file, whose
/// readings are empty from then on. Not thread-safe.
class KeptFile {
 public:
  KeptFile() = default;
  /// Empty path = absent. Not `keep`: opened and closed for each reading, for when there are more
  /// files than descriptors.
  KeptFile(std::string path, bool keep) : path_(std::move(path)), keep_(keep) {}

  /// The file's text, in `scratch`: valid until that is used again. Empty when it cannot be read.
  std::string_view Read(Scratch& scratch);

 private:
  std::string path_;
  bool keep_ = true;
  os::UniqueFd fd_;
};

/// The same for a file that is opened and closed again.
std::string_view ReadOnce(const std::string& path, Scratch& scratch);

}  // namespace crisp::rund
