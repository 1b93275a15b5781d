#include "services/imaged/core/image_config.h"

#include <charconv>

#include "libs/base/try.h"
#include "libs/json/json.h"

namespace crisp::imaged {

Result<ImageConfig> ParseImageConfig(std::string_view text) {
  const nlohmann::json json =
      CRISP_TRY(json::Parse(text, {.max_bytes = text.size() + 1}).While("image config"));
  ImageConfig config;
  const std::vector<std::string> diff_ids =
      CRISP_TRY(json::OptStrings(json, "rootfs.diff_ids").While("image config"));
  for (const std::string& diff_id : diff_ids)
    config.diff_ids.push_back(CRISP_TRY(digest::Digest::Parse(diff_id).While("image config")));
  const std::string user = CRISP_TRY(json::OptString(json, "config.User").While("image config"));
  const std::string name = user.substr(0, user.find(':'));
  std::int64_t uid = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), uid);
  if (!name.empty() && error == std::errc() && end == name.data() + name.size() && uid >= 0) {
    config.uid = uid;
  } else {
    config.username = name;
  }
  return config;
}

std::string ConfigText(nlohmann::json config, const std::vector<digest::Digest>& diff_ids) {
  nlohmann::json ids = nlohmann::json::array();
  for (const digest::Digest& each : diff_ids) ids.push_back(each.str());
  config["rootfs"] = {{"type", "layers"}, {"diff_ids", std::move(ids)}};
  return json::Dump(config);
}

std::vector<digest::Digest> ChainIds(const std::vector<digest::Digest>& diff_ids) {
  std::vector<digest::Digest> chain;
  for (const digest::Digest& diff_id : diff_ids) {
    chain.push_back(chain.empty() ? diff_id
                                  : digest::Sha256Digest(chain.back().str() + " " + diff_id.str()));
  }
  return chain;
}

}  // namespace crisp::imaged
