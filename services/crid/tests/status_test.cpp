#include "services/crid/core/status_merge.h"

#include "libs/testing/manual_clock.h"

using namespace crisp;
using namespace crisp::crid;

namespace {

RundStatus Rund(const std::string& instance) {
  rund::v1::NodeStatusResponse answer;
  answer.add_handlers()->set_name("runc");
  answer.add_handlers()->set_name("");
  answer.mutable_features()->set_supplemental_groups_policy(true);
  return {instance, answer, Status::Ok()};
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
  RundStatus away{"2", Unavailable("rund/2 is not running"), Status::Ok()};
  const auto status = MergeStatus({away}, Unavailable("netd/1 is not running"),
                                  Unavailable("imaged/1 is not running"));
  CHECK_FALSE(Condition(status, "RuntimeReady").status());
  CHECK(Condition(status, "RuntimeReady").message() == "rund/2 is not running");
  CHECK(Condition(status, "RuntimeReady").reason() == "RundNotRunning");
  CHECK_FALSE(Condition(status, "NetworkReady").status());
  CHECK(Condition(status, "NetworkReady").message() == "netd/1 is not running");
  CHECK_FALSE(Condition(status, "CrispImageService").status());
  CHECK_FALSE(Condition(MergeStatus({}, Network(true), Status::Ok()), "RuntimeReady").status());
}

TEST_CASE("One of several runds that is away does not take the node down, and is named") {
  const RundStatus away{"2", Unavailable("rund/2 is not running"), Status::Ok()};
  const auto status = MergeStatus({Rund("1"), away}, Network(true), Status::Ok());
  CHECK(Condition(status, "RuntimeReady").status());
  CHECK(Condition(status, "RuntimeReady").reason() == "RundAway");
  CHECK(Condition(status, "RuntimeReady").message() == "rund/2 is not running");
  // One that is there and not ready does.
  RundStatus sick = Rund("1");
  sick.answer->add_conditions()->set_type("RuntimeReady");
  CHECK_FALSE(
      Condition(MergeStatus({away, sick}, Network(true), Status::Ok()), "RuntimeReady").status());
}

TEST_CASE("A daemon that is away for a moment keeps its condition, with a reason, for the grace") {
  testing::ManualClock clock;
  StatusGrace grace(clock, std::chrono::seconds(15));
  const auto gone = Unavailable("rund/1 is not running");
  CHECK_FALSE(grace.Rund("1", gone).answer.ok());  // it has never answered
  CHECK(grace.Rund("1", Rund("1").answer).away.ok());
  CHECK(grace.Netd(Network(true))->reason().empty());
  clock.Advance(std::chrono::seconds(14));
  auto status = MergeStatus({grace.Rund("1", gone)},
                            grace.Netd(Unavailable("netd/1 is not running")), Status::Ok());
  CHECK(Condition(status, "RuntimeReady").status());
  CHECK(Condition(status, "RuntimeReady").reason() == "RundAway");
  CHECK(Condition(status, "RuntimeReady").message() == "rund/1 is not running");
  CHECK(status.runtime_handlers_size() == 2);
  CHECK(Condition(status, "NetworkReady").status());
  CHECK(Condition(status, "NetworkReady").reason() == "NetdAway");
  CHECK(Condition(status, "NetworkReady").message() == "netd/1 is not running");
  // What it says itself counts at once, a bug too; an answer of before does not last.
  CHECK_FALSE(grace.Netd(Internal("bug")).ok());
  clock.Advance(std::chrono::seconds(1));
  status = MergeStatus({grace.Rund("1", gone)}, grace.Netd(Unavailable("netd/1 is not running")),
                       Status::Ok());
  CHECK_FALSE(Condition(status, "RuntimeReady").status());
  CHECK_FALSE(Condition(status, "NetworkReady").status());
}

TEST_CASE("The network's own reason and message are passed on") {
  const auto status = MergeStatus({Rund("1")}, Network(false), Status::Ok());
  CHECK(Condition(status, "RuntimeReady").status());
  CHECK(Condition(status, "NetworkReady").reason() == "NoNetworkConfiguration");
  CHECK(Condition(status, "NetworkReady").message() == "no configuration in /etc/cni/net.d");
}
