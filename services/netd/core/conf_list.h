#pragma once

#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/clock.h"
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

/// A .conflist, or a .conf/.json of one plugin. Versions 0.3.0 to 1.1.x; without one 0.3.1; of
/// `cniVersions` the highest that we know. kInvalidArgument says what is wrong.
Result<ConfList> ParseConfList(std::string_view text, const std::string& file);

/// The first network (in the order of the directories, in each of file names: *.conflist, *.conf,
/// *.json) that can be read, or the one called `network`. A broken file is passed over, and so is a
/// directory that is absent; but not one that has changed in the last two seconds before `now`: it
/// may be half written, and the pods of these seconds would get the next network. kUnavailable when
/// there is none, with the reason of the first broken one.
Result<ConfList> LoadConfDirs(const std::vector<std::string>& directories,
                              const std::string& network, WallTime now);

/// The network in force, always as the directories are now. Any thread.
class ConfSource {
 public:
  /// `clock` outlives this.
  ConfSource(std::vector<std::string> directories, std::string network,
             const Clock& clock = Clock::System())
      : directories_(std::move(directories)), network_(std::move(network)), clock_(clock) {}

  /// Looks at the directories (some stats), reads again what has changed; the same object as long
  /// as nothing has. kUnavailable: none, or one that may be half written: look again.
  Result<std::shared_ptr<const ConfList>> Current();

  const std::vector<std::string>& directories() const { return directories_; }

 private:
  const std::vector<std::string> directories_;
  const std::string network_;
  const Clock& clock_;
  std::mutex mutex_;
  std::string signature_;
  bool loaded_ = false;
  std::shared_ptr<const ConfList> current_;
  Status problem_;
};

}  // namespace crisp::netd
