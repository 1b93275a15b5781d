#include "services/crid/core/status_merge.h"

using namespace crisp;
using namespace crisp::crid;

namespace {

RundStatus Rund(const std::string& instance) {
  rund::v1::NodeStatusResponse answer;
  answer.add_handlers()->set_name("runc");
  answer.add_handlers()->set_name("");
  answer.mutable_features()->set_supplemental_groups_policy(true);
  return {instance, answer};
}

netd::v1::StatusResponse Network(bool ready) {
  netd::v1::StatusResponse answer;
  answer.set_ready(ready);
  if (!ready) {
    answer.set_reason("NoNetworkConfiguration");
    answer.set_message("no configuration in /etc/cni/net.d");
  }
  return answer;
}

const runtime::v1::RuntimeCondition& Condition(const runtime::v1::StatusResponse& status,
                                               const std::string& type) {
  for (const auto& condition : status.status().conditions()) {
    if (condition.type() == type) return condition;
  }
  FAIL("no condition " << type);
  throw 0;
}

}  // namespace

TEST_CASE("All well: three true conditions and every handler once, the empty one first") {
  const auto status = MergeStatus({Rund("1"), Rund("2")}, Network(true), Status::Ok());
  CHECK(Condition(status, "RuntimeReady").status());
  CHECK(Condition(status, "NetworkReady").status());
  CHECK(Condition(status, "CrispImageService").status());
  REQUIRE(status.runtime_handlers_size() == 2);
  CHECK(status.runtime_handlers(0).name().empty());
  CHECK(status.features().supplemental_groups_policy());
}

TEST_CASE("A daemon that is away makes its own condition false and is named") {
  RundStatus away{"2", Unavailable("rund/2 is not running")};
  const auto status = MergeStatus({Rund("1"), away}, Unavailable("netd/1 is not running"),
                                  Unavailable("imaged/1 is not running"));
  CHECK_FALSE(Condition(status, "RuntimeReady").status());
  CHECK(Condition(status, "RuntimeReady").message() == "rund/2 is not running");
  CHECK(Condition(status, "RuntimeReady").reason() == "RundNotRunning");
  CHECK_FALSE(Condition(status, "NetworkReady").status());
  CHECK(Condition(status, "NetworkReady").message() == "netd/1 is not running");
  CHECK_FALSE(Condition(status, "CrispImageService").status());
  CHECK_FALSE(Condition(MergeStatus({}, Network(true), Status::Ok()), "RuntimeReady").status());
}

TEST_CASE("The network's own reason and message are passed on") {
  const auto status = MergeStatus({Rund("1")}, Network(false), Status::Ok());
  CHECK(Condition(status, "RuntimeReady").status());
  CHECK(Condition(status, "NetworkReady").reason() == "NoNetworkConfiguration");
  CHECK(Condition(status, "NetworkReady").message() == "no configuration in /etc/cni/net.d");
}
