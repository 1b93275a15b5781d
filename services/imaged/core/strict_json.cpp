#include "services/imaged/core/strict_json.h"

#include <algorithm>

#include "libs/base/try.h"

namespace crisp::imaged {

Status OnlyKeys(const nlohmann::json& object, std::initializer_list<std::string_view> known) {
  if (!object.is_object()) return InvalidArgument("an object is expected");
  for (const auto& [key, value] : object.items())
    if (std::find(known.begin(), known.end(), key) == known.end())
      return InvalidArgument("unknown key {:.64}", key);
  return Status::Ok();
}

Status ExactlyKeys(const nlohmann::json& object, std::initializer_list<std::string_view> keys) {
  CRISP_TRY(OnlyKeys(object, keys));
  if (object.size() != keys.size()) return InvalidArgument("a key is missing");
  return Status::Ok();
}

}  // namespace crisp::imaged
