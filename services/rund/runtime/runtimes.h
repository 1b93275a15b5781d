#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/guarded.h"
#include "libs/base/result.h"
#include "libs/os/cgroup.h"
#include "services/rund/config.h"
#include "services/rund/runtime/runc.h"

namespace crisp::rund {

/// The runtime handlers of the node, as found at start or at the last reload. Any thread; what it
/// hands out stays valid for good.
class Runtimes {
 public:
  struct Missing {
    std::string name;
    Status why;
  };

  /// Asks each configured program who it is. One that cannot work here is left out and kept in
  /// missing(): what runs already under it can still be taken down. One of type vm is not asked.
  static Runtimes Probe(const CallContext& cc, const Config& config, const os::Cgroups& cgroups);
  /// The same again, with other settings. Pods that exist keep their handler by its name, also one
  /// that is not configured any more.
  void Reload(const CallContext& cc, const Config& config, const os::Cgroups& cgroups);

  /// "" is the default. kInvalidArgument names the handlers that there are; for one that is
  /// configured but does not work, says why.
  Result<const OciRuntime*> Find(const std::string& handler) const;
  /// By a name that a record holds; also one that is out of service now. Null when the settings
  /// have not known it since the start.
  const OciRuntime* Recorded(const std::string& name) const;

  const std::string& default_name() const { return Now().default_name; }
  /// Sorted.
  std::vector<std::string> Names() const;
  const std::vector<Missing>& missing() const { return Now().missing; }

 private:
  struct Table {
    std::string default_name;
    std::map<std::string, OciRuntime> working;
    std::map<std::string, OciRuntime> broken;
    std::vector<Missing> missing;
  };
  static Table Ask(const CallContext& cc, const Config& config, const os::Cgroups& cgroups);
  const Table& Now() const;

  /// One for each reload, the last one counts. Few and small: none goes while a call may use it.
  std::unique_ptr<Guarded<std::deque<Table>>> tables_ =
      std::make_unique<Guarded<std::deque<Table>>>();
};

}  // namespace crisp::rund
