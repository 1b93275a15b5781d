#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <set>
#include <string>
#include <string_view>

#include "libs/base/guarded.h"
#include "libs/base/status.h"
#include "libs/metrics/registry.h"

namespace crisp::netd {

/// What happened, as events. Any thread.
class Metrics {
 public:
  explicit Metrics(metrics::Registry& registry);

  /// `plugins`: the part of `took` that the plugins had.
  void AttachDone(Code code, std::chrono::nanoseconds took, std::chrono::nanoseconds plugins);
  void DetachDone(Code code, std::chrono::nanoseconds took);
  /// A program of a plugin has ended. `type`: "bridge"; `verb`: "ADD".
  void PluginDone(const std::string& type, std::string_view verb, Code code,
                  std::chrono::nanoseconds took);
  void OrphanFreed();
  void RolledBack();
  void GarbageCollected(Code code);
  /// The detachments that are owed, asked for at each scrape. Once, at the start.
  void Watch(std::function<std::size_t()> owed);
  /// At the start, as recorded; then one up or down.
  void AttachmentsAre(std::size_t count);
  void AttachmentRecorded();
  void AttachmentForgotten();

 private:
  metrics::Registry& registry_;
  metrics::Counter& attach_errors_;
  metrics::Counter& detach_errors_;
  metrics::Histogram& attach_seconds_;
  metrics::Histogram& attach_plugin_seconds_;
  metrics::Histogram& detach_seconds_;
  metrics::Counter& orphans_;
  metrics::Counter& rolled_back_;
  metrics::Counter& gc_;
  metrics::Counter& gc_errors_;
  metrics::Gauge& attachments_;
  Guarded<std::set<std::string>> plugin_types_;  // those that have metrics of their own
};

}  // namespace crisp::netd
