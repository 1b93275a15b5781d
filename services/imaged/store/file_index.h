#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/result.h"
#include "libs/digest/digest.h"

namespace crisp::imaged {

using FileDigest = std::array<unsigned char, 32>;  // SHA-256

/// Contents that are looked for.
struct WantedFile {
  FileDigest digest{};
  std::uint64_t size = 0;
  auto operator<=>(const WantedFile&) const = default;
};

/// Makes the index of one layer's files: which contents lie under which path of it. It lies beside
/// the layer's directory and goes with it. An index is a hint: whoever reads a file by it checks
/// the digest of what he reads. One thread.
class FileIndexWriter {
 public:
  /// `name` as the layer's tar has it. What is too much or no path is left out.
  void Add(const digest::Digest& digest, std::uint64_t size, std::string_view name);
  /// Nothing is written where there are no files.
  Status Write(const std::string& path);

 private:
  struct Entry {
    WantedFile file;
    std::uint32_t path_at = 0;  // in paths_
    std::uint32_t path_size = 0;
  };
  std::vector<Entry> entries_;
  std::string paths_;
};

/// For each of `wanted` (ascending) that an index has, once: its number and its path in the layer.
/// Memory: some tens of KiB. An absent index has nothing; kDataLoss: it is damaged.
Status LookUpFiles(const std::string& index, std::span<const WantedFile> wanted,
                   const std::function<void(std::size_t number, std::string path)>& found);

}  // namespace crisp::imaged
