#pragma once

#include <string>
#include <vector>

#include "integration/bench/samples.h"
#include "integration/harness/cri.h"

namespace crisp::bench {

/// How long statistics and metrics take while `pods` pods of one container each run, and what a
/// collection costs the daemons with these process names. Calls that lie 300 ms apart get a reading
/// of their own, those that follow at once may share one. Throws when a call fails.
void MeasureStats(const harness::Cri& cri, Samples& samples,
                  const std::vector<std::string>& daemons, int pods);

}  // namespace crisp::bench
