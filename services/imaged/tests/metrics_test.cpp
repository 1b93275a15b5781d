#include "services/imaged/metrics.h"

#include <catch2/catch.hpp>

namespace crisp::imaged {

TEST_CASE("a failed pull is counted by why it failed") {
  CHECK(PullFailureCause(NotFound("no such image")) == "not_found");
  CHECK(PullFailureCause(Unauthenticated("who are you")) == "denied");
  CHECK(PullFailureCause(PermissionDenied("not you")) == "denied");
  CHECK(PullFailureCause(Unknown("image x: RegistryUnavailable: no route")) == "registry");
  CHECK(PullFailureCause(Unknown("SignatureValidationFailed: image x")) == "signature");
  CHECK(PullFailureCause(Unknown("?")) == "other");
  CHECK(PullFailureCause(DeadlineExceeded("late")) == "timeout");
  CHECK(PullFailureCause(Cancelled("gone")) == "cancelled");
  CHECK(PullFailureCause(DataLoss("digest")) == "invalid");
  CHECK(PullFailureCause(ResourceExhausted("No space left on device")) == "no_room");
  CHECK(PullFailureCause(Internal("bug")) == "other");

  metrics::Registry registry;
  Metrics metrics(registry);
  metrics.PullStarted();
  metrics.PullDone(NotFound("none"), std::chrono::seconds(1));
  metrics.PullStarted();
  metrics.PullDone(Status::Ok(), std::chrono::seconds(1));
  const std::string page = registry.Render();
  CHECK(page.find("crisp_imaged_pull_failures_total{cause=\"not_found\"} 1") != page.npos);
  CHECK(page.find("crisp_imaged_pull_failures_total{cause=\"signature\"} 0") != page.npos);
  CHECK(page.find("crisp_imaged_pulls_total{outcome=\"failed\"} 1") != page.npos);
}

}  // namespace crisp::imaged
