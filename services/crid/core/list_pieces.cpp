#include "services/crid/core/list_pieces.h"

#include <cstdint>
#include <optional>

namespace crisp::crid {
namespace {

// Field 1, length-delimited; see the protobuf encoding.
constexpr char kTag = '\x0a';

/// The whole size of the element that `list` begins with; nothing when it begins with none.
std::optional<std::size_t> ElementSize(std::string_view list) {
  if (list.empty() || list.front() != kTag) return std::nullopt;
  std::uint64_t length = 0;
  std::size_t at = 1;
  for (unsigned shift = 0;; shift += 7) {
    if (at == list.size() || shift > 28) return std::nullopt;
    const auto byte = static_cast<unsigned char>(list[at++]);
    length |= static_cast<std::uint64_t>(byte & 0x7fU) << shift;
    if (byte < 0x80U) break;
  }
  if (length > list.size() - at) return std::nullopt;
  return at + length;
}

}  // namespace

Result<std::vector<std::string>> CutList(std::string_view list, std::size_t max_bytes) {
  std::vector<std::string> pieces;
  while (!list.empty()) {
    std::size_t taken = 0;
    while (taken < list.size()) {
      const auto element = ElementSize(list.substr(taken));
      if (!element) return Internal("a list answer is not a list");
      if (taken > 0 && taken + *element > max_bytes) break;
      taken += *element;
    }
    pieces.emplace_back(list.substr(0, taken));
    list.remove_prefix(taken);
  }
  return pieces;
}

}  // namespace crisp::crid
