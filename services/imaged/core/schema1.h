#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/result.h"
#include "libs/digest/digest.h"

namespace crisp::imaged {

/// Docker's first image format, which has no config of its own: each layer brings its history as a
/// text, and sizes and diff ids are nowhere. Read only, to be converted.
struct Schema1 {
  std::vector<digest::Digest> layers;  // lowest first; those that their history calls empty are out
  nlohmann::json config;               // as the newest layer has it, without rootfs
  nlohmann::json history;              // lowest first, as image configs have it
};

/// Signed or not; signatures prove nothing here and are not looked at. kInvalidArgument: malformed;
/// kResourceExhausted: more than `max_layers`.
Result<Schema1> ParseSchema1(std::string_view text, std::size_t max_layers);

/// The image config, once the diff ids of its layers are known.
std::string ConfigOf(const Schema1& image, const std::vector<digest::Digest>& diff_ids);

/// The part of a manifest that its digest is of, and that alone may be believed: the text itself,
/// but for a signed one of this format its text without the signatures. kInvalidArgument: the
/// signatures are malformed.
Result<std::string> SignedPayload(std::string text);

}  // namespace crisp::imaged
