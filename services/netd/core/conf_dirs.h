#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "libs/base/clock.h"
#include "libs/base/result.h"
#include "services/netd/core/conf_list.h"

namespace crisp::netd {

/// A broken file that is younger than this may be half written.
inline constexpr std::chrono::seconds kHalfWritten{2};
/// But not for ever: so long after the first one was seen the next network is taken.
inline constexpr std::chrono::seconds kWritersPatience{10};

/// The network in force, always as the directories are now: the first one (in the order of the
/// directories, in each of file names: *.conflist, *.conf, *.json) that can be read, or the one
/// called `network`. A list's further plugins are in <directory>/<its name>/<any>.conf. A broken
/// file is passed over, and so is a directory that is absent; but not a file that may be half
/// written: the pods of these seconds would get the next network. Any thread.
class ConfSource {
 public:
  /// `network`: empty for the first. `clock` outlives this. `patience`: see kWritersPatience.
  ConfSource(std::vector<std::string> directories, std::string network,
             const Clock& clock = Clock::System(),
             std::chrono::nanoseconds patience = kWritersPatience)
      : directories_(std::move(directories)),
        network_(std::move(network)),
        clock_(clock),
        patience_(patience) {}

  /// Looks at the directories (some stats), reads again what has changed; the same object as long
  /// as nothing has. kUnavailable: none, with the reason of the first broken file; or one that may
  /// be half written: look again.
  Result<std::shared_ptr<const ConfList>> Current();

 private:
  const std::vector<std::string> directories_;
  const std::string network_;
  const Clock& clock_;
  const std::chrono::nanoseconds patience_;
  std::mutex mutex_;
  std::string signature_;
  bool loaded_ = false;
  std::shared_ptr<const ConfList> current_;
  Status problem_;
  /// When a file that may be half written was first seen, and last.
  std::optional<WallTime> unsettled_since_;
  WallTime unsettled_until_;
};

/// The directories below `directories`, where lists may have plugins of theirs.
std::vector<std::string> PluginFolders(const std::vector<std::string>& directories);

}  // namespace crisp::netd
