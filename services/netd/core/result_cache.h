#pragma once

#include <string>

#include "libs/base/status.h"
#include "services/netd/store/attachments.h"

namespace crisp::netd {

/// libcni's cache of results, as other tools (cnitool, CNI agents) look for it. We only write it:
/// our own record is what DEL goes by. Any thread; one pod's calls one after the other.
class ResultCache {
 public:
  explicit ResultCache(const std::string& cache_dir) : dir_(cache_dir + "/results") {}

  Status Put(const Attachment& attachment, const std::string& netns) const;
  /// False also for a file that a kill has left empty.
  bool Has(const Attachment& attachment) const;
  /// Absent = Ok.
  Status Remove(const Attachment& attachment) const;

 private:
  std::string PathOf(const Attachment& attachment) const;
  std::string dir_;
};

}  // namespace crisp::netd
