#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/result.h"

namespace crisp::netd {

bool IsKnownVersion(std::string_view version);
/// Whether CNI version `version` is `than` or later, for versions that we know.
bool IsAtLeast(std::string_view version, std::string_view than);

/// A CNI network: the chain of plugins that gives a pod its interface.
struct ConfList {
  std::string name;
  std::string cni_version;  // "1.0.0": the one that is spoken with the plugins
  /// What the file offers (cniVersions, else cniVersion), those that we know, the highest first.
  std::vector<std::string> offered;
  bool disable_check = false;
  bool disable_gc = false;
  struct Plugin {
    std::string type;     // the program's name
    nlohmann::json conf;  // the plugin's object as the file has it
    bool Can(std::string_view capability) const;
  };
  std::vector<Plugin> plugins;
  std::string file;  // where it comes from; empty for a stored one

  /// As a conflist, for the records.
  std::string ToJson() const;
};

/// A plugin's object. kInvalidArgument: its type is no program's name.
Result<ConfList::Plugin> ParsePlugin(nlohmann::json conf);

/// The plugins that lie in files of their own, in a folder of the network's name.
using FolderReader = std::function<Result<std::vector<ConfList::Plugin>>(const std::string& name)>;

/// A .conflist, or a .conf/.json of one plugin. Versions 0.3.0 to 1.1.x; without one 0.3.1; of
/// `cniVersions` the highest that we know. A list gets what `read_folder` finds after its own
/// plugins, unless its loadOnlyInlinedPlugins says no. kInvalidArgument says what is wrong.
Result<ConfList> ParseConfList(std::string_view text, const std::string& file,
                               const FolderReader& read_folder = nullptr);

}  // namespace crisp::netd
