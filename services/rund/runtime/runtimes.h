#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/guarded.h"
#include "libs/base/result.h"
#include "libs/os/cgroup.h"
#include "services/rund/config.h"
#include "services/rund/runtime/runc.h"

namespace crisp::rund {

/// The runtime handlers of the node, as found at start, at the last reload, or since. Any thread;
/// what it hands out stays valid for good.
class Runtimes {
 public:
  struct Missing {
    std::string name;
    Status why;
  };
  /// For one program to say who it is and what it can do.
  static constexpr std::chrono::seconds kProbeTime{10};

  /// Asks all configured programs who they are, at the same time. One that cannot work here is left
  /// out and kept in missing(): what runs already under it can still be taken down. One of type vm
  /// is not asked. `kept`: those that the settings do not have any more, but pods do.
  static Runtimes Probe(const CallContext& cc, const Config& config, const os::Cgroups& cgroups,
                        const std::map<std::string, RuntimeConfig>& kept = {});
  /// The same again, with other settings. Pods that exist keep their handler by its name, also one
  /// that is not configured any more. A program that just does not answer now stays what it was.
  /// kFailedPrecondition: the default handler does not work, and it is not so already; nothing has
  /// changed then.
  Status Reload(const CallContext& cc, const Config& config, const os::Cgroups& cgroups);
  /// What Reload would answer. Changes nothing.
  Status CheckReload(const CallContext& cc, const Config& config, const os::Cgroups& cgroups) const;
  /// Asks those of the missing ones again whose program has come or changed since, or which did not
  /// answer in time. Now and then; a call while another one is under way returns at once.
  void LookAgain(const CallContext& cc, const os::Cgroups& cgroups);

  /// "" is the default. kInvalidArgument names the handlers that there are; for one that is
  /// configured but does not work, says why. kUnavailable: it has not answered in time when it was
  /// asked who it is, and is asked again.
  Result<const OciRuntime*> Find(const std::string& handler) const;
  /// By a name that a record holds; also one that is out of service now. Null when neither the
  /// settings nor `kept` have known it since the start.
  const OciRuntime* Recorded(const std::string& name) const;
  /// The same for what is to be done with something that exists. kFailedPrecondition instead of
  /// null.
  Result<const OciRuntime*> Kept(const std::string& name) const;

  const std::string& default_name() const { return Now().default_name; }
  /// Sorted.
  std::vector<std::string> Names() const;
  const std::vector<Missing>& missing() const { return Now().missing; }

 private:
  struct Table {
    std::string default_name;
    std::string run_dir;
    std::map<std::string, OciRuntime> working;
    std::map<std::string, OciRuntime> broken;
    std::vector<Missing> missing;
    std::map<std::string, RuntimeConfig> awaited;  // those of the missing ones that may come
    void Add(const std::string& name, const RuntimeConfig& config, Result<RuntimeInfo> info);
    void Forget(const std::string& name);
    Status WhyMissing(const std::string& name) const;  // Ok: it is not missing
    Status CheckDefault(const Table& before) const;
    void KeepSilent(const Table& before, const Config& config);
    void KeepGone(const Table& before);
  };
  struct Shared {
    /// One for each change, the last one counts. Few and small: none goes while a call may use it.
    Guarded<std::deque<Table>> tables;
    std::mutex looking;  // of LookAgain; of what follows
    std::map<std::string, std::string> seen;
  };
  static Table Ask(const CallContext& cc, const Config& config, const os::Cgroups& cgroups,
                   const std::map<std::string, RuntimeConfig>& kept);
  /// The table of a reload.
  Result<Table> Next(const CallContext& cc, const Config& config, const os::Cgroups& cgroups) const;
  const Table& Now() const;

  std::unique_ptr<Shared> shared_ = std::make_unique<Shared>();
};

}  // namespace crisp::rund
