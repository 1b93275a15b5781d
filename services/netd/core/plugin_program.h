#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/process/held.h"

namespace crisp::netd {

/// One call of a plugin's program.
struct PluginCall {
  std::string_view verb;  // "ADD"
  std::string container_id;
  std::string netns;
  std::string interface;
  std::string cni_args;
  std::string input;  // the plugin's stdin
  /// GC, STATUS and VERSION are about no container.
  bool for_container = true;
  std::string mark;  // one more variable ("K=V"), unless it is empty
  int lock_fd = -1;  // one more descriptor, of a lock that lasts as long as the plugin does
};

/// Hears of each run of a plugin: its type ("bridge"), the verb, how it ended and what it took.
using OnPluginRun = std::function<void(const std::string& type, std::string_view verb, Code code,
                                       std::chrono::nanoseconds took)>;

/// Finds the plugins' programs and runs them as the CNI protocol says: a clean environment, bounded
/// output, the plugin and its children ended at the deadline. Any thread.
class PluginPrograms {
 public:
  /// `on_run` may be null; it is called on the threads of the callers.
  explicit PluginPrograms(std::vector<std::string> bin_dirs, OnPluginRun on_run = nullptr);

  /// Looked for at each call (a microsecond or two, a call is milliseconds), so that what is
  /// installed or taken away needs no notice. kUnavailable: it is in none of the directories.
  Result<std::string> Find(const std::string& type) const;

  /// The plugin's stdout. A program that is just being written over is waited for. kInternal with
  /// its own words when it fails; kDeadlineExceeded and kCancelled when it was ended; kUnavailable:
  /// see Find, and for no other reason.
  /// `started`: by StartAhead, of the same call.
  Result<std::string> Run(const CallContext& cc, const std::string& type, const PluginCall& call,
                          std::optional<process::Held> started = std::nullopt) const;

  /// Starts the program, whose input comes with Run: what it needs to come up goes on beside other
  /// things. Nothing when it cannot be started (Run will say why), and of scripts: a program does
  /// nothing before it has read its configuration, a script may.
  std::optional<process::Held> StartAhead(const CallContext& cc, const std::string& type,
                                          const PluginCall& call) const;

  /// The CNI versions that the plugin says it speaks; asked until it answers, once for each state
  /// of its program's file. Empty: it does not say.
  Result<std::vector<std::string>> Versions(const CallContext& cc, const std::string& type) const;

 private:
  process::Command CommandOf(const std::string& program, const PluginCall& call) const;
  Result<std::string> RunProgram(const CallContext& cc, const std::string& type,
                                 const PluginCall& call,
                                 std::optional<process::Held> started) const;

  const std::vector<std::string> bin_dirs_;
  const OnPluginRun on_run_;
  std::string cni_path_;
  mutable std::mutex mutex_;
  struct Known {
    std::string state;  // of the file
    std::vector<std::string> versions;
  };
  mutable std::map<std::string, Known> versions_;  // by path
};

}  // namespace crisp::netd
