#include "services/netd/core/conf_list.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstddef>
#include <utility>

#include "libs/base/try.h"
#include "libs/json/json.h"

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

/// A boolean, or the word for one, in letters of either case: what libcni takes.
Result<bool> OptFlag(const nlohmann::json& document, std::string_view key) {
  const nlohmann::json* value = json::Find(document, key);
  if (value == nullptr || !value->is_string()) return json::OptBool(document, key);
  std::string word = value->get<std::string>();
  std::transform(word.begin(), word.end(), word.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (word == "true") return true;
  if (word == "false") return false;
  constexpr std::size_t kMaxQuote = 40;
  return InvalidArgument("{}: true or false is expected, got '{}'", key, word.substr(0, kMaxQuote));
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

Result<ConfList::Plugin> ParsePlugin(nlohmann::json conf) {
  ConfList::Plugin plugin;
  plugin.type = CRISP_TRY(json::GetString(conf, "type"));
  if (plugin.type.empty() || plugin.type.front() == '.' ||
      plugin.type.find('/') != std::string::npos) {
    return InvalidArgument("type '{}' is no program's name", plugin.type);
  }
  plugin.conf = std::move(conf);
  return plugin;
}

Result<ConfList> ParseConfList(std::string_view text, const std::string& file,
                               const FolderReader& read_folder) {
  nlohmann::json document = CRISP_TRY(json::Parse(text));
  ConfList list;
  list.file = file;
  list.name = CRISP_TRY(json::GetString(document, "name"));
  CRISP_TRY(CheckName(list.name));
  list.offered = CRISP_TRY(OfferedVersions(document));
  list.cni_version = list.offered.front();
  list.disable_check = CRISP_TRY(OptFlag(document, "disableCheck"));
  list.disable_gc = CRISP_TRY(OptFlag(document, "disableGC"));
  const bool only_inlined = CRISP_TRY(OptFlag(document, "loadOnlyInlinedPlugins"));
  // A plugin's own object is a network of that plugin alone.
  const bool is_list = document.contains("plugins") || !document.contains("type");
  if (is_list) {
    for (nlohmann::json& conf : CRISP_TRY(json::OptArray(document, "plugins"))) {
      list.plugins.push_back(
          CRISP_TRY(ParsePlugin(std::move(conf)).While("plugins[{}]", list.plugins.size())));
    }
    if (document.contains("plugins") && list.plugins.empty()) {
      return InvalidArgument("plugins: the list is empty");
    }
    if (!only_inlined && read_folder) {
      for (ConfList::Plugin& plugin : CRISP_TRY(read_folder(list.name))) {
        list.plugins.push_back(std::move(plugin));
      }
    }
  } else {
    list.plugins.push_back(CRISP_TRY(ParsePlugin(std::move(document))));
  }
  if (list.plugins.empty()) return InvalidArgument("network '{}' has no plugins", list.name);
  if (list.plugins.size() <= kMaxPlugins) return list;
  return InvalidArgument("plugins: more than {}", kMaxPlugins);
}

}  // namespace crisp::netd
