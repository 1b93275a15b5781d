#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "libs/base/call_context.h"
#include "libs/base/clock.h"
#include "libs/base/result.h"
#include "services/netd/core/conf_dirs.h"
#include "services/netd/core/conf_list.h"
#include "services/netd/core/plugin.h"

namespace crisp::netd {

/// Whether pods can get a network, as last seen.
struct NetworkState {
  bool ready = false;
  /// Ready only because it was until a moment ago; `message` says what is wrong now.
  bool in_grace = false;
  std::string network;
  std::string message;  // the loader's or the plugin's own words
};

/// Looks at the network (configuration, programs, versions, STATUS) and remembers what it saw. Who
/// calls Look: the app, when a directory changes and from time to time; and whoever needs a network
/// for a pod while there is none. Any thread.
class Readiness {
 public:
  struct Options {
    std::chrono::nanoseconds grace{};
    std::chrono::nanoseconds look_timeout = std::chrono::seconds(10);
  };
  /// All of them outlive this.
  Readiness(ConfSource& conf, const PluginRunner& plugins, Clock& clock, Options options)
      : conf_(conf), plugins_(plugins), clock_(clock), options_(options) {}

  /// Before the first look: pods are on `network`, so it was ready before we started, and its grace
  /// begins now.
  void Assume(const std::string& network);
  /// Looks now, bounded by look_timeout. Calls at the same time share one look.
  Status Look(const CallContext& cc);
  /// From memory; before the first look has ended, after it.
  NetworkState State(const CallContext& cc);
  /// The network for a new pod. At once when the last look was well and the configuration is still
  /// the same; else after looking, for up to `patience`. kUnavailable with the words of the last
  /// look.
  Result<std::shared_ptr<const ConfList>> Wait(const CallContext& cc,
                                               std::chrono::nanoseconds patience);
  /// Something has changed: who waits looks at once. Memory only.
  void Wake();

 private:
  struct Seen {
    std::uint64_t look = 0;                  // its number; 0: never looked
    std::shared_ptr<const ConfList> source;  // as the files have it
    std::shared_ptr<const ConfList> list;    // in the version that is spoken; null: not ready
    Status problem;
  };
  Seen LookNow(const CallContext& cc) const;
  void Remember(Seen seen);
  NetworkState StateLocked() const;

  ConfSource& conf_;
  const PluginRunner& plugins_;
  Clock& clock_;
  const Options options_;

  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::uint64_t looks_started_ = 0;
  std::uint64_t wakes_ = 0;
  bool looking_ = false;
  Seen seen_;
  std::string last_network_;       // that was ready once
  SteadyTime failing_since_ = {};  // meaningful while it is not
};

}  // namespace crisp::netd
