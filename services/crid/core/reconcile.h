#pragma once

#include "libs/base/call_context.h"
#include "libs/base/status.h"
#include "services/crid/core/backends.h"
#include "services/crid/core/view.h"
#include "services/crid/metrics.h"

namespace crisp::crid {

/// Tells imaged and netd which owners live, so that they free what belongs to nobody. Only when
/// every known instance of rund is seen: kUnavailable else, and nobody is told anything. Whatever
/// fails is repeated by the next one.
Status Reconcile(const CallContext& cc, const View& view, Backends& backends, Metrics& metrics);

}  // namespace crisp::crid
