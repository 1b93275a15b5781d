#pragma once

#include <map>
#include <string>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/os/cgroup.h"
#include "services/rund/config.h"
#include "services/rund/runtime/runc.h"

namespace crisp::rund {

/// The runtime handlers of the node, as found at start; unchanging afterwards.
class Runtimes {
 public:
  struct Missing {
    std::string name;
    Status why;
  };

  /// Asks each configured program who it is. One that cannot work here is left out and kept in
  /// missing(): what runs already under it can still be taken down.
  static Runtimes Probe(const CallContext& cc, const Config& config, const os::Cgroups& cgroups);

  /// "" is the default. kInvalidArgument names the handlers that there are; for one that is
  /// configured but does not work, says why.
  Result<const OciRuntime*> Find(const std::string& handler) const;
  /// By a name that a record holds; also one that is out of service now. Null when the settings no
  /// longer know it.
  const OciRuntime* Recorded(const std::string& name) const;

  const std::string& default_name() const { return default_name_; }
  /// Sorted.
  std::vector<std::string> Names() const;
  const std::vector<Missing>& missing() const { return missing_; }

 private:
  std::string default_name_;
  std::map<std::string, OciRuntime> working_;
  std::map<std::string, OciRuntime> broken_;
  std::vector<Missing> missing_;
};

}  // namespace crisp::rund
