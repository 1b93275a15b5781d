#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "libs/base/result.h"

namespace crisp::ctl::debug {

/// An archive of texts with an index. A part that could not be had is a line of the index.
class Bundle {
 public:
  /// `name`: "inspect/abc.json". Cut at 8 MiB, at its end.
  void Add(const std::string& name, std::string text);
  void Add(const std::string& name, Result<std::string> text);
  void Failed(const std::string& name, const Status& why);

  std::size_t failures() const { return failures_; }
  /// A .tar.gz, all below `directory`, the index first. Readable by its owner alone;
  /// kAlreadyExists.
  Status Write(const std::string& path, const std::string& directory) const;

 private:
  struct Part {
    std::string name;
    std::string text;
  };
  std::vector<Part> parts_;
  std::string index_;
  std::size_t failures_ = 0;
};

}  // namespace crisp::ctl::debug
