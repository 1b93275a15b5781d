#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/clock.h"
#include "libs/base/ids.h"
#include "libs/base/result.h"

namespace crisp::netd {

/// How far an attachment is. An intent is recorded before what it announces is done.
enum class Phase {
  kAttaching = 1,  // ADD may have begun; it has not been seen to end
  kAttached = 2,
  kDetaching = 3,  // DEL may have begun, or has failed: to be done (again)
};

/// One pod's attachment: what DEL needs, whatever has become of the configuration since.
struct Attachment {
  PodId pod;
  Phase phase = Phase::kAttaching;
  std::string boot_id;   // of the boot in which it was made: in another one the netns is gone
  std::string instance;  // which netd works on it, or did last
  std::string network;
  std::string conf;             // the conflist
  std::string cni_args;         // CNI_ARGS
  std::string capability_args;  // JSON
  std::string result;           // the last plugin's, JSON; empty until kAttached
  /// That of the last plugin that did well in an ADD that did not, JSON: some plugins only find
  /// what they have to take away by it. Empty once there is a result.
  std::string partial;
  WallTime created;
  /// The same on the clock of the boot, which nobody sets; 0: an earlier version's.
  std::chrono::nanoseconds since_boot{};
};

/// The records, in SQLite. Any thread. What is recorded outlives the process at once, and a power
/// cut after Sync. Only intents need that: what they announce (an address, a rule of a plugin on
/// disk) may outlive it too. What comes after an intent need not: a machine that comes up again
/// undoes every attachment of before, whatever its phase was.
class Attachments {
 public:
  /// Makes or migrates the database. kDataLoss: it is broken.
  static Result<std::unique_ptr<Attachments>> Open(const std::string& path);
  ~Attachments();

  Result<std::optional<Attachment>> Get(const PodId& pod);
  /// Inserts or replaces.
  Status Put(const Attachment& attachment);
  /// `instance`: who made it. kAborted: it is another's now, or nobody's.
  Status SetAttached(const PodId& pod, const std::string& instance, const std::string& result);
  /// What a chain's plugins have come to; see Attachment. Absent = Ok.
  Status SetPartial(const PodId& pod, const std::string& partial);
  /// `instance`: who works on it from now on. kAborted: it is gone.
  Status SetPhase(const PodId& pod, Phase phase, const std::string& instance);
  /// Absent = Ok.
  Status Remove(const PodId& pod);
  Result<std::vector<Attachment>> List();
  Result<std::int64_t> Count();
  /// Whether a pod of that boot is kAttached whose capability_args have `word` somewhere.
  Result<bool> AnyAttachedWith(const std::string& boot_id, std::string_view word);

  /// All that was recorded before the call is on disk when this returns. Those who come while one
  /// is under way share the next. kDeadlineExceeded, kCancelled: the call was over first.
  Status Sync(const CallContext& cc);
  /// Whether so much was recorded since the last Checkpoint that it is time for one.
  bool WantsCheckpoint() const;
  /// Keeps the log of the last changes short, off the way of those who record: a log that is
  /// written over again and again keeps its size, which makes a Sync cheap. Slow; one at a time.
  Status Checkpoint();

 private:
  struct Impl;
  explicit Attachments(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace crisp::netd
