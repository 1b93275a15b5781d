#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/result.h"

namespace crisp::netd {

/// A CNI network: the chain of plugins that gives a pod its interface.
struct ConfList {
  std::string name;
  std::string cni_version;  // "1.0.0"
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

/// The first network (in the order of file names: *.conflist, *.conf, *.json) that can be read, or
/// the one called `network`. A broken file is passed over. kUnavailable when there is none, with
/// the reason of the first broken one.
Result<ConfList> LoadConfDir(const std::string& directory, const std::string& network);

/// The network in force, always as the directory is now. Any thread.
class ConfSource {
 public:
  ConfSource(std::string directory, std::string network)
      : directory_(std::move(directory)), network_(std::move(network)) {}

  /// Looks at the directory (some stats), reads again what has changed. kUnavailable: none.
  Result<std::shared_ptr<const ConfList>> Current();
  /// The same, but waits up to `patience` for one to appear.
  Result<std::shared_ptr<const ConfList>> Wait(const CallContext& cc,
                                               std::chrono::nanoseconds patience);
  /// Wakes who waits; memory only.
  void OnDirectoryChanged();

  const std::string& directory() const { return directory_; }

 private:
  const std::string directory_;
  const std::string network_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  unsigned changes_ = 0;
  std::string signature_;
  bool loaded_ = false;
  std::shared_ptr<const ConfList> current_;
  Status problem_;
};

}  // namespace crisp::netd
