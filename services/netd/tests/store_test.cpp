#include <catch2/catch.hpp>

#include "libs/testing/test_root.h"
#include "services/netd/store/attachments.h"

namespace crisp::netd {
namespace {

TEST_CASE("A record is found again as it was, also by the next run") {
  const testing::TestRoot root;
  const PodId pod("ab");
  const Attachment attachment{.pod = pod,
                              .phase = Phase::kAttaching,
                              .boot_id = "boot",
                              .instance = "2",
                              .network = "net",
                              .conf = "{}",
                              .cni_args = "A=b",
                              .capability_args = "[]",
                              .created = WallTime(std::chrono::seconds(77))};
  {
    auto store = Attachments::Open(root / "netd.db");
    REQUIRE(store.ok());
    CHECK_FALSE((*store)->Get(pod).value().has_value());
    CHECK((*store)->Put(attachment).ok());
    CHECK((*store)->SetAttached(pod, "1", "{}").code() == Code::kAborted);  // it is 2's
    CHECK((*store)->SetAttached(pod, "2", R"({"ips":[]})").ok());
  }
  auto store = Attachments::Open(root / "netd.db");
  REQUIRE(store.ok());
  const auto found = (*store)->Get(pod);
  REQUIRE(found.ok());
  REQUIRE(found->has_value());
  CHECK((*found)->phase == Phase::kAttached);
  CHECK((*found)->boot_id == "boot");
  CHECK((*found)->instance == "2");
  CHECK((*found)->network == "net");
  CHECK((*found)->conf == "{}");
  CHECK((*found)->cni_args == "A=b");
  CHECK((*found)->capability_args == "[]");
  CHECK((*found)->result == R"({"ips":[]})");
  CHECK((*found)->created == attachment.created);
  CHECK((*store)->List().value().size() == 1);
  CHECK((*store)->Count().value() == 1);
  CHECK((*store)->SetPhase(pod, Phase::kDetaching, "3").ok());
  CHECK((*store)->Get(pod).value()->phase == Phase::kDetaching);
  CHECK((*store)->Get(pod).value()->instance == "3");
  CHECK((*store)->Remove(pod).ok());
  CHECK((*store)->Remove(pod).ok());
  CHECK((*store)->List().value().empty());
  CHECK((*store)->SetPhase(pod, Phase::kDetaching, "3").code() == Code::kAborted);
}

}  // namespace
}  // namespace crisp::netd
