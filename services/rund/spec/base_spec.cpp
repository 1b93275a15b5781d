#include "services/rund/spec/base_spec.h"

#include <algorithm>
#include <initializer_list>
#include <set>

#include "libs/base/try.h"
#include "libs/json/json.h"
#include "libs/os/files.h"
#include "services/rund/spec/spec_dirs.h"
#include "services/rund/spec/text.h"

namespace crisp::rund {
namespace {

using nlohmann::json;

Status OnlyKeys(const json& object, const std::string& prefix,
                std::initializer_list<std::string_view> allowed) {
  if (!object.is_object()) {
    return InvalidArgument("{}: an object is expected",
                           prefix.empty() ? "the file" : prefix.substr(0, prefix.size() - 1));
  }
  for (const auto& [key, unused] : object.items()) {
    if (std::find(allowed.begin(), allowed.end(), key) == allowed.end()) {
      return InvalidArgument("{}{} cannot be given here", prefix, key);
    }
  }
  return Status::Ok();
}

Status CheckList(const json& list, const char* key, const std::string& name) {
  for (const json& item : list) {
    CRISP_TRY(crisp::json::GetString(item, key).While("{}", name));
  }
  return Status::Ok();
}

Status Check(const json& base) {
  CRISP_TRY(OnlyKeys(base, "", {"process", "mounts", "hooks", "annotations", "linux"}));
  const json process = CRISP_TRY(crisp::json::OptObject(base, "process"));
  CRISP_TRY(OnlyKeys(process, "process.", {"env", "rlimits"}));
  CRISP_TRY(crisp::json::OptStrings(process, "env").While("process"));
  const json limits = CRISP_TRY(crisp::json::OptArray(process, "rlimits").While("process"));
  CRISP_TRY(CheckList(limits, "type", "process.rlimits"));
  const json mounts = CRISP_TRY(crisp::json::OptArray(base, "mounts"));
  CRISP_TRY(CheckList(mounts, "destination", "mounts"));
  const json stages = CRISP_TRY(crisp::json::OptObject(base, "hooks"));
  for (const auto& [stage, hooks] : stages.items()) {
    if (!hooks.is_array()) return InvalidArgument("hooks.{}: a list is expected", stage);
    CRISP_TRY(CheckList(hooks, "path", "hooks." + stage));
  }
  const json annotations = CRISP_TRY(crisp::json::OptObject(base, "annotations"));
  for (const auto& [key, value] : annotations.items()) {
    if (!value.is_string()) return InvalidArgument("annotations.{}: a text is expected", key);
  }
  const json linux_base = CRISP_TRY(crisp::json::OptObject(base, "linux"));
  CRISP_TRY(
      OnlyKeys(linux_base, "linux.", {"sysctl", "resources", "maskedPaths", "readonlyPaths"}));
  CRISP_TRY(crisp::json::OptObject(linux_base, "sysctl").While("linux"));
  const json resources = CRISP_TRY(crisp::json::OptObject(linux_base, "resources").While("linux"));
  CRISP_TRY(crisp::json::OptArray(resources, "devices").While("linux.resources"));
  CRISP_TRY(crisp::json::OptStrings(linux_base, "maskedPaths").While("linux"));
  CRISP_TRY(crisp::json::OptStrings(linux_base, "readonlyPaths").While("linux"));
  return Status::Ok();
}

/// Objects key by key; of all else the spec's counts.
void Beneath(const json& base, json& spec) {
  for (const auto& [key, value] : base.items()) {
    if (!spec.contains(key)) {
      spec[key] = value;
    } else if (value.is_object() && spec[key].is_object()) {
      Beneath(value, spec[key]);
    }
  }
}

/// The items of the base before those of the spec, without those that the spec has too.
template <typename Key>
void ListBeneath(const json& base, json& spec, const Key& key) {
  if (base.is_null() || base.empty()) return;
  std::set<std::string> taken;
  json merged = json::array();
  for (const json& item : spec) taken.insert(key(item));
  for (const json& item : base) {
    if (taken.insert(key(item)).second) merged.push_back(item);
  }
  for (json& item : spec) merged.push_back(std::move(item));
  spec = std::move(merged);
}

std::string VariableOf(const json& line) {
  const auto& text = line.get_ref<const std::string&>();
  return text.substr(0, text.find('='));
}
std::string LimitOf(const json& limit) { return limit["type"].get<std::string>(); }
std::string DestinationOf(const json& mount) {
  return CleanPath(mount["destination"].get_ref<const std::string&>());
}
std::string Text(const json& text) { return text.get<std::string>(); }

}  // namespace

Result<json> LoadBaseSpec(const std::string& path) {
  const std::string text = CRISP_TRY(os::ReadFile(path, MiB(1)).While("base_spec"));
  json base = CRISP_TRY(crisp::json::Parse(text).While("base_spec {}", path));
  DropNulls(base);
  CRISP_TRY(Check(base).While("base_spec {}", path));
  return base;
}

void ApplyBaseSpec(const json& base, bool privileged, json& spec) {
  if (base.is_null()) return;
  const auto list = [&base](const char* key) {
    const json* found = crisp::json::Find(base, key);
    return found == nullptr ? json() : *found;
  };
  ListBeneath(list("process.env"), spec["process"]["env"], VariableOf);
  if (const json limits = list("process.rlimits"); !limits.empty()) {
    ListBeneath(limits, spec["process"]["rlimits"], LimitOf);
  }
  ListBeneath(list("mounts"), spec["mounts"], DestinationOf);
  std::stable_sort(spec["mounts"].begin(), spec["mounts"].end(), [](const json& a, const json& b) {
    return PathDepth(DestinationOf(a)) < PathDepth(DestinationOf(b));
  });
  const json stages = list("hooks");
  for (const auto& [stage, hooks] : stages.items()) {
    json& ours = spec["hooks"][stage];
    json merged = hooks;
    for (json& hook : ours) merged.push_back(std::move(hook));
    ours = std::move(merged);
  }
  if (const json annotations = list("annotations"); !annotations.empty()) {
    Beneath(annotations, spec["annotations"]);
  }
  json& linux_spec = spec["linux"];
  if (const json sysctls = list("linux.sysctl"); !sysctls.empty()) {
    Beneath(sysctls, linux_spec["sysctl"]);
  }
  json resources = list("linux.resources");
  if (!resources.empty()) {
    // Rules are looked at in their order: the base's come behind "deny all", before the spec's.
    const json rules = resources.value("devices", json::array());
    resources.erase("devices");
    json& own = linux_spec["resources"]["devices"];
    if (own.is_array() && !own.empty()) own.insert(own.begin() + 1, rules.begin(), rules.end());
    Beneath(resources, linux_spec["resources"]);
  }
  if (privileged) return;
  for (const char* key : {"maskedPaths", "readonlyPaths"}) {
    if (const json paths = list((std::string("linux.") + key).c_str()); !paths.empty()) {
      ListBeneath(paths, linux_spec[key], Text);
    }
  }
}

}  // namespace crisp::rund
