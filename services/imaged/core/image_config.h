#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/result.h"
#include "libs/digest/digest.h"

namespace crisp::imaged {

/// What imaged itself needs of an image's configuration; the rest goes to rund as it is.
struct ImageConfig {
  std::vector<digest::Digest> diff_ids;  // lowest layer first
  std::optional<std::int64_t> uid;       // of a numeric User
  std::string username;                  // of any other User
};

/// kInvalidArgument when it is not an image's configuration.
Result<ImageConfig> ParseImageConfig(std::string_view text);

/// The text of an image's configuration: `config` with the layers that it is of.
std::string ConfigText(nlohmann::json config, const std::vector<digest::Digest>& diff_ids);

/// The OCI chain id of each layer: names the layer together with all below it.
std::vector<digest::Digest> ChainIds(const std::vector<digest::Digest>& diff_ids);

}  // namespace crisp::imaged
