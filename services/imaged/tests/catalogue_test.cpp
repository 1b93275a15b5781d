#include "services/imaged/store/catalogue.h"

#include <catch2/catch.hpp>
#include <future>

#include "libs/base/try.h"
#include "libs/testing/test_root.h"

namespace crisp::imaged {
namespace {

const WallTime kNow{std::chrono::hours(1000)};

digest::Digest D(int n) { return digest::Sha256Digest(std::to_string(n)); }

struct Fixture {
  crisp::testing::TestRoot root;
  std::unique_ptr<Catalogue> catalogue = *Catalogue::Open(root / "c.db", "boot 1");

  std::string Add(int n, const std::string& tag, const std::vector<int>& layers) {
    NewImage image;
    image.id = D(1000 + n).str();
    image.config = "{}";
    image.tag = tag;
    image.digests = {"docker.io/library/x@" + D(2000 + n).str()};
    for (const int layer : layers) {
      image.chain.push_back(D(layer));
      image.fresh_layers.push_back({D(layer), D(layer), 100, 2});
    }
    REQUIRE(catalogue->CommitImage(image, kNow).ok());
    return image.id;
  }
  std::string Resolve(const std::string& text) {
    const auto id = catalogue->Resolve(text);
    return id.ok() ? id->value_or("none") : CodeName(id.code());
  }
};

TEST_CASE("An image is found by every name that people use for it") {
  Fixture f;
  const std::string id = f.Add(1, "docker.io/library/x:latest", {1, 2});
  CHECK(f.Resolve("x") == id);
  CHECK(f.Resolve("x:latest") == id);
  CHECK(f.Resolve("docker.io/library/x") == id);
  CHECK(f.Resolve(id) == id);
  CHECK(f.Resolve(id.substr(7)) == id);
  CHECK(f.Resolve(id.substr(7, 12)) == id);
  CHECK(f.Resolve(id.substr(0, 20)) == id);
  CHECK(f.Resolve("x@" + D(2001).str()) == id);
  CHECK(f.Resolve("x:other@" + D(2001).str()) == id);
  CHECK(f.Resolve(D(2001).str()) == id);
  CHECK(f.Resolve("y") == "none");
  CHECK(f.Resolve(D(5).str()) == "none");
  CHECK(f.Resolve("UPPER CASE") == "INVALID_ARGUMENT");
  const auto record = f.catalogue->Find(id);
  REQUIRE((record.ok() && record->has_value()));
  CHECK((*record)->size == 202);
  CHECK((*record)->tags == std::vector<std::string>{"docker.io/library/x:latest"});
}

TEST_CASE("Questions do not wait for a change that waits") {
  Fixture f;
  const std::string id = f.Add(1, "docker.io/library/x:latest", {1});
  sqlite::Db other = *sqlite::Db::Open(f.root / "c.db");
  std::future<Status> change;
  {
    const auto busy = sqlite::Transaction::Begin(other);
    REQUIRE(busy.ok());
    change = std::async(std::launch::async, [&] {
      return f.catalogue->AddSnapshot({OwnerId("c1"), id, kNow});
    });
    // The change may have begun by now or not: no question is held up, and none sees it.
    for (int i = 0; i < 100; ++i) CHECK(f.catalogue->List()->size() == 1);
    CHECK(f.Resolve("x") == id);
    CHECK(f.catalogue->ListSnapshots()->empty());
    CHECK(change.wait_for(std::chrono::seconds(0)) == std::future_status::timeout);
  }
  CHECK(change.get().ok());
  CHECK(f.catalogue->ListSnapshots()->size() == 1);
}

TEST_CASE("An image's annotations are those of the manifest that was pulled last") {
  Fixture f;
  NewImage image;
  image.id = D(1001).str();
  image.config = "{}";
  image.annotations = {{"org.example/a.b", "1 \"quoted\""}, {"empty", ""}};
  REQUIRE(f.catalogue->CommitImage(image, kNow).ok());
  CHECK((**f.catalogue->Find(image.id)).annotations == image.annotations);
  f.catalogue = *Catalogue::Open(f.root / "c.db", "boot 1");
  CHECK(f.catalogue->List()->front().annotations == image.annotations);
  image.annotations.clear();
  REQUIRE(f.catalogue->CommitImage(image, kNow).ok());
  CHECK((**f.catalogue->Find(image.id)).annotations.empty());
}

TEST_CASE("A tag that moves leaves its old image there, untagged but with its digest") {
  Fixture f;
  const std::string old = f.Add(1, "docker.io/library/x:latest", {1});
  const std::string fresh = f.Add(2, "docker.io/library/x:latest", {1, 2});
  CHECK(f.Resolve("x") == fresh);
  const auto record = *f.catalogue->Find(old);
  REQUIRE(record.has_value());
  CHECK(record->tags.empty());
  CHECK(record->digests.size() == 1);
  CHECK(f.catalogue->List()->size() == 2);
}

TEST_CASE("A removed image is gone at once, but its layers stay while a snapshot needs them") {
  Fixture f;
  const std::string id = f.Add(1, "docker.io/library/x:latest", {1, 2});
  f.Add(2, "docker.io/library/y:latest", {1, 3});
  const OwnerId owner("c1");
  REQUIRE(f.catalogue->AddSnapshot({owner, id, kNow}).ok());
  CHECK(f.catalogue->AddSnapshot({owner, id, kNow}).code() == Code::kAlreadyExists);
  CHECK(*f.catalogue->RemoveImage(id));
  CHECK_FALSE(*f.catalogue->RemoveImage(id));
  CHECK(f.Resolve("x") == "none");
  CHECK(f.Resolve(id) == "none");
  CHECK(f.catalogue->List()->size() == 1);
  CHECK(f.catalogue->Config(id).ok());
  CHECK(f.catalogue->UnusedLayers(kNow)->empty());
  CHECK(f.catalogue->AddSnapshot({OwnerId("c2"), id, kNow}).code() == Code::kNotFound);
  CHECK(f.catalogue->RemoveSnapshot(owner).ok());
  CHECK(f.catalogue->RemoveSnapshot(owner).ok());
  CHECK(*f.catalogue->UnusedLayers(kNow) == std::vector<digest::Digest>{D(2)});
  CHECK(*f.catalogue->DropLayers({D(1), D(2), D(9)}) == std::vector<digest::Digest>{D(2)});
  CHECK(*f.catalogue->HasLayer(D(1)));
}

TEST_CASE("A condemned image that is pulled again is there again") {
  Fixture f;
  const std::string id = f.Add(1, "docker.io/library/x:latest", {1});
  REQUIRE(f.catalogue->AddSnapshot({OwnerId("c1"), id, kNow}).ok());
  REQUIRE(f.catalogue->RemoveImage(id).ok());
  f.Add(1, "docker.io/library/x:latest", {1});
  CHECK(f.Resolve("x") == id);
  REQUIRE(f.catalogue->RemoveSnapshot(OwnerId("c1")).ok());
  CHECK(f.Resolve("x") == id);
}

TEST_CASE("An image whose layer was collected meanwhile is not committed, not even in part") {
  Fixture f;
  NewImage image;
  image.id = D(1).str();
  image.chain = {D(7)};
  image.tag = "docker.io/library/x:latest";
  CHECK(f.catalogue->CommitImage(image, kNow).code() == Code::kAborted);
  CHECK(f.catalogue->List()->empty());
  CHECK(f.Resolve("x") == "none");
}

TEST_CASE("Layers of a failed pull are kept for a while") {
  Fixture f;
  REQUIRE(f.catalogue->AddLayers({{D(7), D(7), 10, 1}}, kNow).ok());
  CHECK(*f.catalogue->HasLayer(D(7)));
  CHECK(f.catalogue->UnusedLayers(kNow - std::chrono::seconds(1))->empty());
  CHECK(f.catalogue->UnusedLayers(kNow + std::chrono::seconds(1))->size() == 1);
  CHECK(f.catalogue->Sum()->bytes == 10);
}

TEST_CASE("What an earlier boot did not bring to the disk is forgotten, the rest is not") {
  Fixture f;
  const std::string safe = f.Add(1, "docker.io/library/x:latest", {1});
  CHECK(f.catalogue->UnsyncedLayers()->size() == 1);
  REQUIRE(f.catalogue->MarkSynced({D(1)}).ok());
  const std::string doubtful = f.Add(2, "docker.io/library/y:latest", {1, 2});
  REQUIRE(f.catalogue->AddSnapshot({OwnerId("c2"), doubtful, kNow}).ok());
  REQUIRE(f.catalogue->AddSnapshot({OwnerId("c1"), safe, kNow}).ok());
  CHECK(*f.catalogue->DropDoubtful() == 0);
  f.catalogue = *Catalogue::Open(f.root / "c.db", "boot 1");
  CHECK(*f.catalogue->DropDoubtful() == 0);
  CHECK(f.Resolve("y") == doubtful);
  f.catalogue = *Catalogue::Open(f.root / "c.db", "boot 2");
  CHECK(*f.catalogue->DropDoubtful() == 1);
  CHECK(f.Resolve("y") == "none");
  CHECK(f.Resolve("x") == safe);
  CHECK_FALSE(*f.catalogue->HasLayer(D(2)));
  CHECK(f.catalogue->ListSnapshots()->size() == 1);
}

TEST_CASE("A pull's signatures take the place of those that its reference had") {
  Fixture f;
  NewImage image;
  image.id = D(1).str();
  image.digests = {"q.io/a@" + D(2).str()};
  const auto commit = [&](const std::string& name, const std::vector<std::string>& signatures) {
    image.pulled_as = name;
    image.signatures = signatures;
    REQUIRE(f.catalogue->CommitImage(image, kNow).ok());
    return f.catalogue->Signatures(image.id).value();
  };
  using Texts = std::vector<std::string>;
  CHECK(commit("q.io/a:1", {"s1", "s2"}) == Texts{"s1", "s2"});
  CHECK(commit("q.io/a:2", {"s2", "s3"}) == Texts{"s1", "s2", "s3"});
  CHECK(commit("q.io/a:1", {"s4"}) == Texts{"s2", "s3", "s4"});
  CHECK(commit("q.io/a:2", {}) == Texts{"s4"});
}

TEST_CASE("A text is a name of an image only where the catalogue says so") {
  Fixture f;
  const std::string id = f.Add(1, "q.io/team/app:latest", {1});
  f.catalogue->SetNames([](std::string_view text) -> Result<std::vector<ref::ImageRef>> {
    if (text != "app") return std::vector{CRISP_TRY(ref::Parse(text))};
    return std::vector{*ref::Parse("docker.io/library/app"), *ref::Parse("q.io/team/app")};
  });
  CHECK(f.catalogue->NameOf("app", id)->value().Name() == "q.io/team/app");
  CHECK(f.catalogue->NameOf("q.io/team/app:latest", id)->has_value());
  CHECK_FALSE(f.catalogue->NameOf("q.io/team/app:2", id)->has_value());
  CHECK_FALSE(f.catalogue->NameOf("q.io/team/app", D(7).str())->has_value());
  CHECK_FALSE(f.catalogue->NameOf("NO NAME", id)->has_value());
}

}  // namespace
}  // namespace crisp::imaged
