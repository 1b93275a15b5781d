#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

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
  WallTime created;
};

/// The records, in SQLite. Any thread.
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
  /// `instance`: who works on it from now on. kAborted: it is gone.
  Status SetPhase(const PodId& pod, Phase phase, const std::string& instance);
  /// Absent = Ok.
  Status Remove(const PodId& pod);
  Result<std::vector<Attachment>> List();
  Result<std::int64_t> Count();

 private:
  struct Impl;
  explicit Attachments(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace crisp::netd
