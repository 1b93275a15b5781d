#include "services/imaged/core/schema1.h"

#include <algorithm>
#include <array>

#include "libs/base/text.h"
#include "libs/base/try.h"
#include "libs/json/json.h"
#include "services/imaged/core/image_config.h"

namespace crisp::imaged {
namespace {

/// Members of a layer's history that an image config has not.
constexpr std::array<std::string_view, 7> kLayerOnly = {
    "id", "parent", "Size", "parent_id", "layer_id", "throwaway", "layer_digest"};

Result<std::string> FromBase64Url(std::string text) {
  std::replace(text.begin(), text.end(), '-', '+');
  std::replace(text.begin(), text.end(), '_', '/');
  return FromBase64(text);
}

/// One entry of an image config's history, from a layer's.
Result<nlohmann::json> HistoryOf(const nlohmann::json& layer, bool empty) {
  nlohmann::json entry;
  for (const char* key : {"created", "author", "comment"}) {
    const std::string value = CRISP_TRY(json::OptString(layer, key));
    if (!value.empty()) entry[key] = value;
  }
  const std::vector<std::string> command =
      CRISP_TRY(json::OptStrings(layer, "container_config.Cmd"));
  if (!command.empty()) entry["created_by"] = fmt::format("{}", fmt::join(command, " "));
  if (empty) entry["empty_layer"] = true;
  return entry;
}

}  // namespace

Result<Schema1> ParseSchema1(std::string_view text, std::size_t max_layers) {
  const nlohmann::json json = CRISP_TRY(json::Parse(text, {.max_bytes = text.size() + 1}));
  const nlohmann::json blobs = CRISP_TRY(json::GetArray(json, "fsLayers"));
  const nlohmann::json history = CRISP_TRY(json::GetArray(json, "history"));
  if (blobs.empty() || blobs.size() != history.size())
    return InvalidArgument("the manifest has {} layers and the history of {}", blobs.size(),
                           history.size());
  if (blobs.size() > max_layers)
    return ResourceExhausted("the image has {} layers, more than the {} allowed", blobs.size(),
                             max_layers);
  Schema1 image;
  image.history = nlohmann::json::array();
  for (std::size_t i = blobs.size(); i-- > 0;) {  // the newest comes first
    const std::string compatible = CRISP_TRY(json::GetString(history[i], "v1Compatibility"));
    nlohmann::json layer = CRISP_TRY(json::Parse(compatible, {.max_bytes = compatible.size() + 1})
                                         .While("history[{}].v1Compatibility", i));
    if (!layer.is_object())
      return InvalidArgument("history[{}].v1Compatibility: an object is expected", i);
    const bool empty = CRISP_TRY(json::OptBool(layer, "throwaway"));
    const std::string blob = CRISP_TRY(json::GetString(blobs[i], "blobSum"));
    if (!empty) image.layers.push_back(CRISP_TRY(digest::Digest::Parse(blob)));
    image.history.push_back(
        CRISP_TRY(HistoryOf(layer, empty).While("history[{}].v1Compatibility", i)));
    if (i == 0) image.config = std::move(layer);
  }
  for (const std::string_view key : kLayerOnly) image.config.erase(std::string(key));
  if (!image.config.contains("os")) image.config["os"] = "linux";
  if (!image.config.contains("architecture"))
    image.config["architecture"] = CRISP_TRY(json::OptString(json, "architecture", "amd64"));
  return image;
}

std::string ConfigOf(const Schema1& image, const std::vector<digest::Digest>& diff_ids) {
  nlohmann::json config = image.config;
  config["history"] = image.history;
  return ConfigText(std::move(config), diff_ids);
}

Result<std::string> SignedPayload(std::string text) {
  if (text.find("\"signatures\"") == std::string::npos) return text;
  const nlohmann::json json = CRISP_TRY(json::Parse(text, {.max_bytes = text.size() + 1}));
  if (CRISP_TRY(json::OptInt(json, "schemaVersion")) != 1) return text;
  const nlohmann::json signatures = CRISP_TRY(json::OptArray(json, "signatures"));
  if (signatures.empty()) return text;
  const std::string encoded = CRISP_TRY(json::GetString(signatures[0], "protected"));
  const std::string plain = CRISP_TRY(FromBase64Url(encoded).While("signatures[0].protected"));
  const nlohmann::json form = CRISP_TRY(json::Parse(plain).While("signatures[0].protected"));
  const std::int64_t length = CRISP_TRY(json::GetInt(form, "formatLength"));
  if (length < 0 || static_cast<std::size_t>(length) > text.size())
    return InvalidArgument("signatures[0].protected: formatLength is out of the text");
  const std::string tail = CRISP_TRY(json::GetString(form, "formatTail"));
  return text.substr(0, static_cast<std::size_t>(length)) +
         CRISP_TRY(FromBase64Url(tail).While("formatTail"));
}

}  // namespace crisp::imaged
