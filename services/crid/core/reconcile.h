#pragma once

#include "libs/base/call_context.h"
#include "libs/base/guarded.h"
#include "libs/base/status.h"
#include "services/crid/core/backends.h"
#include "services/crid/core/view.h"
#include "services/crid/metrics.h"

namespace crisp::crid {

/// Tells imaged and netd which owners live, so that they free what belongs to nobody. Only when
/// every known instance of rund is seen: kUnavailable else, and nobody is told anything. Whatever
/// fails is repeated by the next one.
Status Reconcile(const CallContext& cc, const View& view, Backends& backends, Metrics& metrics);

/// Whether reconciles fail again and again. Any thread.
class ReconcileStreak {
 public:
  /// The first ones are those of a start: not everybody is there yet.
  static constexpr int kMany = 3;

  /// One has ended. True: it is the one that makes them too many; to be said once.
  bool Done(const Status& outcome);
  /// Of the last one, when too many have failed one after the other; else Ok.
  Status trouble() const;

 private:
  struct Streak {
    int failures = 0;
    Status last;
  };
  Guarded<Streak> streak_;
};

}  // namespace crisp::crid
