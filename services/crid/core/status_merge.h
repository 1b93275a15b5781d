#pragma once

#include <string>
#include <vector>

#include "cri/v1/api.pb.h"
#include "crisp/netd/v1/netd.pb.h"
#include "crisp/rund/v1/rund.pb.h"
#include "libs/base/result.h"

namespace crisp::crid {

/// What one instance of rund said about the node, or why it said nothing.
struct RundStatus {
  std::string instance;
  Result<rund::v1::NodeStatusResponse> answer;
};

/// CRI Status from the words of the others. RuntimeReady needs every known rund; NetworkReady is
/// netd's; CrispImageService is a condition of our own (a missing imaged must not take the node
/// down). False conditions have a reason in CamelCase and a message that names the daemon.
runtime::v1::StatusResponse MergeStatus(const std::vector<RundStatus>& runds,
                                        const Result<netd::v1::StatusResponse>& netd,
                                        const Status& imaged);

}  // namespace crisp::crid
