#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/clock.h"
#include "libs/base/result.h"

namespace crisp::rund {

struct DiskUsage {
  std::uint64_t bytes = 0;  // on disk, so sparse files count what they hold
  std::uint64_t inodes = 0;
  std::int64_t at = 0;  // Unix nanoseconds: when it was counted
};

/// Counts what is in the directory; of a btrfs subvolume what was changed since that was made, each
/// such file as a whole, as overlayfs copies it up: a file of several names once, other file
/// systems not. What goes away meanwhile is passed over. kResourceExhausted: more than
/// `max_entries`; kNotFound: no such directory; what `cc` says when it is over.
Result<DiskUsage> CountDisk(const CallContext& cc, const std::string& dir,
                            std::size_t max_entries = SIZE_MAX);

/// What the writable layers of the containers hold. Counting takes time in the number of files, and
/// a sick disk as long as it likes, so it is done in the background, the less often the longer it
/// took, and callers get the last count with its time: they never touch the disk. Any thread.
class DiskUsages {
 public:
  explicit DiskUsages(Clock& clock) : clock_(clock) {}

  /// The last count of `dir`; nothing while there is none: then it is due.
  std::optional<DiskUsage> Get(const std::string& dir);
  /// Something was never counted, and nobody is at it.
  bool WantsUpdate() const;
  /// Forgets those that are not in the list, remembers those that are new to it.
  void SetDirs(const std::vector<std::string>& dirs);
  /// Counts what is due, the oldest first, for at most `budget`. One call at a time: a second one
  /// returns at once.
  void Update(const CallContext& cc, std::chrono::nanoseconds budget);

 private:
  struct Entry {
    std::optional<DiskUsage> usage;
    SteadyTime due = SteadyTime::min();
  };
  std::optional<std::string> NextDue() const;
  void Store(const std::string& dir, const Result<DiskUsage>& counted,
             std::chrono::nanoseconds took);

  Clock& clock_;
  mutable std::mutex mutex_;
  std::map<std::string, Entry> entries_;
  bool updating_ = false;
};

}  // namespace crisp::rund
