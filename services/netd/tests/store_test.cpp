#include <sys/stat.h>

#include <catch2/catch.hpp>

#include "libs/sqlite/db.h"
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
                              .partial = "{}",
                              .created = WallTime(std::chrono::seconds(77)),
                              .since_boot = std::chrono::seconds(5)};
  {
    auto store = Attachments::Open(root / "netd.db");
    REQUIRE(store.ok());
    CHECK_FALSE((*store)->Get(pod).value().has_value());
    CHECK((*store)->Put(attachment).ok());
    CHECK((*store)->Get(pod).value()->partial == "{}");
    CHECK((*store)->SetPartial(pod, R"({"ips":[1]})").ok());
    CHECK((*store)->Get(pod).value()->partial == R"({"ips":[1]})");
    CHECK((*store)->SetPartial(PodId("cd"), "{}").ok());
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
  CHECK((*found)->partial.empty());
  CHECK((*found)->created == attachment.created);
  CHECK((*found)->since_boot == attachment.since_boot);
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

TEST_CASE("Records of the first version are read, and worked on, by this one") {
  const testing::TestRoot root;
  {
    auto db = sqlite::Db::Open(root / "netd.db");
    REQUIRE(db.ok());
    REQUIRE(db->Exec("CREATE TABLE attachments(pod_id TEXT PRIMARY KEY, phase INTEGER NOT NULL, "
                     "boot_id TEXT NOT NULL, instance TEXT NOT NULL, network TEXT NOT NULL, "
                     "conf BLOB NOT NULL, cni_args TEXT NOT NULL, capability_args BLOB NOT NULL, "
                     "result BLOB NOT NULL, created_ns INTEGER NOT NULL) WITHOUT ROWID; "
                     "INSERT INTO attachments VALUES('ab', 1, 'b', '1', 'n', x'7b7d', '', x'7b7d', "
                     "x'', 77); PRAGMA user_version = 1")
                .ok());
  }
  auto store = Attachments::Open(root / "netd.db");
  INFO(store.status().ToString());
  REQUIRE(store.ok());
  const Attachment old = (*store)->Get(PodId("ab")).value().value();
  CHECK(old.conf == "{}");
  CHECK(old.since_boot == std::chrono::seconds(0));
  CHECK(old.partial.empty());
  CHECK((*store)->SetAttached(PodId("ab"), "1", "{}").ok());
}

TEST_CASE("Pods with a word in their arguments are found, of this boot and attached") {
  const testing::TestRoot root;
  auto store = Attachments::Open(root / "netd.db");
  REQUIRE(store.ok());
  Attachment attachment{.pod = PodId("ab"), .phase = Phase::kAttached, .boot_id = "b"};
  attachment.capability_args = R"({"ports": []})";
  REQUIRE((*store)->Put(attachment).ok());
  CHECK((*store)->AnyAttachedWith("b", "ports").value());
  CHECK_FALSE((*store)->AnyAttachedWith("a", "ports").value());
  CHECK_FALSE((*store)->AnyAttachedWith("b", "other").value());
  CHECK((*store)->SetPhase(PodId("ab"), Phase::kDetaching, "1").ok());
  CHECK_FALSE((*store)->AnyAttachedWith("b", "ports").value());
}

TEST_CASE("The log of changes is moved on once there is enough in it, beside those who record") {
  const testing::TestRoot root;
  auto store = Attachments::Open(root / "netd.db");
  REQUIRE(store.ok());
  const auto record = [&store] {
    for (int i = 0; i < 100; ++i) {
      REQUIRE((*store)->Put({.pod = PodId(std::to_string(i))}).ok());
      REQUIRE((*store)->Sync(CallContext()).ok());
    }
  };
  const auto log_size = [&root] {
    struct stat info = {};
    return ::stat((root / "netd.db-wal").c_str(), &info) == 0 ? info.st_size : 0;
  };
  CHECK_FALSE((*store)->WantsCheckpoint());
  record();
  CHECK((*store)->WantsCheckpoint());
  record();
  const auto size = log_size();
  for (int i = 0; i < 3; ++i) {
    CHECK((*store)->Checkpoint().ok());
    CHECK_FALSE((*store)->WantsCheckpoint());
    record();
    CHECK(log_size() == size);
  }
  CHECK((*store)->Count().value() == 100);
}

}  // namespace
}  // namespace crisp::netd
