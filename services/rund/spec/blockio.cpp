#include "services/rund/spec/blockio.h"

#include <fmt/core.h>
#include <glob.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>
#include <set>

#include "libs/base/quantity.h"
#include "libs/base/try.h"
#include "libs/config/yaml_json.h"
#include "libs/json/json.h"
#include "libs/os/files.h"
#include "services/rund/spec/annotations.h"

namespace crisp::rund {
namespace {

using nlohmann::json;

constexpr std::uint64_t kMinWeight = 10;
constexpr std::uint64_t kMaxWeight = 1000;

/// A limit of the file, and the OCI's list for it.
struct Throttle {
  const char* field;
  const char* oci;
};
constexpr std::array<Throttle, 4> kThrottles = {{{"ThrottleReadBps", "throttleReadBpsDevice"},
                                                 {"ThrottleWriteBps", "throttleWriteBpsDevice"},
                                                 {"ThrottleReadIOPS", "throttleReadIOPSDevice"},
                                                 {"ThrottleWriteIOPS", "throttleWriteIOPSDevice"}}};

Result<std::uint64_t> QuantityOf(const json& value, const std::string& field) {
  if (value.is_number_unsigned()) return value.get<std::uint64_t>();
  if (value.is_string()) {
    const auto number = ParseQuantity(value.get_ref<const std::string&>());
    if (number.ok()) return number;
  }
  return InvalidArgument("{}: {} is not a quantity such as 50M or 10k", field, value.dump());
}

/// One entry of a class, checked, with plain numbers.
Result<json> CheckEntry(const json& given) {
  if (!given.is_object()) return InvalidArgument("it is no map");
  json entry = json::object();
  for (const auto& [key, value] : given.items()) {
    const bool throttles = std::any_of(kThrottles.begin(), kThrottles.end(),
                                       [&key = key](const Throttle& t) { return key == t.field; });
    if (key == "Devices") {
      entry[key] = CRISP_TRY(crisp::json::OptStrings(given, "Devices"));
      if (entry[key].empty()) return InvalidArgument("Devices: names none");
      for (const json& pattern : entry[key]) {
        if (!pattern.get_ref<const std::string&>().starts_with('/')) {
          return InvalidArgument("Devices: {} is no absolute path", pattern.dump());
        }
      }
    } else if (key == "Weight" || throttles) {
      entry[key] = CRISP_TRY(QuantityOf(value, key));
    } else {
      return InvalidArgument("\"{}\" is not known", key);
    }
  }
  const std::uint64_t weight = entry.value("Weight", kMinWeight);
  if (weight < kMinWeight || weight > kMaxWeight) {
    return InvalidArgument("Weight: {} is not from {} to {}", weight, kMinWeight, kMaxWeight);
  }
  if (!entry.contains("Devices") && entry.size() > entry.count("Weight")) {
    return InvalidArgument("limits need Devices; without, there is Weight alone");
  }
  return entry;
}

Result<json> CheckClasses(const json& file) {
  if (!file.is_object()) return InvalidArgument("it is no map with Classes");
  for (const auto& [key, unused] : file.items()) {
    if (key != "Classes") return InvalidArgument("\"{}\" is not known", key);
  }
  json classes = CRISP_TRY(crisp::json::OptObject(file, "Classes"));
  if (classes.is_null()) return json::object();
  for (auto& [name, entries] : classes.items()) {
    if (entries.is_null()) entries = json::array();
    if (!entries.is_array()) return InvalidArgument("Classes.{}: it is no list", name);
    for (std::size_t i = 0; i < entries.size(); ++i) {
      entries[i] = CRISP_TRY(CheckEntry(entries[i]).While("Classes.{}[{}]", name, i));
    }
  }
  return classes;
}

/// Limits are of whole disks: the kernel takes none for a partition.
bool IsDisk(const struct stat& info) {
  return S_ISBLK(info.st_mode) &&
         !os::Exists(fmt::format("/sys/dev/block/{}:{}/partition", major(info.st_rdev),
                                 minor(info.st_rdev)));
}

/// The disks that the pattern matches, by links as well.
std::set<dev_t> Disks(const std::string& pattern) {
  std::set<dev_t> found;
  glob_t matches{};
  if (::glob(pattern.c_str(), 0, nullptr, &matches) == 0) {
    for (std::size_t i = 0; i < matches.gl_pathc; ++i) {
      struct stat info {};
      if (::stat(matches.gl_pathv[i], &info) == 0 && IsDisk(info)) found.insert(info.st_rdev);
    }
  }
  ::globfree(&matches);
  return found;
}

/// Sets the device's value in a list of the OCI; a later entry of a class wins.
void SetDevice(json& list, dev_t device, const char* key, std::uint64_t value) {
  const auto same = [device](const json& one) {
    return one["major"] == major(device) && one["minor"] == minor(device);
  };
  if (!list.is_array()) list = json::array();
  const auto known = std::find_if(list.begin(), list.end(), same);
  json& entry = known != list.end() ? *known : list.emplace_back(json::object());
  entry["major"] = major(device);
  entry["minor"] = minor(device);
  entry[key] = value;
}

void AddEntry(const json& entry, const std::string& where, json& built,
              std::vector<std::string>& notes) {
  if (!entry.contains("Devices")) {
    if (entry.contains("Weight")) built["weight"] = entry["Weight"];
    return;
  }
  for (const json& pattern : entry["Devices"]) {
    const std::set<dev_t> disks = Disks(pattern.get_ref<const std::string&>());
    if (disks.empty()) {
      notes.push_back(fmt::format("{}: {} is no disk of this node", where, pattern.dump()));
    }
    for (const dev_t disk : disks) {
      if (entry.contains("Weight")) {
        SetDevice(built["weightDevice"], disk, "weight", entry["Weight"].get<std::uint64_t>());
      }
      for (const Throttle& throttle : kThrottles) {
        if (!entry.contains(throttle.field)) continue;
        SetDevice(built[throttle.oci], disk, "rate", entry[throttle.field].get<std::uint64_t>());
      }
    }
  }
}

}  // namespace

Result<json> LoadBlockioClasses(const std::string& path) {
  const std::string text = CRISP_TRY(os::ReadFile(path));
  const auto file = config::YamlToJson(text);
  if (!file.ok()) return Status(file.status()).While("{}", path);
  return CheckClasses(*file).While("{}", path);
}

std::string BlockioClassOf(const runtime::v1::ContainerConfig& config,
                           const runtime::v1::PodSandboxConfig& sandbox) {
  return ClassOf({.of_container = "io.kubernetes.cri.blockio-class",
                  .of_pods_container = "blockio.resources.beta.kubernetes.io/container.",
                  .of_pod = "blockio.resources.beta.kubernetes.io/pod"},
                 config, sandbox);
}

Result<json> BuildBlockio(const runtime::v1::ContainerConfig& config,
                          const runtime::v1::PodSandboxConfig& sandbox,
                          const SpecDefaults& defaults, std::vector<std::string>& notes) {
  const std::string name = BlockioClassOf(config, sandbox);
  if (name.empty()) return json::object();
  const std::string& path = defaults.blockio_config_file;
  if (path.empty()) {
    return InvalidArgument(
        "the annotations ask for the blockio class \"{}\", and rund.blockio_config_file of this "
        "node names no file of classes",
        name);
  }
  const json classes = CRISP_TRY(LoadBlockioClasses(path));
  const auto found = classes.find(name);
  if (found == classes.end()) {
    return InvalidArgument("the annotations ask for the blockio class \"{}\", which {} has not",
                           name, path);
  }
  if (!defaults.host.controllers.contains(defaults.host.cgroup_v2 ? "io" : "blkio")) {
    return InvalidArgument("blockio class \"{}\": this node has no cgroup controller for it", name);
  }
  json built = json::object();
  for (const json& entry : *found) {
    AddEntry(entry, fmt::format("{}: Classes.{}", path, name), built, notes);
  }
  return built;
}

}  // namespace crisp::rund
