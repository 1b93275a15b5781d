#pragma once

#include <string>
#include <string_view>

namespace crisp::testing {

/// A temporary directory with a short path (unix sockets have 107 characters), removed at the end
/// with all in it; mounts below it are taken away first. It lies in /tmp, or where CRISP_TEST_ROOT
/// says when it is made. Dies loudly when it cannot be made.
class TestRoot {
 public:
  TestRoot();
  TestRoot(const TestRoot&) = delete;
  TestRoot& operator=(const TestRoot&) = delete;
  ~TestRoot();

  const std::string& path() const { return path_; }
  /// path() + "/" + relative.
  std::string operator/(std::string_view relative) const;
  /// Writes a file (directories are made) and returns its path.
  std::string Write(std::string_view relative, std::string_view text, unsigned mode = 0644) const;
  /// An executable shell script; "#!/bin/sh" is put before it.
  std::string Script(std::string_view relative, std::string_view body) const;
  /// The whole file, or "" when absent.
  std::string Read(std::string_view relative) const;

 private:
  std::string path_;
};

}  // namespace crisp::testing
