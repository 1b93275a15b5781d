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

bool IsKnown(std::string_view version) {
  return std::find(kVersions.begin(), kVersions.end(), version) != kVersions.end();
}

Result<std::string> ChooseVersion(const nlohmann::json& document) {
  const std::vector<std::string> offered = CRISP_TRY(json::OptStrings(document, "cniVersions"));
  for (auto known = kVersions.rbegin(); known != kVersions.rend(); ++known) {
    if (std::find(offered.begin(), offered.end(), *known) != offered.end()) {
      return std::string(*known);
    }
  }
  std::string version =
      CRISP_TRY(json::OptString(document, "cniVersion", std::string(kDefaultVersion)));
  if (!IsKnown(version)) return InvalidArgument("cniVersion '{}' is not supported", version);
  return version;
}

bool IsConfFile(std::string_view name) {
  return name.ends_with(".conflist") || name.ends_with(".conf") || name.ends_with(".json");
}

/// What tells one state of the directory from another.
std::string Signature(const std::string& directory) {
  std::string signature;
  const Result<std::vector<std::string>> names = os::ListDir(directory);
  if (!names.ok()) return names.status().ToString();
  for (const std::string& name : *names) {
    struct stat info = {};
    if (!IsConfFile(name) || ::stat((directory + "/" + name).c_str(), &info) != 0) continue;
    signature +=
        fmt::format("{} {} {} {}.{} {}.{}\n", name, info.st_ino, info.st_size, info.st_mtim.tv_sec,
                    info.st_mtim.tv_nsec, info.st_ctim.tv_sec, info.st_ctim.tv_nsec);
  }
  return signature;
}

}  // namespace

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
  return json::Dump(list);
}

Result<ConfList> ParseConfList(std::string_view text, const std::string& file) {
  const nlohmann::json document = CRISP_TRY(json::Parse(text));
  ConfList list;
  list.file = file;
  list.name = CRISP_TRY(json::GetString(document, "name"));
  list.cni_version = CRISP_TRY(ChooseVersion(document));
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

Result<ConfList> LoadConfDir(const std::string& directory, const std::string& network) {
  const Result<std::vector<std::string>> names = os::ListDir(directory);
  if (!names.ok()) {
    return Unavailable("no network configuration: {}", names.status().message());
  }
  Status first_problem;
  for (const std::string& name : *names) {
    if (!IsConfFile(name)) continue;
    const std::string path = directory + "/" + name;
    Result<std::string> text = os::ReadFile(path);
    Result<ConfList> list = text.ok() ? ParseConfList(*text, path) : text.status();
    if (!list.ok()) {
      if (first_problem.ok()) first_problem = list.status().While("{}", path);
      continue;
    }
    if (network.empty() || list->name == network) return list;
  }
  if (!first_problem.ok()) {
    return Unavailable("no usable network configuration: {}", first_problem.message());
  }
  if (!network.empty()) {
    return Unavailable("no network configuration called '{}' in {}", network, directory);
  }
  return Unavailable("no network configuration in {}", directory);
}

Result<std::shared_ptr<const ConfList>> ConfSource::Current() {
  std::string signature = Signature(directory_);
  {
    const std::scoped_lock lock(mutex_);
    if (loaded_ && signature == signature_) {
      if (current_) return current_;
      return problem_;
    }
  }
  Result<ConfList> list = LoadConfDir(directory_, network_);
  if (list.ok()) {
    log::Info("network configuration read", {{"network", list->name}, {"file", list->file}});
  } else {
    log::Warn("no network configuration", {{"error", list.status()}});
  }
  const std::scoped_lock lock(mutex_);
  signature_ = std::move(signature);
  loaded_ = true;
  problem_ = list.status();
  current_ = list.ok() ? std::make_shared<const ConfList>(std::move(list).value()) : nullptr;
  if (current_) return current_;
  return problem_;
}

Result<std::shared_ptr<const ConfList>> ConfSource::Wait(const CallContext& cc,
                                                         std::chrono::nanoseconds patience) {
  // Also without a notification (the directory did not exist yet) it is seen soon.
  constexpr std::chrono::milliseconds kRound(200);
  const CallContext limited = cc.Within(patience);
  while (true) {
    unsigned seen = 0;
    {
      const std::scoped_lock lock(mutex_);
      seen = changes_;
    }
    Result<std::shared_ptr<const ConfList>> current = Current();
    if (current.ok() || !limited.Check().ok()) return current;
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, limited.stop(),
                      std::min<std::chrono::nanoseconds>(kRound, limited.Remaining()),
                      [this, seen] { return changes_ != seen; });
  }
}

void ConfSource::OnDirectoryChanged() {
  {
    const std::scoped_lock lock(mutex_);
    ++changes_;
  }
  changed_.notify_all();
}

}  // namespace crisp::netd
