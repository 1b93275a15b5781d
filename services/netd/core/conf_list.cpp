#include "services/netd/core/conf_list.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>

#include "libs/base/try.h"
#include "libs/json/json.h"
#include "libs/log/log.h"
#include "libs/os/files.h"

namespace crisp::netd {
namespace {

constexpr std::array<std::string_view, 5> kVersions = {"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"};
constexpr std::string_view kDefaultVersion = "0.3.1";
constexpr std::size_t kMaxPlugins = 32;

/// Those of the file that we know, the highest first.
Result<std::vector<std::string>> OfferedVersions(const nlohmann::json& document) {
  std::vector<std::string> named = CRISP_TRY(json::OptStrings(document, "cniVersions"));
  const std::string one =
      CRISP_TRY(json::OptString(document, "cniVersion", std::string(kDefaultVersion)));
  std::vector<std::string> offered;
  for (auto known = kVersions.rbegin(); known != kVersions.rend(); ++known) {
    const bool is_named = std::find(named.begin(), named.end(), *known) != named.end();
    if (is_named || (named.empty() && one == *known)) offered.emplace_back(*known);
  }
  if (!offered.empty()) return offered;
  if (!named.empty()) return InvalidArgument("cniVersions: none of them is supported");
  return InvalidArgument("cniVersion '{}' is not supported", one);
}

/// The specification's alphabet. A part of file names: not too long.
Status CheckName(std::string_view name) {
  constexpr std::size_t kMaxName = 128;
  const auto is_plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  };
  const bool good = !name.empty() && name.size() <= kMaxName && is_plain(name.front()) &&
                    std::all_of(name.begin(), name.end(), [is_plain](char c) {
                      return is_plain(c) || c == '_' || c == '.' || c == '-';
                    });
  if (good) return Status::Ok();
  return InvalidArgument("name '{}': a-z, A-Z, 0-9, '_', '.' and '-' are expected",
                         name.substr(0, kMaxName));
}

/// A boolean, or the word for one: the specification allows both.
Result<bool> OptFlag(const nlohmann::json& document, std::string_view key) {
  const nlohmann::json* value = json::Find(document, key);
  if (value != nullptr && value->is_string()) return value->get<std::string>() == "true";
  return json::OptBool(document, key);
}

bool IsConfFile(std::string_view name) {
  return name.ends_with(".conflist") || name.ends_with(".conf") || name.ends_with(".json");
}

/// What tells one state of the directories from another.
std::string Signature(const std::vector<std::string>& directories) {
  std::string signature;
  for (const std::string& directory : directories) {
    const Result<std::vector<std::string>> names = os::ListDir(directory);
    if (!names.ok()) {
      signature += names.status().ToString() + "\n";
      continue;
    }
    for (const std::string& name : *names) {
      struct stat info = {};
      const std::string path = directory + "/" + name;
      if (!IsConfFile(name) || ::stat(path.c_str(), &info) != 0) continue;
      signature += fmt::format("{} {} {} {}.{} {}.{}\n", path, info.st_ino, info.st_size,
                               info.st_mtim.tv_sec, info.st_mtim.tv_nsec, info.st_ctim.tv_sec,
                               info.st_ctim.tv_nsec);
    }
  }
  return signature;
}

/// The file, or the link to it (which may lead nowhere). By the ctime, which nobody sets.
bool HasJustChanged(const std::string& path, WallTime now) {
  struct stat link = {};
  if (::lstat(path.c_str(), &link) != 0) return true;  // this very moment
  struct stat file = {};
  if (::stat(path.c_str(), &file) != 0) file = link;
  const auto is_just = [now](const timespec& time) {
    constexpr std::chrono::seconds kJust(2);
    const WallTime changed(std::chrono::seconds(time.tv_sec) +
                           std::chrono::nanoseconds(time.tv_nsec));
    return changed <= now && now - changed < kJust;
  };
  return is_just(link.st_ctim) || is_just(file.st_ctim);
}

struct Found {
  Result<ConfList> list;
  bool is_settled = true;  // no broken file in the way that may be half written
};

Found FindConf(const std::vector<std::string>& directories, const std::string& network,
               WallTime now) {
  Status problem;  // the first
  const auto note = [&problem](const Status& status) {
    if (problem.ok()) problem = status;
  };
  for (const std::string& directory : directories) {
    const Result<std::vector<std::string>> names = os::ListDir(directory);
    if (!names.ok() && names.code() != Code::kNotFound) note(names.status());
    if (!names.ok()) continue;
    for (const std::string& name : *names) {
      if (!IsConfFile(name)) continue;
      const std::string path = directory + "/" + name;
      Result<std::string> text = os::ReadFile(path);
      Result<ConfList> list = text.ok() ? ParseConfList(*text, path) : text.status();
      if (list.ok() && (network.empty() || list->name == network)) return {std::move(list)};
      if (list.ok()) continue;
      const Status broken = list.status().While("{}", path);
      if (HasJustChanged(path, now)) {
        return {Unavailable("no usable network configuration: {}", broken.message()), false};
      }
      note(broken);
    }
  }
  if (!problem.ok()) {
    return {Unavailable("no usable network configuration: {}", problem.message())};
  }
  const std::string where = fmt::format("{}", fmt::join(directories, ", "));
  if (network.empty()) return {Unavailable("no network configuration in {}", where)};
  return {Unavailable("no network configuration called '{}' in {}", network, where)};
}

}  // namespace

bool IsKnownVersion(std::string_view version) {
  return std::find(kVersions.begin(), kVersions.end(), version) != kVersions.end();
}

bool IsAtLeast(std::string_view version, std::string_view than) {
  const auto found = std::find(kVersions.begin(), kVersions.end(), version);
  return found != kVersions.end() && found >= std::find(kVersions.begin(), kVersions.end(), than);
}

bool ConfList::Plugin::Can(std::string_view capability) const {
  const auto capabilities = conf.find("capabilities");
  if (capabilities == conf.end() || !capabilities->is_object()) return false;
  const auto found = capabilities->find(std::string(capability));
  return found != capabilities->end() && found->is_boolean() && found->get<bool>();
}

std::string ConfList::ToJson() const {
  nlohmann::json list = {
      {"name", name}, {"cniVersion", cni_version}, {"plugins", nlohmann::json::array()}};
  for (const Plugin& plugin : plugins) list["plugins"].push_back(plugin.conf);
  if (disable_check) list["disableCheck"] = true;
  if (disable_gc) list["disableGC"] = true;
  return json::Dump(list);
}

Result<ConfList> ParseConfList(std::string_view text, const std::string& file) {
  const nlohmann::json document = CRISP_TRY(json::Parse(text));
  ConfList list;
  list.file = file;
  list.name = CRISP_TRY(json::GetString(document, "name"));
  CRISP_TRY(CheckName(list.name));
  list.offered = CRISP_TRY(OfferedVersions(document));
  list.cni_version = list.offered.front();
  list.disable_check = CRISP_TRY(OptFlag(document, "disableCheck"));
  list.disable_gc = CRISP_TRY(OptFlag(document, "disableGC"));
  nlohmann::json plugins = nlohmann::json::array({document});
  if (document.contains("plugins")) plugins = CRISP_TRY(json::GetArray(document, "plugins"));
  if (plugins.empty()) return InvalidArgument("plugins: the list is empty");
  if (plugins.size() > kMaxPlugins) return InvalidArgument("plugins: more than {}", kMaxPlugins);
  for (nlohmann::json& conf : plugins) {
    ConfList::Plugin plugin;
    plugin.type =
        CRISP_TRY(json::GetString(conf, "type").While("plugins[{}]", list.plugins.size()));
    if (plugin.type.empty() || plugin.type.front() == '.' ||
        plugin.type.find('/') != std::string::npos) {
      return InvalidArgument("plugins[{}]: type '{}' is no program's name", list.plugins.size(),
                             plugin.type);
    }
    plugin.conf = std::move(conf);
    list.plugins.push_back(std::move(plugin));
  }
  return list;
}

Result<ConfList> LoadConfDirs(const std::vector<std::string>& directories,
                              const std::string& network, WallTime now) {
  return FindConf(directories, network, now).list;
}

Result<std::shared_ptr<const ConfList>> ConfSource::Current() {
  std::string signature = Signature(directories_);
  {
    const std::scoped_lock lock(mutex_);
    if (loaded_ && signature == signature_) {
      if (current_) return current_;
      return problem_;
    }
  }
  auto [list, is_settled] = FindConf(directories_, network_, clock_.Wall());
  if (list.ok()) {
    log::Info("network configuration read", {{"network", list->name}, {"file", list->file}});
  } else {
    log::Warn("no network configuration", {{"error", list.status()}});
  }
  const std::scoped_lock lock(mutex_);
  signature_ = std::move(signature);
  loaded_ = is_settled;
  problem_ = list.status();
  current_ = list.ok() ? std::make_shared<const ConfList>(std::move(list).value()) : nullptr;
  if (current_) return current_;
  return problem_;
}

}  // namespace crisp::netd
