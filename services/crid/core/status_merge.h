#pragma once

#include <chrono>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "cri/v1/api.pb.h"
#include "crisp/netd/v1/netd.pb.h"
#include "crisp/rund/v1/rund.pb.h"
#include "libs/base/clock.h"
#include "libs/base/result.h"

namespace crisp::crid {

/// What one instance of rund said about the node, or why it said nothing.
struct RundStatus {
  std::string instance;
  Result<rund::v1::NodeStatusResponse> answer;
  Status away;  // not Ok: why the answer is an earlier one
};

/// CRI Status from the words of the others. RuntimeReady needs one rund and no known one that says
/// it is not ready (one of several that is away does not take the node down); NetworkReady is
/// netd's; CrispImageService is a condition of our own (nor must a missing imaged). False
/// conditions, and true ones that are so in spite of something, have a reason in CamelCase and a
/// message that names the daemon.
runtime::v1::StatusResponse MergeStatus(const std::vector<RundStatus>& runds,
                                        const Result<netd::v1::StatusResponse>& netd,
                                        const Status& imaged);

/// Bears with a daemon that is away for a moment (a restart, an upgrade): its last answer stands
/// for `grace` after it was given. Any thread.
class StatusGrace {
 public:
  StatusGrace(Clock& clock, std::chrono::nanoseconds grace) : clock_(clock), grace_(grace) {}

  RundStatus Rund(const std::string& instance, Result<rund::v1::NodeStatusResponse> answer);
  Result<netd::v1::StatusResponse> Netd(Result<netd::v1::StatusResponse> answer);

 private:
  template <typename Answer>
  struct Last {
    Answer answer;
    SteadyTime given;
  };
  /// The answer that counts; `away` when it is an earlier one.
  template <typename Answer>
  Result<Answer> Take(Result<Answer> answer, std::optional<Last<Answer>>& last, Status& away) const;

  Clock& clock_;
  const std::chrono::nanoseconds grace_;
  std::mutex mutex_;
  std::map<std::string, std::optional<Last<rund::v1::NodeStatusResponse>>> runds_;
  std::optional<Last<netd::v1::StatusResponse>> netd_;
};

}  // namespace crisp::crid
