#include "services/rund/spec/cdi.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "libs/base/try.h"
#include "libs/config/yaml_json.h"
#include "libs/json/json.h"
#include "libs/os/files.h"
#include "services/rund/spec/cdi_edits.h"

namespace crisp::rund {
namespace {

using nlohmann::json;

constexpr Bytes kMaxFile = MiB(4);
constexpr std::string_view kAnnotation = "cdi.k8s.io/";

bool IsAlphanumeric(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/// Letters, digits and `inner` characters, with a letter (or digit) at both ends.
bool IsName(std::string_view name, std::string_view inner) {
  return !name.empty() && name.size() <= 253 && IsAlphanumeric(name.front()) &&
         IsAlphanumeric(name.back()) && std::all_of(name.begin(), name.end(), [inner](char c) {
           return IsAlphanumeric(c) || inner.find(c) != std::string_view::npos;
         });
}

bool IsKind(std::string_view kind) {
  const std::size_t slash = kind.find('/');
  return slash != std::string_view::npos && IsName(kind.substr(0, slash), "_-.") &&
         IsName(kind.substr(slash + 1), "_-.");
}

Status CheckDeviceName(std::string_view device) {
  const std::size_t equals = device.find('=');
  if (equals != std::string_view::npos && IsKind(device.substr(0, equals)) &&
      IsName(device.substr(equals + 1), "_-.:")) {
    return Status::Ok();
  }
  return InvalidArgument("\"{}\" is not a CDI device (vendor.com/class=name)", device);
}

Result<CdiSpec> Load(const SpecFile& file) {
  const std::string text = CRISP_TRY(os::ReadFile(file.path, kMaxFile));
  const json root = file.name.ends_with(".json") ? CRISP_TRY(crisp::json::Parse(text))
                                                 : CRISP_TRY(config::YamlToJson(text));
  CdiSpec spec = CRISP_TRY(CdiSpec::Parse(root));
  spec.path = file.path;
  return spec;
}

}  // namespace

Result<CdiSpec> CdiSpec::Parse(json root) {
  DropNulls(root);
  CdiSpec spec;
  CRISP_TRY(crisp::json::GetString(root, "cdiVersion"));
  spec.kind = CRISP_TRY(crisp::json::GetString(root, "kind"));
  if (!IsKind(spec.kind)) return InvalidArgument("kind \"{}\" is not vendor/class", spec.kind);
  spec.edits = CRISP_TRY(crisp::json::OptObject(root, "containerEdits"));
  CRISP_TRY(CheckCdiEdits(spec.edits).While("containerEdits"));
  for (const json& device : CRISP_TRY(crisp::json::GetArray(root, "devices"))) {
    const std::string name = CRISP_TRY(crisp::json::GetString(device, "name"));
    if (!IsName(name, "_-.:")) return InvalidArgument("\"{}\" is no name for a device", name);
    json edits = CRISP_TRY(crisp::json::OptObject(device, "containerEdits"));
    CRISP_TRY(CheckCdiEdits(edits).While("device {}: containerEdits", name));
    if (!spec.devices.emplace(name, std::move(edits)).second) {
      return InvalidArgument("device {} is there twice", name);
    }
  }
  return spec;
}

Result<std::vector<std::string>> CdiDevicesOf(const runtime::v1::ContainerConfig& config) {
  std::vector<std::string> devices;
  const auto add = [&devices](std::string_view device) -> Status {
    CRISP_TRY(CheckDeviceName(device));
    if (std::find(devices.begin(), devices.end(), device) == devices.end()) {
      devices.emplace_back(device);
    }
    return Status::Ok();
  };
  for (const auto& device : config.cdi_devices()) {
    CRISP_TRY(add(device.name()).While("CDI_devices"));
  }
  const std::map<std::string, std::string> sorted(config.annotations().begin(),
                                                  config.annotations().end());
  for (const auto& [key, value] : sorted) {
    if (!key.starts_with(kAnnotation)) continue;
    std::string_view rest = value;
    while (true) {
      const std::size_t comma = rest.find(',');
      CRISP_TRY(add(rest.substr(0, comma)).While("annotation {}", key));
      if (comma == std::string_view::npos) break;
      rest.remove_prefix(comma + 1);
    }
  }
  return devices;
}

std::shared_ptr<const CdiDirs::Index> CdiDirs::Current() const {
  std::vector<SpecFile> files = ListSpecFiles(directories_, {".json", ".yaml"});
  {
    auto cache = cache_.lock();
    if (cache->index != nullptr && cache->files == files) return cache->index;
  }
  auto index = std::make_shared<Index>();
  for (const SpecFile& file : files) {
    Result<CdiSpec> spec = Load(file);
    if (spec.ok()) {
      index->specs.push_back(std::make_shared<CdiSpec>(*std::move(spec)));
      index->priorities.push_back(file.priority);
    } else {
      index->broken.push_back(fmt::format("{}: {}", file.path, spec.status().message()));
    }
  }
  auto cache = cache_.lock();
  cache->files = std::move(files);
  cache->index = std::move(index);
  return cache->index;
}

Result<std::shared_ptr<const CdiSpec>> CdiDirs::Find(const Index& index,
                                                     const std::string& device) {
  const std::size_t equals = device.find('=');
  const std::string kind = device.substr(0, equals);
  const std::string name = device.substr(equals + 1);
  std::shared_ptr<const CdiSpec> found;
  int priority = -1;
  for (std::size_t i = 0; i < index.specs.size(); ++i) {
    const auto& spec = index.specs[i];
    if (spec->kind != kind || !spec->devices.contains(name)) continue;
    if (found != nullptr && index.priorities[i] == priority) {
      return InvalidArgument("CDI device {} is described by both {} and {}", device, found->path,
                             spec->path);
    }
    found = spec;
    priority = index.priorities[i];
  }
  if (found != nullptr) return found;
  if (index.broken.empty()) return InvalidArgument("CDI device {} is described nowhere", device);
  return InvalidArgument("CDI device {} is described nowhere; what cannot be read: {}", device,
                         fmt::join(index.broken, "; "));
}

Status CdiDirs::Apply(const std::vector<std::string>& devices, const ResolvedUser& user,
                      bool privileged, json& spec) const {
  const std::shared_ptr<const Index> index = Current();
  std::set<std::string> common;  // files whose common edits are in already
  for (const std::string& device : devices) {
    const std::shared_ptr<const CdiSpec> file = CRISP_TRY(Find(*index, device));
    if (common.insert(file->path).second) {
      CRISP_TRY(ApplyCdiEdits(file->edits, user, privileged, spec).While("CDI {}", file->path));
    }
    const json& edits = file->devices.at(device.substr(device.find('=') + 1));
    CRISP_TRY(ApplyCdiEdits(edits, user, privileged, spec).While("CDI device {}", device));
  }
  return Status::Ok();
}

}  // namespace crisp::rund
