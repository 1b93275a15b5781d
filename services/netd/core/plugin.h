#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "services/netd/core/conf_list.h"

namespace crisp::netd {

/// What the plugins are told about one pod.
struct PluginArgs {
  std::string container_id;  // the pod's id
  std::string netns;         // empty: gone already (DEL)
  std::string interface = "eth0";
  std::string cni_args;  // "IgnoreUnknown=1;K8S_POD_NAMESPACE=…"
  /// By capability: "portMappings", "bandwidth" …; given to those plugins that declare it.
  nlohmann::json capability_args = nlohmann::json::object();
};

/// Runs the plugins of a chain as the CNI protocol says. Any thread; keeps nothing.
class PluginRunner {
 public:
  explicit PluginRunner(std::vector<std::string> bin_dirs);

  /// ADD, plugin by plugin; each gets the result of the one before. The last result.
  /// Errors: kInternal with the plugin's own words; kDeadlineExceeded, kCancelled when it was
  /// ended; kUnavailable when its program is missing. What the earlier plugins did stays: call Del.
  Result<nlohmann::json> Add(const CallContext& cc, const ConfList& list,
                             const PluginArgs& args) const;
  /// DEL in reverse order. All plugins are called, also after one has failed; the first failure is
  /// the answer. `result`: of ADD, when it got that far.
  Status Del(const CallContext& cc, const ConfList& list, const PluginArgs& args,
             const std::optional<nlohmann::json>& result) const;
  /// The first plugin without a program: kUnavailable.
  Status CheckPrograms(const ConfList& list) const;

 private:
  Result<std::string> Find(const std::string& type) const;
  /// stdout of one plugin.
  Result<std::string> Exec(const CallContext& cc, std::string_view verb, const ConfList& list,
                           const ConfList::Plugin& plugin, const PluginArgs& args,
                           const std::optional<nlohmann::json>& previous) const;

  std::vector<std::string> bin_dirs_;
  std::string cni_path_;
};

}  // namespace crisp::netd
