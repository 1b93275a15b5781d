#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace crisp::rund {

/// A file of a directory of descriptions (CDI, hooks), with what changes when it is written.
struct SpecFile {
  std::string path;
  std::string name;
  int priority = 0;  // the index of its directory
  std::uint64_t inode = 0;
  std::int64_t size = 0;
  std::int64_t modified = 0;  // nanoseconds
  std::int64_t changed = 0;

  bool operator==(const SpecFile&) const = default;
};

/// The regular files (through links) of these directories that end in one of `suffixes`, by
/// directory, then by name. A directory that is not there or cannot be read has none: they are
/// optional, and owned by the administrator.
std::vector<SpecFile> ListSpecFiles(const std::vector<std::string>& directories,
                                    const std::vector<std::string_view>& suffixes);

/// Takes members that are null out, at any depth: in an operator's file they say no more than
/// absent ones do.
void DropNulls(nlohmann::json& value);

}  // namespace crisp::rund
