#include "services/imaged/core/pull.h"

#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <future>

#include "libs/base/cleanup.h"
#include "libs/os/mount.h"
#include "libs/testing/manual_clock.h"
#include "services/imaged/tests/fake_registry.h"
#include "services/imaged/tests/node.h"
#include "services/imaged/tests/real_registry.h"

namespace crisp::imaged {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): what the tests are written in
using std::chrono::seconds;

TEST_CASE("A pulled image is there under all its names, with its files") {
  LyingRegistry registry(TwoLayers());
  Node node;
  const auto id = node.Pull(registry.Name());
  REQUIRE(id.status().message() == "");
  CHECK(*id == registry.image.config_digest);
  CHECK(node.File(*id, 0, "etc/name") == "high");
  CHECK(node.File(*id, 1, "etc/name") == "low");
  CHECK(node.File(*id, 0, "etc/noise") == Noise(700'000));
  const runtime::v1::Image image = node.Image(registry.Name());
  CHECK(image.id() == *id);
  CHECK(image.size() > 700'000);
  CHECK(image.uid().value() == 1000);
  CHECK(image.repo_tags(0) == registry.Name());
  CHECK(image.repo_digests(0) == registry.Name("@" + registry.image.manifest_digest));
  for (const std::string& name : {*id, id->substr(7), id->substr(7, 13), registry.Name(""),
                                  registry.Name("@" + registry.image.manifest_digest)})
    CHECK(node.Image(name).SerializeAsString() == image.SerializeAsString());
  node.CheckClean();
  // Again: nothing but the manifest is asked for.
  const int before = registry.blob_requests;
  CHECK(*node.Pull(registry.Name()) == *id);
  CHECK(registry.blob_requests == before);
}

TEST_CASE("Pulls of one image at once fetch it once") {
  LyingRegistry registry(TwoLayers());
  Node node;
  std::vector<std::thread> pulls;
  for (int i = 0; i < 6; ++i)
    pulls.emplace_back([&node, &registry, i] {
      const Credentials credentials{.username = i % 2 == 0 ? "" : "joe", .password = "x"};
      CHECK(node.Pull(registry.Name(), credentials).ok());
    });
  for (std::thread& pull : pulls) pull.join();
  // Two layers; the config may be asked for by each of the two different credentials.
  CHECK(registry.blob_requests <= 4);
  node.CheckClean();
}

TEST_CASE("A blob with other bytes is refused, named with both digests, and nothing is left") {
  LyingRegistry registry(TwoLayers());
  Node node;
  SECTION("a layer") { registry.wrong_blob = registry.image.layer_digests[0]; }
  SECTION("a compressed byte that still unpacks is no excuse") {
    registry.wrong_blob = registry.image.layer_digests[1];
  }
  SECTION("the config") { registry.wrong_blob = registry.image.config_digest; }
  const auto id = node.Pull(registry.Name());
  CHECK(id.code() == Code::kDataLoss);
  const std::string message = id.status().message();
  CHECK(message.find(registry.wrong_blob) != std::string::npos);
  CHECK(message.find("has the digest sha256:") != std::string::npos);
  CHECK(node.catalogue->List()->empty());
  node.CheckClean();
}

TEST_CASE("A pull whose layer another one brings does not fail with the other's registry") {
  const TestImage image =
      TestImage::Make({{TarWriter().File("f", Noise(100'000)).Done(), Pack::kGzip}});
  LyingRegistry bad(image);
  LyingRegistry good(image);
  const std::string layer = image.layer_digests[0];
  bad.wrong_blob = layer;
  std::promise<void> fetching;
  std::promise<void> joined;
  bad.before_blob = [&](const std::string& digest) {
    if (digest != layer) return;
    fetching.set_value();
    joined.get_future().wait();
  };
  Node node;
  std::thread first([&] {
    const auto id = node.Pull(bad.Name());
    CHECK(id.code() == Code::kDataLoss);
    CHECK(id.status().message().find(bad.Name()) != std::string::npos);
  });
  fetching.get_future().wait();
  const auto progress = node.puller.Watch(good.Name(), {}).value();
  std::thread second([&] {
    const auto id = node.Pull(good.Name());
    CHECK(id.status().message() == "");
  });
  const auto waits = [&progress] {
    const auto layers = progress->layers();
    return layers.size() == 1 && layers[0].state == LayerProgress::State::kDownloading;
  };
  while (!waits()) std::this_thread::yield();
  CHECK(good.blob_requests == 1);  // the config; the layer is on its way from the other
  joined.set_value();
  first.join();
  second.join();
  CHECK(good.blob_requests >= 2);
  node.CheckClean();
}

TEST_CASE("A pull fails for its cause, not for what followed from it") {
  LyingRegistry registry(TwoLayers());
  registry.wrong_blob = registry.image.layer_digests[0];
  // The layer above is there first, and waits for the one below.
  std::atomic<bool> other = false;
  registry.before_blob = [&](const std::string& digest) {
    if (digest == registry.image.layer_digests[1]) other = true;
    while (digest == registry.image.layer_digests[0] && !other) std::this_thread::yield();
  };
  Node node;
  const auto id = node.Pull(registry.Name());
  CHECK(id.code() == Code::kDataLoss);
  CHECK(id.status().message().find(registry.wrong_blob) != std::string::npos);
  node.CheckClean();
}

TEST_CASE("Layers that the catalogue cannot be told of are not left behind") {
  LyingRegistry registry(TwoLayers());
  Node node;
  sqlite::Db db = *sqlite::Db::Open(node.layout.Catalogue());
  REQUIRE(db.Exec("CREATE TRIGGER full BEFORE INSERT ON layers BEGIN SELECT RAISE(FAIL, 'no'); END")
              .ok());
  CHECK_FALSE(node.Pull(registry.Name()).ok());
  CHECK(os::ListDir(node.layout.Layers())->empty());
  CHECK(os::ListDir(node.layout.Staging())->empty());
  REQUIRE(db.Exec("DROP TRIGGER full").ok());
  CHECK(node.Pull(registry.Name()).ok());
  node.CheckClean();
}

TEST_CASE("A layer that is collected while the one above it is fetched is fetched again") {
  LyingRegistry registry(TwoLayers());
  Node node;
  const std::string id = *node.Pull(registry.Name());
  const std::vector<digest::Digest> chain = *node.catalogue->Layers(id);
  REQUIRE(node.images.Remove(id).ok());
  REQUIRE(node.catalogue->DropLayers({chain[1]})->size() == 1);
  REQUIRE(node.store.Discard(node.layout.Layer(chain[1].hex())).ok());
  registry.before_blob = [&](const std::string& digest) {
    if (digest != registry.image.layer_digests[1]) return;
    CHECK(node.gc.Collect().ok());
  };
  CHECK(node.Pull(registry.Name()).status().message() == "");
  CHECK(node.File(id, 1, "etc/name") == "low");
  CHECK(node.File(id, 0, "etc/name") == "high");
  node.CheckClean();
}

TEST_CASE("A small layer that would fill the disk is refused by the bounds that nobody has set") {
  const Pack pack = GENERATE(Pack::kGzip, Pack::kZstd);
  const TestImage bomb = TestImage::Make(
      {{TarWriter().File("zeros", std::string(std::size_t{160} << 20U, '\0')).Done(), pack}});
  LyingRegistry registry(bomb);
  std::string tag = ":latest";
  Code code = Code::kResourceExhausted;
  std::string words = "unpack to more than 200 times as many";
  SECTION("in a format of today") {}
  SECTION("that claims to be large") {
    nlohmann::json manifest = nlohmann::json::parse(bomb.manifest);
    manifest["layers"][0]["size"] = std::int64_t{1} << 40U;
    registry.documents["large"] = {bomb.manifest_type, manifest.dump()};
    tag = ":large";
    code = Code::kDataLoss;
    words = "ends early";
  }
  SECTION("in Docker's first") {
    nlohmann::json old = {{"schemaVersion", 1}, {"name", "test/image"}, {"architecture", "amd64"}};
    old["fsLayers"].push_back({{"blobSum", bomb.layer_digests[0]}});
    old["history"].push_back({{"v1Compatibility", R"({"id":"a"})"}});
    registry.documents["old"] = {"application/vnd.docker.distribution.manifest.v1+json",
                                 old.dump()};
    tag = ":old";
  }
  Node node;
  const auto id = node.Pull(registry.Name(tag));
  INFO(id.status().message());
  CHECK(id.code() == code);
  CHECK(id.status().message().find(words) != std::string::npos);
  node.CheckClean();
}

TEST_CASE("A layer whose config promises another diff id is refused") {
  TestImage image = TwoLayers();
  TestImage other = TestImage::Make({{TarWriter().File("a", "1").Done(), Pack::kGzip}});
  nlohmann::json manifest = nlohmann::json::parse(other.manifest);
  manifest["layers"][0]["digest"] = image.layer_digests[0];
  manifest["layers"][0]["size"] = image.blobs[image.layer_digests[0]].size();
  other.manifest = manifest.dump();
  other.blobs.merge(image.blobs);
  LyingRegistry registry(std::move(other));
  Node node;
  const auto id = node.Pull(registry.Name());
  CHECK(id.code() == Code::kDataLoss);
  CHECK(id.status().message().find("diff id") != std::string::npos);
  node.CheckClean();
}

TEST_CASE("A broken connection goes on from the last good byte") {
  LyingRegistry registry(TwoLayers());
  registry.cut_blob = registry.image.layer_digests[0];
  SECTION("by a Range request") {}
  SECTION("by reading past what is there, when the server knows no ranges") {
    registry.no_ranges = true;
  }
  Node node;
  const auto id = node.Pull(registry.Name());
  REQUIRE(id.status().message() == "");
  CHECK(node.File(*id, 1, "noise") == Noise(700'000));
  node.CheckClean();
}

TEST_CASE("A blob that never comes whole is given up") {
  LyingRegistry registry(TwoLayers());
  registry.cut_blob = registry.image.layer_digests[0];
  registry.always_short = true;
  Node node;
  const auto id = node.Pull(registry.Name());
  CHECK(id.code() == Code::kDataLoss);
  CHECK(id.status().message().find(registry.cut_blob) != std::string::npos);
  node.CheckClean();
}

TEST_CASE("A registry that is away for a while costs no layer what it has") {
  LyingRegistry registry(TwoLayers());
  registry.cut_blob = registry.image.layer_digests[0];
  registry.away_after_cut = 7;  // more than one request is repeated
  const auto requests = [&registry](const std::string& more) {
    const std::lock_guard lock(registry.mutex);
    return std::count_if(registry.heads.begin(), registry.heads.end(), [&](const auto& head) {
      return head.find(registry.cut_blob) != std::string::npos &&
             (head.find("Range: ") != std::string::npos) == !more.empty() &&
             head.find(more) != std::string::npos;
    });
  };
  SECTION("it comes back") {
    Node node;
    const auto id = node.Pull(registry.Name());
    REQUIRE(id.status().message() == "");
    CHECK(node.File(*id, 1, "noise") == Noise(700'000));
    CHECK(requests("") == 1);  // from the beginning; all others go on
    CHECK(requests("Range: bytes=100000-") >= 2);
    node.CheckClean();
  }
  SECTION("it does not come back in time") {
    registry.away_after_cut = 1000;
    Node node(PullOptions{.outage = std::chrono::milliseconds(10)});
    const auto id = node.Pull(registry.Name());
    CHECK(id.code() == Code::kUnknown);
    CHECK(id.status().message().starts_with("RegistryUnavailable: "));
    node.CheckClean();
  }
}

TEST_CASE("A manifest and a config that break off are asked for again") {
  LyingRegistry registry(TwoLayers());
  registry.cut_documents = 3;
  Node node;
  CHECK(node.Pull(registry.Name()).status().message() == "");
  CHECK(registry.manifest_requests == 4);
  REQUIRE(node.images.Remove(registry.Name()).ok());
  registry.cut_documents = 1000;
  const auto id = node.Pull(registry.Name());
  CHECK(id.code() == Code::kUnknown);
  CHECK(id.status().message().find("manifest latest: ") != std::string::npos);
}

TEST_CASE("A connection that goes silent is taken up again") {
  LyingRegistry registry(TwoLayers());
  registry.stalled_blob = registry.image.layer_digests[0];
  Node node(std::chrono::milliseconds(1500));
  CHECK(node.Pull(registry.Name()).status().message() == "");
}

TEST_CASE("A busy registry is asked again, a missing image is named, a missing registry too") {
  LyingRegistry registry(TwoLayers());
  registry.failures = 2;
  Node node;
  CHECK(node.Pull(registry.Name()).status().message() == "");
  const auto missing = node.Pull(registry.Name(":nope"));
  CHECK(missing.code() == Code::kNotFound);
  CHECK(missing.status().message().find(registry.Name(":nope")) != std::string::npos);
  const auto nobody = node.Pull("127.0.0.1:1/x/y");
  CHECK(nobody.code() == Code::kUnknown);  // of others the kubelet does not read the message
  CHECK(nobody.status().message().starts_with("RegistryUnavailable: "));
  CHECK(nobody.status().message().find("127.0.0.1:1") != std::string::npos);
  CHECK(node.Pull("UPPER").code() == Code::kInvalidArgument);
  CHECK(node.Pull("").code() == Code::kInvalidArgument);
  registry.failures = 1000;
  CHECK(node.Pull(registry.Name()).code() == Code::kUnknown);
}

TEST_CASE("Credentials answer the challenge that the registry makes, and never show in errors") {
  LyingRegistry registry(TwoLayers());
  Node node;
  SECTION("a token") {
    registry.token = "the-token";
    CHECK(node.Pull(registry.Name(), {.username = "joe", .password = "secret"}).ok());
    const auto wrong = node.Pull(registry.Name(), {.username = "joe", .password = "wrong-pw"});
    CHECK(wrong.code() == Code::kUnauthenticated);
    CHECK(wrong.status().message().find("wrong-pw") == std::string::npos);
    CHECK(node.Pull(registry.Name()).code() == Code::kUnauthenticated);
    CHECK(node.Pull(registry.Name(), {.registry_token = "the-token"}).ok());
    CHECK(node.Pull(registry.Name(), {.registry_token = "stale"}).code() == Code::kUnauthenticated);
  }
  SECTION("basic") {
    registry.basic = "am9lOnNlY3JldA==";
    CHECK(node.Pull(registry.Name(), {.username = "joe", .password = "secret"}).ok());
    CHECK(node.Pull(registry.Name(), {.username = "joe", .password = "wrong-pw"}).code() ==
          Code::kUnauthenticated);
  }
  SECTION("nothing is sent before it is asked for") {
    CHECK(node.Pull(registry.Name(), {.username = "joe", .password = "secret"}).ok());
    const std::lock_guard lock(registry.mutex);
    for (const std::string& head : registry.heads)
      CHECK(head.find("Authorization") == std::string::npos);
  }
}

TEST_CASE("A caller's deadline ends its wait, the pull goes on and the next call joins it") {
  LyingRegistry registry(TwoLayers());
  registry.stalled_blob = registry.image.layer_digests[0];
  Node node(std::chrono::milliseconds(1500));
  const auto brief = node.puller.Pull(CallContext::Background(std::chrono::milliseconds(100)),
                                      registry.Name(), {});
  CHECK(brief.code() == Code::kDeadlineExceeded);
  CHECK(node.Pull(registry.Name()).ok());
  CHECK(registry.manifest_requests == 1);
}

TEST_CASE("A pull that everybody has left is stopped, and the next one goes on from its layers") {
  LyingRegistry registry(TwoLayers());
  registry.stalled_blob = registry.image.layer_digests[0];
  Node node;
  std::stop_source left;
  const CallContext cc(std::chrono::steady_clock::now() + seconds(60), left.get_token(), "caller");
  auto pull =
      std::async(std::launch::async, [&] { return node.puller.Pull(cc, registry.Name(), {}); });
  const auto progress = node.puller.Watch(registry.Name(), {}).value();
  const auto other_is_there = [&progress] {
    const auto layers = progress->layers();
    return layers.size() == 2 && layers[1].state == LayerProgress::State::kUnpacked;
  };
  while (!other_is_there()) std::this_thread::yield();
  node.puller.StopAbandoned(seconds(0));  // somebody waits
  left.request_stop();
  CHECK(pull.get().code() == Code::kCancelled);
  node.puller.StopAbandoned(seconds(60));  // not for long enough
  CHECK_FALSE(node.puller.Quiet());
  node.puller.StopAbandoned(seconds(0));
  // The stalled layer is silent for a minute: only the stop ends it before.
  const auto id = node.Pull(registry.Name());
  REQUIRE(id.status().message() == "");
  CHECK(node.File(*id, 0, "etc/name") == "high");
  CHECK(registry.manifest_requests == 2);
  node.CheckClean();
}

TEST_CASE("Snapshots are idempotent by owner, hold their layers and are freed when orphaned") {
  LyingRegistry registry(TwoLayers());
  Node node;
  const std::string id = *node.Pull(registry.Name());
  const OwnerId owner("c1");
  const auto first = node.snapshots.Prepare(Node::Call(), owner, registry.Name());
  REQUIRE(first.ok());
  CHECK(first->image_id == id);
  CHECK(first->image_name == registry.Name());
  CHECK(first->mount.lower_dirs.size() == 2);
  CHECK(os::IsDirectory(first->mount.upper_dir));
  CHECK(os::IsDirectory(first->mount.work_dir));
  CHECK(node.snapshots.Prepare(Node::Call(), owner, id)->mount.upper_dir == first->mount.upper_dir);
  CHECK(node.snapshots.Prepare(Node::Call(), OwnerId("c2"), "nope").code() == Code::kNotFound);
  CHECK(node.snapshots.Prepare(Node::Call(), owner, "nope").code() == Code::kFailedPrecondition);
  CHECK(node.snapshots.Prepare(Node::Call(), OwnerId("../x"), id).code() == Code::kInvalidArgument);

  CHECK(node.images.Remove(registry.Name()).ok());
  CHECK(node.images.Remove(registry.Name()).ok());
  CHECK(node.Image(id).id().empty());
  REQUIRE(node.gc.Collect().ok());
  CHECK(os::ListDir(node.layout.Layers())->size() == 2);
  CHECK(node.snapshots.Prepare(Node::Call(), owner, id).ok());
  CHECK(node.snapshots.Reconcile(Node::Call(), {}, seconds(60)).freed.empty());
  CHECK(node.snapshots.Reconcile(Node::Call(), {owner}, seconds(0)).freed.empty());
  CHECK(node.snapshots.Reconcile(Node::Call(), {OwnerId("c9")}, seconds(-1)).freed.size() == 1);
  CHECK(node.snapshots.Release(Node::Call(), owner).ok());
  REQUIRE(node.gc.Collect().ok());
  CHECK(os::ListDir(node.layout.Layers())->empty());
  CHECK(os::ListDir(node.layout.Snapshots())->empty());
  CHECK(*node.gc.EmptyTrash(Node::Call()));
  CHECK(os::ListDir(node.layout.Trash())->empty());
}

/// A mount point cannot be renamed, and what is below it is not ours to delete.
class Obstacle {
 public:
  explicit Obstacle(std::string path) : path_(std::move(path)) {
    REQUIRE(os::MakeDirs(path_).ok());
    REQUIRE(::mount("none", path_.c_str(), "tmpfs", 0, nullptr) == 0);
  }
  Obstacle(const Obstacle&) = delete;
  Obstacle& operator=(const Obstacle&) = delete;
  ~Obstacle() { Lift(); }
  void Lift() {
    if (!path_.empty()) CHECK(::umount2(path_.c_str(), MNT_DETACH) == 0);
    path_.clear();
  }

 private:
  std::string path_;
};

TEST_CASE("One tree that cannot be deleted does not hold up the others") {
  LyingRegistry registry(TwoLayers());
  Node node;
  REQUIRE(node.Pull(registry.Name()).ok());
  for (const char* owner : {"c1", "c2", "c3"})
    REQUIRE(node.snapshots.Prepare(Node::Call(), OwnerId(owner), registry.Name()).ok());
  const auto held = node.layout.Snapshot("c1");
  {
    const Obstacle mounted(held);
    const auto done = node.snapshots.Reconcile(Node::Call(), {}, seconds(-1));
    CHECK(done.freed == std::vector<OwnerId>{OwnerId("c2"), OwnerId("c3")});
    CHECK_FALSE(done.failed.ok());
  }
  CHECK(node.snapshots.Reconcile(Node::Call(), {}, seconds(-1)).freed.size() == 1);

  REQUIRE(node.images.Remove(registry.Name()).ok());
  const std::string first = node.catalogue->UnusedLayers(Clock::System().Wall())->front().str();
  Obstacle layer(node.layout.Layer(first.substr(7)));
  CHECK_FALSE(node.gc.Collect().ok());
  CHECK(node.catalogue->AllLayers()->empty());
  CHECK(os::ListDir(node.layout.Layers())->size() == 1);
  layer.Lift();
  REQUIRE(node.gc.Recover().ok());
  CHECK(os::ListDir(node.layout.Layers())->empty());

  Obstacle trash(node.layout.Trash() + "/000/below");
  CHECK(node.gc.EmptyTrash(Node::Call()).code() == Code::kFailedPrecondition);
  CHECK(os::ListDir(node.layout.Trash())->size() == 1);
  trash.Lift();
  CHECK(*node.gc.EmptyTrash(Node::Call()));
}

TEST_CASE("Trash waits for pulls, but not for ever, and not where space is wanted") {
  Node node;
  crisp::testing::ManualClock clock;
  bool quiet = false;
  Gc gc(*node.catalogue, node.store, node.metrics, clock, [&quiet] { return quiet; },
        {.low_percent = 0});
  const auto throw_away = [&node] {
    REQUIRE(os::MakeDirs(node.layout.Layer("x") + "/diff/deep").ok());
    REQUIRE(node.store.Discard(node.layout.Layer("x")).ok());
  };
  throw_away();
  CHECK_FALSE(*gc.EmptyTrash(Node::Call()));
  clock.Advance(std::chrono::minutes(4));
  CHECK_FALSE(*gc.EmptyTrash(Node::Call()));
  clock.Advance(std::chrono::minutes(1));
  CHECK(*gc.EmptyTrash(Node::Call()));
  CHECK(node.store.Trash()->empty());
  // The next trash waits anew.
  throw_away();
  CHECK_FALSE(*gc.EmptyTrash(Node::Call()));
  quiet = true;
  CHECK(*gc.EmptyTrash(Node::Call()));
  quiet = false;
  throw_away();
  Gc full(*node.catalogue, node.store, node.metrics, clock, [] { return false; },
          {.low_percent = 101});
  CHECK(*full.EmptyTrash(Node::Call()));
}

TEST_CASE("Who removes an image waits for its own layers, not for other trash, and not for long") {
  LyingRegistry registry(TwoLayers());
  Node node;
  const auto id = node.Pull(registry.Name());
  REQUIRE(id.ok());
  REQUIRE(os::MakeDirs(node.layout.Layer("x") + "/diff/deep").ok());
  REQUIRE(node.store.Discard(node.layout.Layer("x")).ok());
  // Somebody else's garbage, that nobody has collected yet.
  const digest::Digest other = digest::Sha256Digest("other");
  REQUIRE(node.catalogue->AddLayers({LayerRecord{other, other}}, WallTime()).ok());
  REQUIRE(os::MakeDirs(node.layout.Diff(other.hex())).ok());
  const auto layers = node.images.Remove(registry.Name());
  REQUIRE(layers.ok());
  CHECK(layers->size() == 2);
  SECTION("with time") {
    CHECK(*node.gc.FreeNow(Node::Call(), *layers));
    CHECK(node.store.Trash()->size() == 1);
  }
  SECTION("without") {
    CHECK_FALSE(*node.gc.FreeNow(CallContext::Background(seconds(0)), *layers));
    CHECK(node.store.Trash()->size() == 3);  // out of the way
  }
  SECTION("while another image has one of them") {
    NewImage sharing;
    sharing.id = "sha256:" + std::string(64, 'a');
    sharing.config = "{}";
    sharing.chain = {layers->front()};
    REQUIRE(node.catalogue->CommitImage(sharing, Clock::System().Wall()).ok());
    CHECK(*node.gc.FreeNow(Node::Call(), *layers));
    CHECK(os::IsDirectory(node.layout.Diff(layers->front().hex())));
    CHECK_FALSE(os::Exists(node.layout.Diff(layers->back().hex())));
  }
  CHECK(os::IsDirectory(node.layout.Diff(other.hex())));
}

TEST_CASE("Read-only views hold their image for the owner until it releases all at once") {
  LyingRegistry registry(TwoLayers());
  Node node;
  const std::string id = *node.Pull(registry.Name());
  const OwnerId owner("c1");
  const auto view = node.snapshots.PrepareVolume(Node::Call(), owner, 0, registry.Name());
  REQUIRE(view.ok());
  CHECK(view->image_id == id);
  CHECK(view->layers.size() == 2);
  CHECK(node.snapshots.PrepareVolume(Node::Call(), owner, 0, id)->layers == view->layers);
  CHECK(node.snapshots.PrepareVolume(Node::Call(), owner, 7, id).ok());
  CHECK(node.snapshots.PrepareVolume(Node::Call(), owner, 1, "nope").code() == Code::kNotFound);
  CHECK(node.snapshots.PrepareVolume(Node::Call(), owner, 0, "nope").code() ==
        Code::kFailedPrecondition);
  CHECK(os::ListDir(node.layout.Snapshots())->empty());

  CHECK(node.images.Remove(registry.Name()).ok());
  REQUIRE(node.gc.Collect().ok());
  CHECK(os::ListDir(node.layout.Layers())->size() == 2);
  // Another owner, whose name begins the same way, lets nothing of it go.
  CHECK(node.snapshots.Release(Node::Call(), OwnerId("c")).ok());
  CHECK(node.snapshots.Reconcile(Node::Call(), {owner}, seconds(-1)).freed.empty());
  CHECK(node.snapshots.PrepareVolume(Node::Call(), owner, 7, id).ok());
  CHECK(node.snapshots.Release(Node::Call(), owner).ok());
  CHECK(node.snapshots.Release(Node::Call(), owner).ok());
  CHECK(node.snapshots.PrepareVolume(Node::Call(), owner, 0, id).code() == Code::kNotFound);
  REQUIRE(node.gc.Collect().ok());
  CHECK(os::ListDir(node.layout.Layers())->empty());

  REQUIRE(node.Pull(registry.Name()).ok());
  REQUIRE(node.snapshots.PrepareVolume(Node::Call(), owner, 0, registry.Name()).ok());
  CHECK(node.snapshots.Reconcile(Node::Call(), {OwnerId("c9")}, seconds(-1)).freed.size() == 1);
}

TEST_CASE("Where nothing can be overlaid a volume of several layers is a copy") {
  LyingRegistry registry(TwoLayers());
  Node node;
  REQUIRE(node.Pull(registry.Name()).ok());
  Snapshots vfs(*node.catalogue, node.store, node.trust, node.metrics, Clock::System(),
                Snapshots::Driver::kVfs);
  const OwnerId owner("c1");
  const auto volume = vfs.PrepareVolume(Node::Call(), owner, 3, registry.Name());
  REQUIRE(volume.status().message() == "");
  REQUIRE(volume->layers.size() == 1);
  CHECK(os::ReadFile(volume->layers[0] + "/etc/name").value_or("") == "high");
  CHECK(os::ReadFile(volume->layers[0] + "/etc/noise").value_or("") == Noise(700'000));
  CHECK(vfs.PrepareVolume(Node::Call(), owner, 3, registry.Name())->layers == volume->layers);
  // It stays while its row does, and goes with its owner.
  REQUIRE(node.gc.Recover().ok());
  CHECK(os::IsDirectory(volume->layers[0]));
  REQUIRE(vfs.Release(Node::Call(), owner).ok());
  CHECK(os::ListDir(node.layout.Snapshots())->empty());
  // A copy that was interrupted is made anew.
  const std::string partial = node.layout.Snapshot("c2.volume-0") + "/rootfs.partial";
  REQUIRE(os::MakeDirs(partial + "/stray").ok());
  const auto again = vfs.PrepareVolume(Node::Call(), OwnerId("c2"), 0, registry.Name());
  REQUIRE(again.ok());
  CHECK_FALSE(os::Exists(again->layers[0] + "/stray"));
}

TEST_CASE("The kernel's overlay of a snapshot shows the image, deletions and all") {
  LyingRegistry registry(TestImage::Make({{TarWriter()
                                               .Dir("./", {.mode = 0751})
                                               .Dir("etc/", {.mode = 0700, .uid = 9})
                                               .File("etc/gone", "x")
                                               .File("etc/kept", "low")
                                               .Dir("opaque/")
                                               .File("opaque/old", "x")
                                               .File("was-file", "x")
                                               .Dir("was-dir/")
                                               .File("was-dir/in", "x")
                                               .Done(),
                                           Pack::kGzip},
                                          {TarWriter()
                                               .File("etc/.wh.gone", "")
                                               .File("etc/added", "high")
                                               .Dir("opaque/")
                                               .File("opaque/.wh..wh..opq", "")
                                               .File("opaque/new", "n")
                                               .Dir("was-file/")
                                               .File("was-file/in", "n")
                                               .File(".wh.was-dir", "")
                                               .File("was-dir", "n")
                                               .HardLink("linked", "etc/kept")
                                               .Done(),
                                           Pack::kZstd}}));
  Node node;
  REQUIRE(node.Pull(registry.Name()).status().message() == "");
  // With what an operator may add.
  Snapshots snapshots(*node.catalogue, node.store, node.trust, node.metrics, Clock::System(),
                      Snapshots::Driver::kOverlay,
                      {"nodev", "xino=off", "redirect_dir=nofollow", "metacopy=off", "uuid=null"});
  const auto snapshot = snapshots.Prepare(Node::Call(), OwnerId("c1"), registry.Name());
  REQUIRE(snapshot.ok());
  const std::string rootfs = node.root / "rootfs";
  REQUIRE(os::MakeDirs(rootfs).ok());
  const OverlayMount& mount = snapshot->mount;
  const os::Overlay overlay{mount.lower_dirs, mount.upper_dir, mount.work_dir, mount.options};
  for (int round = 0; round < 2; ++round) {  // a second mount of a volatile upper, as after a crash
    REQUIRE(node.snapshots.Prepare(Node::Call(), OwnerId("c1"), registry.Name()).ok());
    REQUIRE(os::MountOverlay(overlay, rootfs).message() == "");
    const Cleanup unmount([&rootfs] { CHECK(os::Unmount(rootfs, os::UnmountHow::kNormal).ok()); });
    const auto list = [&rootfs](const std::string& path) {
      return os::ListDir(rootfs + "/" + path).value_or({});
    };
    CHECK(list("etc") == std::vector<std::string>{"added", "kept"});
    CHECK(list("opaque") == std::vector<std::string>{"new"});
    CHECK(list("was-file") == std::vector<std::string>{"in"});
    CHECK(os::ReadFile(rootfs + "/was-dir").value_or("") == "n");
    CHECK(os::ReadFile(rootfs + "/linked").value_or("") == "low");
    struct stat info {};
    REQUIRE(::stat(rootfs.c_str(), &info) == 0);
    CHECK((info.st_mode & 07777U) == 0751);
    REQUIRE(::stat((rootfs + "/etc").c_str(), &info) == 0);
    CHECK((info.st_mode & 07777U) == 0700);
    CHECK(info.st_uid == 9);
    CHECK(os::WriteFile(rootfs + "/written", "w").ok());
  }
  CHECK(node.snapshots.Release(Node::Call(), OwnerId("c1")).ok());
}

TEST_CASE("A manifest's annotations come back with the image, as far as they are not too many") {
  TestImage image = TwoLayers();
  nlohmann::json manifest = nlohmann::json::parse(image.manifest);
  manifest["annotations"] = {{"a", "1"}, {"org.example.key", "v"}, {"odd", 7}};
  image.manifest = manifest.dump();
  image.manifest_digest = "sha256:" + digest::Sha256Hex(image.manifest);
  LyingRegistry registry(image);
  manifest["annotations"]["z"] = std::string(20'000, 'z');
  registry.documents["many"] = {image.manifest_type, manifest.dump()};
  Node node;
  for (const char* tag : {":latest", ":many"}) {
    REQUIRE(node.Pull(registry.Name(tag)).ok());
    const runtime::v1::ImageSpec spec = node.Image(registry.Name(tag)).spec();
    CHECK(spec.image() == image.config_digest);
    CHECK(spec.annotations_size() == 2);
    CHECK(spec.annotations().at("a") == "1");
    CHECK(spec.annotations().at("org.example.key") == "v");
  }
}

TEST_CASE("Of an image that holds a checkpoint there is no snapshot, but a view") {
  const std::string key = GENERATE("org.criu.checkpoint.container.name",
                                   "io.kubernetes.cri-o.annotations.checkpoint.name");
  TestImage image = TwoLayers();
  nlohmann::json manifest = nlohmann::json::parse(image.manifest);
  manifest["annotations"] = {{key, "counter"}};
  image.manifest = manifest.dump();
  image.manifest_digest = "sha256:" + digest::Sha256Hex(image.manifest);
  LyingRegistry registry(image);
  Node node;
  REQUIRE(node.Pull(registry.Name()).ok());
  const OwnerId owner("c1");
  const auto snapshot = node.snapshots.Prepare(Node::Call(), owner, registry.Name());
  REQUIRE(snapshot.ok());
  CHECK(snapshot->checkpoint_of == "counter");
  CHECK(os::ListDir(node.layout.Snapshots())->empty());
  CHECK(node.snapshots.PrepareVolume(Node::Call(), owner, 5, registry.Name())->layers.size() == 2);
  CHECK(node.snapshots.Release(Node::Call(), owner).ok());
}

/// `image` with OCI's empty configuration in the place of its own.
TestImage WithoutConfig(TestImage image, const std::string& artifact_type = "") {
  nlohmann::json manifest = nlohmann::json::parse(image.manifest);
  manifest["config"] = {
      {"mediaType", "application/vnd.oci.empty.v1+json"}, {"digest", image.Add("{}")}, {"size", 2}};
  if (!artifact_type.empty()) manifest["artifactType"] = artifact_type;
  image.blobs.erase(image.config_digest);
  image.manifest = manifest.dump();
  image.manifest_digest = "sha256:" + digest::Sha256Hex(image.manifest);
  return image;
}

TEST_CASE("An image's layers with the empty configuration are an image all the same") {
  LyingRegistry registry(WithoutConfig(TwoLayers()));
  Node node;
  const auto id = node.Pull(registry.Name());
  REQUIRE(id.status().message() == "");
  CHECK(node.File(*id, 0, "etc/name") == "high");
  CHECK(node.File(*id, 1, "etc/name") == "low");
  CHECK(*node.Pull(registry.Name()) == *id);
  const auto snapshot = node.snapshots.Prepare(Node::Call(), OwnerId("c1"), registry.Name());
  REQUIRE(snapshot.ok());
  CHECK(snapshot->mount.lower_dirs.size() == 2);
  // The layers are those of the image with its configuration.
  LyingRegistry whole(TwoLayers());
  REQUIRE(node.Pull(whole.Name()).ok());
  CHECK(whole.blob_requests == 1);
  node.CheckClean();
}

TEST_CASE("An artifact's blobs are files, to be mounted as a volume") {
  const std::string model = Noise(700'000);
  TestImage artifact;
  nlohmann::json manifest = {{"schemaVersion", 2}, {"layers", nlohmann::json::array()}};
  const auto add = [&](const std::string& text, const std::string& title) {
    nlohmann::json layer = {{"mediaType", "application/vnd.oci.image.layer.v1.tar"},
                            {"digest", artifact.Add(text)},
                            {"size", text.size()}};
    if (!title.empty()) layer["annotations"] = {{"org.opencontainers.image.title", title}};
    artifact.layer_digests.push_back(layer["digest"]);
    manifest["layers"].push_back(std::move(layer));
  };
  add(model, "model.bin");
  add("hello", "docs/readme.md");
  add("", "empty");
  artifact.manifest = manifest.dump();
  artifact.manifest_type = "application/vnd.oci.image.manifest.v1+json";
  LyingRegistry registry(WithoutConfig(artifact, "text/x-model"));
  Node node;
  SECTION("a blob that is another's is refused") {
    registry.wrong_blob = artifact.layer_digests[0];
    CHECK(node.Pull(registry.Name()).code() == Code::kDataLoss);
    CHECK(node.catalogue->List()->empty());
  }
  SECTION("a blob that breaks off goes on") {
    registry.cut_blob = artifact.layer_digests[0];
    CHECK(node.Pull(registry.Name()).status().message() == "");
  }
  SECTION("it is listed, found by its names, and mounted") {
    const auto id = node.Pull(registry.Name());
    REQUIRE(id.status().message() == "");
    CHECK(node.Image(registry.Name("@" + registry.image.manifest_digest)).id() == *id);
    CHECK(node.Image(*id).size() > model.size());
    const auto volume =
        node.snapshots.PrepareVolume(Node::Call(), OwnerId("c1"), 0, registry.Name());
    REQUIRE(volume.status().message() == "");
    const std::string at = node.root / "volume";
    REQUIRE(os::MakeDirs(at).ok());
    REQUIRE(os::MountOverlay({.lower_dirs = volume->layers, .options = {"userxattr", "ro"}}, at)
                .message() == "");
    const Cleanup unmount([&at] { CHECK(os::Unmount(at).ok()); });
    CHECK(os::ReadFile(at + "/model.bin").value_or("") == model);
    CHECK(os::ReadFile(at + "/docs/readme.md").value_or("") == "hello");
    CHECK(os::ReadFile(at + "/empty").value_or("absent").empty());
    CHECK(os::ListDir(at)->size() == 3);
    struct stat info {};
    REQUIRE(::stat((at + "/model.bin").c_str(), &info) == 0);
    CHECK((info.st_mode & 07777U) == 0644);
    // The same files of another artifact are another image; they are not fetched again.
    nlohmann::json other = nlohmann::json::parse(registry.image.manifest);
    other["artifactType"] = "text/x-other";
    registry.documents["other"] = {artifact.manifest_type, other.dump()};
    const int before = registry.blob_requests;
    const auto second = node.Pull(registry.Name(":other"));
    REQUIRE(second.status().message() == "");
    CHECK(*second != *id);
    CHECK(registry.blob_requests == before);
  }
  node.CheckClean();
}

TEST_CASE("What an interrupted pull or release left is garbage at the next start") {
  LyingRegistry registry(TwoLayers());
  Node node;
  const std::string id = *node.Pull(registry.Name());
  const digest::Digest stray = digest::Sha256Digest("stray");
  REQUIRE(os::MakeDirs(node.layout.Diff(stray.hex())).ok());
  REQUIRE(os::MakeDirs(node.layout.Snapshot("gone") + "/upper").ok());
  REQUIRE(node.store.Stage(stray).ok());
  const auto held = node.store.TryLock(digest::Sha256Digest("other"));
  REQUIRE(node.store.Stage(digest::Sha256Digest("other")).ok());
  REQUIRE(node.gc.Recover().ok());
  CHECK(os::ListDir(node.layout.Layers())->size() == 2);
  CHECK(os::ListDir(node.layout.Snapshots())->empty());
  CHECK(os::ListDir(node.layout.Staging())->size() == 1);  // another instance is at it
  CHECK(node.File(id, 0, "etc/name") == "high");
}

TEST_CASE("A layer that a power cut took is forgotten, and the next pull brings it") {
  LyingRegistry registry(TwoLayers());
  Node node;
  const std::string id = *node.Pull(registry.Name());
  const std::vector<digest::Digest> chain = *node.catalogue->Layers(id);
  REQUIRE(os::RemoveTree(node.layout.Layer(chain[1].hex())).ok());
  REQUIRE(node.gc.Recover().ok());
  CHECK(node.catalogue->List()->empty());
  CHECK(*node.catalogue->HasLayer(chain[0]));
  CHECK_FALSE(*node.catalogue->HasLayer(chain[1]));
  CHECK(*node.Pull(registry.Name()) == id);
  CHECK(node.File(id, 0, "etc/name") == "high");
  // Under a container it stays, and others start all the same.
  REQUIRE(node.snapshots.Prepare(Node::Call(), OwnerId("c1"), id).ok());
  REQUIRE(os::RemoveTree(node.layout.Layer(chain[1].hex())).ok());
  REQUIRE(node.gc.Recover().ok());
  CHECK(node.catalogue->List()->size() == 1);
}

TEST_CASE("What a container's image is called decides by which policy") {
  LyingRegistry registry(TwoLayers());
  Node node;
  REQUIRE(os::MakeDirs(node.root / "etc").ok());
  node.root.Write("etc/registries.conf",
                  "[aliases]\napp = \"" + registry.Name("") + "\"\nother = \"x.io/other\"\n");
  const std::string id = *node.Pull(registry.Name());
  int owners = 0;
  const auto prepare = [&](const std::string& image, const std::string& user_specified) {
    return node.snapshots
        .Prepare(Node::Call(), OwnerId(fmt::format("c{}", ++owners)), image, user_specified)
        .status()
        .message();
  };
  const auto policy = [&node](const std::string& scope, const char* there, const char* else_) {
    node.root.Write("policy.json", fmt::format(R"({{"default":[{{"type":"{}"}}],
                                    "transports":{{"docker":{{"{}":[{{"type":"{}"}}]}}}}}})",
                                               else_, scope, there));
  };
  constexpr const char* kAccept = "insecureAcceptAnything";
  // The alias means what the pull meant by it, whichever way the policy goes.
  policy(registry.Name(""), kAccept, "reject");
  CHECK(prepare("app", "").empty());
  CHECK(prepare(id, "app").empty());
  CHECK(prepare(id, "app:latest").empty());
  CHECK(prepare(id, "").empty());
  policy(registry.Name(""), "reject", kAccept);
  CHECK(prepare("app", "").starts_with("SignatureValidationFailed: "));
  CHECK(prepare(id, "app").starts_with("SignatureValidationFailed: "));
  CHECK(prepare(id, "").starts_with("SignatureValidationFailed: "));
  // A name that is not this image's chooses no policy.
  policy("x.io", kAccept, "reject");
  CHECK(prepare(id, "x.io/other:latest").starts_with("SignatureValidationFailed: "));
  CHECK(prepare(id, "other").starts_with("SignatureValidationFailed: "));
  // Of several names, a bare id wants all to pass.
  policy(registry.Name(""), kAccept, "reject");
  NewImage more;
  more.id = id;
  more.config = "{}";
  more.chain = *node.catalogue->Layers(id);
  more.tag = "z.io/more:1";
  REQUIRE(node.catalogue->CommitImage(more, Clock::System().Wall()).ok());
  CHECK(prepare(registry.Name(), "").empty());
  CHECK(prepare(id, "").starts_with("SignatureValidationFailed: "));
}

void Push(RealRegistry& registry, const std::string& repository, const TestImage& image,
          const std::string& tag) {
  registry.PushBlobs(repository, image.blobs);
  registry.PushManifest(repository, image.manifest, image.manifest_type, tag);
}

TEST_CASE("Images come from a real registry, of each kind that it serves") {
  RealRegistry registry;
  Node node;
  const std::string low =
      TarWriter().Dir("bin/").File("bin/sh", Noise(3'000'000), {.mode = 0755}).Done();
  const std::string high = TarWriter().File("bin/.wh.old", "").File("etc/motd", "hi").Done();
  SECTION("OCI with gzip, zstd and plain layers") {
    const TestImage image = TestImage::Make({{low, Pack::kGzip},
                                             {high, Pack::kZstd},
                                             {TarWriter().File("p", "q").Done(), Pack::kPlain}});
    Push(registry, "a/oci", image, "v1");
    const auto id = node.Pull(registry.Host() + "/a/oci:v1");
    REQUIRE(id.status().message() == "");
    CHECK(node.File(*id, 1, "etc/motd") == "hi");
    CHECK(node.File(*id, 0, "p") == "q");
    CHECK(*node.Pull(registry.Host() + "/a/oci@" + image.manifest_digest) == *id);
  }
  SECTION("Docker schema 2") {
    Push(registry, "docker",
         TestImage::Make({{low, Pack::kGzip}, {high, Pack::kGzip}}, Flavour::kDocker), "latest");
    const auto id = node.Pull(registry.Host() + "/docker");
    REQUIRE(id.status().message() == "");
    CHECK(node.File(*id, 1, "bin/sh") == Noise(3'000'000));
  }
  SECTION("an index of several platforms") {
    const Platform host = Platform::Host();
    const TestImage mine = TestImage::Make({{low, Pack::kGzip}});
    const TestImage other = TestImage::Make({{high, Pack::kGzip}});
    Push(registry, "multi", mine, "mine");
    Push(registry, "multi", other, "other");
    nlohmann::json index = {{"schemaVersion", 2},
                            {"mediaType", "application/vnd.oci.image.index.v1+json"}};
    const auto entry = [](const TestImage& image, const std::string& architecture) {
      return nlohmann::json{{"mediaType", image.manifest_type},
                            {"digest", image.manifest_digest},
                            {"size", image.manifest.size()},
                            {"platform", {{"os", "linux"}, {"architecture", architecture}}}};
    };
    index["manifests"] = {entry(other, "s390x"), entry(mine, host.architecture)};
    registry.PushManifest("multi", index.dump(), "application/vnd.oci.image.index.v1+json",
                          "latest");
    const auto id = node.Pull(registry.Host() + "/multi");
    REQUIRE(id.status().message() == "");
    CHECK(*id == mine.config_digest);
    // What the reference stands for comes first, then what this platform got of it.
    const auto names = [&] {
      const runtime::v1::Image image = node.Image(*id);
      return std::vector<std::string>(image.repo_digests().begin(), image.repo_digests().end());
    };
    const std::string of_index =
        registry.Host() + "/multi@" + "sha256:" + digest::Sha256Hex(index.dump());
    const std::string of_manifest = registry.Host() + "/multi@" + mine.manifest_digest;
    CHECK(names() == std::vector{of_index, of_manifest});
    CHECK(node.Image(of_manifest).id() == *id);
    CHECK(node.Image(mine.manifest_digest).id() == *id);
    CHECK(node.snapshots.Prepare(Node::Call(), OwnerId("c1"), *id)->image_ref == of_index);
    // Asked for by itself it is a name of its own.
    REQUIRE(*node.Pull(of_manifest) == *id);
    CHECK(names().size() == 2);
    REQUIRE(*node.Pull(registry.Host() + "/multi") == *id);
    CHECK(names().size() == 2);
  }
  SECTION("an image that is not there") {
    CHECK(node.Pull(registry.Host() + "/none").code() == Code::kNotFound);
  }
  node.CheckClean();
}

}  // namespace
}  // namespace crisp::imaged
