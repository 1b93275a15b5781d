#pragma once

#include <chrono>
#include <cstddef>
#include <map>
#include <vector>

#include "libs/base/clock.h"
#include "libs/base/guarded.h"
#include "libs/base/ids.h"
#include "libs/base/status.h"

namespace crisp::netd {

/// Pods whose detachment is owed, and when it is tried next: after 1 s, then twice as long each
/// time, up to 5 minutes. In memory only: the records say after a start what is owed. Any thread.
class Retries {
 public:
  explicit Retries(Clock& clock) : clock_(clock) {}

  /// Now, unless it is known already.
  void Add(const PodId& pod);
  /// It failed (again), and why; Ok: it was not tried, what is known of the failure stays.
  void Failed(const PodId& pod, const Status& why = Status::Ok());
  void Done(const PodId& pod);
  /// Those whose time has come; each is handed out once until Failed.
  std::vector<PodId> TakeDue();
  bool Has(const PodId& pod) const;
  std::size_t size() const;
  struct Owed {
    PodId pod;
    unsigned failures = 0;
    Status why;  // of the last failure
  };
  /// Those that have failed `least` times or more.
  std::vector<Owed> FailedOften(unsigned least) const;

 private:
  struct Entry {
    unsigned failures = 0;
    bool taken = false;
    SteadyTime due;
    Status why = Status::Ok();
  };
  Clock& clock_;
  Guarded<std::map<PodId, Entry>> entries_;
};

}  // namespace crisp::netd
