#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/ids.h"
#include "libs/base/result.h"
#include "libs/os/cgroup.h"
#include "services/rund/config.h"
#include "services/rund/spec/builder.h"

namespace crisp::rund {

/// A program that speaks the OCI runtime command line (runc, crun, youki …), under one --root.
/// Stateless; any thread; each call blocks on the program.
class OciRuntime {
 public:
  OciRuntime(RuntimeInfo info, const RuntimeConfig& config)
      : info_(std::move(info)),
        root_(config.root),
        args_(config.args),
        monitor_env_(config.monitor_env) {
    options_ = {"--root", root_};
    options_.insert(options_.end(), args_.begin(), args_.end());
  }

  const RuntimeInfo& info() const { return info_; }
  const std::string& root() const { return root_; }
  /// The settings' own options.
  const std::vector<std::string>& args() const { return args_; }
  /// What goes before each command: --root, then the settings' own.
  const std::vector<std::string>& options() const { return options_; }
  /// For the monitors of its containers, beside what they have anyway.
  const std::vector<std::string>& monitor_env() const { return monitor_env_; }

  /// Lets a created container run. kInternal with the runtime's own words.
  Status Start(const CallContext& cc, const ContainerId& id) const;
  /// Kills what is left of it and forgets it. Unknown to the runtime = Ok.
  Status Delete(const CallContext& cc, const ContainerId& id) const;
  /// Created, and its program not yet let go. Errors: the runtime does not answer, or does not know
  /// it.
  Result<bool> AwaitsStart(const CallContext& cc, const ContainerId& id) const;

 private:
  /// Where its state is in the root.
  std::string StateDir(const ContainerId& id) const { return root_ + "/" + id.str(); }
  /// The "status" that its `state` command tells: "created", "running", "stopped". kNotFound: it
  /// has none; by the OCI that is its answer for a container that it does not know.
  Result<std::string> AskState(const CallContext& cc, const ContainerId& id) const;

  RuntimeInfo info_;
  std::string root_;
  std::vector<std::string> args_;
  std::vector<std::string> options_;
  std::vector<std::string> monitor_env_;
};

/// What a runtime can do, from the JSON that its `features` command prints; nothing when that is
/// not what the OCI specifies (older runtimes do not know the command).
struct RuntimeAbilities {
  bool recursive_read_only = false;
  bool user_namespaces = false;
  bool idmapped_mounts = false;
};
std::optional<RuntimeAbilities> ParseFeatures(std::string_view text);

/// Asks the program who it is. Errors: kNotFound, kUnavailable with one sentence on why it cannot
/// work on this machine and what helps.
Result<RuntimeInfo> ProbeRuntime(const CallContext& cc, const std::string& name,
                                 const std::string& path, const os::Cgroups& cgroups);

/// For RuntimeInfo::state_in_root: a program that calls itself so ("runc version 1.1.5", or the
/// name of its file).
bool KeepsStateInRoot(std::string_view program);

/// What a runtime says of its failure, as one line: the text of the last log line on its stderr,
/// cut at 4 KiB.
std::string RuntimeWords(std::string_view stderr_text);

}  // namespace crisp::rund
