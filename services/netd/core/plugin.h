#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "services/netd/core/conf_list.h"
#include "services/netd/core/plugin_program.h"

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

/// The operations on a network: a chain of plugins. Any thread.
class PluginRunner {
 public:
  /// `on_run`: see PluginPrograms.
  explicit PluginRunner(std::vector<std::string> bin_dirs, OnPluginRun on_run = nullptr)
      : programs_(std::move(bin_dirs), std::move(on_run)) {}

  /// ADD, plugin by plugin; each gets the result of the one before. The last result, in the list's
  /// version. Errors: kInternal with the plugin's own words; kDeadlineExceeded, kCancelled when it
  /// was ended; kUnavailable when its program is missing. What the earlier plugins did stays: call
  /// Del. `on_step` gets the result of each plugin but the last, before the next one runs; its
  /// failure ends the ADD.
  using OnStep = std::function<Status(const nlohmann::json& result)>;
  /// Of an ADD, the programs in the order of their plugins, as far as they could be started.
  using Started = std::vector<std::optional<process::Held>>;
  Result<nlohmann::json> Add(const CallContext& cc, const ConfList& list, const PluginArgs& args,
                             const OnStep& on_step = nullptr, Started started = {}) const;
  /// Starts the programs of an ADD, for the same call of Add: they come up at the same time, while
  /// the pod's namespace is made. Each does its work in its turn, when it gets its input; without
  /// an Add they are killed.
  Started StartAhead(const CallContext& cc, const ConfList& list, const PluginArgs& args) const;
  /// DEL in reverse order. All plugins are called, also after one has failed. `result`: of ADD, as
  /// far as it got. kUnavailable: the program of a plugin is missing, all others were called
  /// and did well; else the first failure.
  Status Del(const CallContext& cc, const ConfList& list, const PluginArgs& args,
             const std::optional<nlohmann::json>& result) const;
  /// Whether the list's version (before 0.4.0) and its disableCheck let CHECK be asked for.
  static bool CanCheck(const ConfList& list);
  /// CHECK with the result of ADD: whether the attachment still is as it was made. Only when
  /// CanCheck.
  Status Check(const CallContext& cc, const ConfList& list, const PluginArgs& args,
               const nlohmann::json& result) const;
  /// GC: the plugins free what belongs to none of `pods`. All are called; the first failure.
  /// No ADD or DEL of the network may run meanwhile. `mark` ("K=V") goes into their environment,
  /// and they hold a copy of `lock_fd`. Only when CanGc.
  Status Gc(const CallContext& cc, const ConfList& list, const std::vector<std::string>& pods,
            const std::string& mark, int lock_fd) const;
  static bool CanGc(const ConfList& list);

  /// Whether pods can be added now: each program is there and speaks a version that the list
  /// offers, and STATUS (CNI 1.1) is well. The list in the highest version that all speak.
  /// Errors: kUnavailable, or the plugin's words as with Add.
  Result<ConfList> Ready(const CallContext& cc, const ConfList& list) const;

 private:
  Result<ConfList> Negotiate(const CallContext& cc, const ConfList& list) const;
  PluginPrograms programs_;
};

}  // namespace crisp::netd
