#pragma once

#include <string>
#include <vector>

#include "crisp/rund/v1/rund.pb.h"
#include "services/rund/core/parts.h"
#include "services/rund/core/stops.h"

namespace crisp::rund {

/// What the front is told of the runtime side of this node. Reads memory, and whether conmon is
/// there.
v1::NodeStatusResponse NodeStatusOf(const Parts& parts);

/// What is wrong, and what to do about it; empty when all is well.
struct NodeProblem {
  std::string what;
  std::string hint;
};
std::vector<NodeProblem> NodeProblems(const Parts& parts);
/// What is wrong with single pods and containers, while the node does its work: records that could
/// not be read, containers that do not end. Reads memory.
std::vector<NodeProblem> PodProblems(const Parts& parts, const Stops& stops);

}  // namespace crisp::rund
