// Layers in the form of zstd:chunked: of one whose files are here only the rest comes, and whatever
// is wrong with its table, the layer is what it should be in the end. Needs root.
#include <algorithm>
#include <catch2/catch.hpp>

#include "services/imaged/core/chunked.h"
#include "services/imaged/core/gather.h"
#include "services/imaged/store/file_index.h"
#include "services/imaged/tests/chunked_blob.h"
#include "services/imaged/tests/node.h"
#include "services/imaged/tests/real_registry.h"
#include "services/imaged/tests/second_opinion.h"

namespace crisp::imaged {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): what the tests are written in

constexpr std::size_t kFiles = 24;
constexpr unsigned kChanged = 13;

/// A layer with everything that tars have and 5 MiB of files, of which one is another in version 2.
std::string LayerTar(unsigned version) {
  TarWriter tar;
  const std::string features = EveryFeature(true).front();
  tar.Raw(std::string_view(features).substr(0, features.size() - 1024)).Dir("data/");
  for (unsigned i = 0; i < kFiles; ++i) {
    const unsigned seed = i == kChanged ? 1000 + version : i;
    tar.File(fmt::format("data/{}", i), NoiseOf(seed, 150'000 + 7919 * i));
  }
  tar.File("data/again", NoiseOf(3, 150'000 + 7919 * 3));
  return tar.Done();
}

TestImage Version(unsigned version, const ChunkedLies& lies = {}) {
  const std::string tar = LayerTar(version);
  return ChunkedImage(tar, ChunkedWriter(lies).Write(tar));
}

/// A registry of version 1, and of another image as ":v2".
struct TwoVersions {
  explicit TwoVersions(TestImage second) : next(std::move(second)), registry(Version(1)) {
    registry.Also(next, "v2");
  }
  const std::string& Layer() const { return next.layer_digests[0]; }
  std::uint64_t Size() const { return next.blobs.at(Layer()).size(); }
  TestImage next;
  LyingRegistry registry;
};

std::string DiffOf(Node& node, const std::string& image) {
  const auto chains = node.catalogue->Layers(image);
  REQUIRE(chains.ok());
  return node.layout.Diff(chains->front().hex());
}

/// What version 2 is where it comes whole.
Tree Expected() {
  LyingRegistry registry(Version(2));
  Node node;
  const auto id = node.Pull(registry.Name());
  REQUIRE(id.status().message() == "");
  return Tree(DiffOf(node, *id));
}

void CheckVersion2(Node& node, const std::string& image) {
  static const Tree kExpected = Expected();
  CheckSame(Tree(DiffOf(node, image)), kExpected);
  node.CheckClean();
}

double Metric(Node& node, const std::string& name) {
  const std::string all = node.registry.Render();
  const std::size_t at = all.find("\n" + name + " ");
  REQUIRE(at != std::string::npos);
  return std::stod(all.substr(at + name.size() + 2));
}

TEST_CASE("Of a layer whose files are here only the rest comes") {
  TwoVersions two(Version(2));
  PullOptions options;
  SECTION("over one connection") {}
  SECTION("over several") {
    options.spread = {.first = 3, .most = 3};
    options.ranged_from = KiB(64);
  }
  SECTION("with a single node-wide one") { options.parallel_downloads = 1; }
  Node node(options);
  REQUIRE(node.Pull(two.registry.Name()).status().message() == "");
  const auto id = node.Pull(two.registry.Name(":v2"));
  REQUIRE(id.status().message() == "");
  CheckVersion2(node, *id);
  // The changed file, 250 KB; the sparse ones and those with several entries of a name are small.
  CHECK(two.registry.Answered(two.Layer()) < two.Size() / 10);
  CHECK(Metric(node, "crisp_imaged_reused_bytes_total") > static_cast<double>(two.Size()) * 0.9);
  CHECK(Metric(node, "crisp_imaged_fetched_bytes_total") < static_cast<double>(two.Size()) * 1.2);
}

TEST_CASE("A layer that was made of others' files serves its own in turn") {
  TwoVersions two(Version(2));
  Node node;
  REQUIRE(node.Pull(two.registry.Name()).ok());
  REQUIRE(node.Pull(two.registry.Name(":v2")).ok());
  const TestImage third = Version(3);
  two.registry.Also(third, "v3");
  REQUIRE(*node.catalogue->RemoveImage(node.Image(two.registry.Name()).id()));
  REQUIRE(node.gc.Collect().ok());
  REQUIRE(os::ListDir(node.layout.Layers())->size() == 1);
  REQUIRE(node.Pull(two.registry.Name(":v3")).ok());
  CHECK(two.registry.Answered(third.layer_digests[0]) < two.Size() / 10);
}

TEST_CASE("With reuse_files off every layer comes whole, and none has an index") {
  TwoVersions two(Version(2));
  PullOptions options;
  options.reuse_files = false;
  Node node(options);
  const auto first = node.Pull(two.registry.Name());
  REQUIRE(first.ok());
  CHECK_FALSE(os::Exists(DiffOf(node, *first) + "/../files"));
  REQUIRE(node.Pull(two.registry.Name(":v2")).ok());
  CHECK(two.registry.Answered(two.Layer()) == two.Size());
}

TEST_CASE("Nothing is asked for that would not pay") {
  TwoVersions two(Version(2));
  Node node;
  SECTION("the store has no index") {}
  SECTION("it has one, of other files: only the table comes") {
    const std::string tar = TarWriter().File("x", NoiseOf(77, 2'000'000)).Done();
    two.registry.image = ChunkedImage(tar, ChunkedWriter().Write(tar));
    two.registry.Also(two.next, "v2");
    REQUIRE(node.Pull(two.registry.Name()).ok());
  }
  const bool asked = !os::ListDir(node.layout.Layers())->empty();
  const auto id = node.Pull(two.registry.Name(":v2"));
  REQUIRE(id.status().message() == "");
  CheckVersion2(node, *id);
  CHECK(two.registry.Seen("Range: bytes=") == (asked ? 1 : 0));
  CHECK(two.registry.Answered(two.Layer()) < two.Size() + two.Size() / 100);
}

/// Pulls version 1, then the other image; its layer must be that of version 2 in the end. How much
/// of it was sent, by its size.
double PullAfter(TwoVersions& two, const std::function<void(Node&)>& between = {}) {
  Node node;
  const auto first = node.Pull(two.registry.Name());
  REQUIRE(first.status().message() == "");
  if (between) between(node);
  const auto id = node.Pull(two.registry.Name(":v2"));
  REQUIRE(id.status().message() == "");
  CheckVersion2(node, *id);
  return static_cast<double>(two.registry.Answered(two.Layer())) / static_cast<double>(two.Size());
}

struct Lie {
  std::string name;
  ChunkedLies lies;
};

/// The entry of the changed file.
nlohmann::json& Changed(nlohmann::json& toc) {
  for (nlohmann::json& entry : toc["entries"])
    if (entry["name"] == fmt::format("data/{}", kChanged) && entry["type"] == "reg") return entry;
  throw std::runtime_error("no such entry");
}

/// Some file that is here.
nlohmann::json& Kept(nlohmann::json& toc) {
  for (nlohmann::json& entry : toc["entries"])
    if (entry["name"] == "data/5" && entry["type"] == "reg") return entry;
  throw std::runtime_error("no such entry");
}

std::vector<Lie> LiesOfTables() {
  std::vector<Lie> lies;
  const auto toc = [&lies](const std::string& name, std::function<void(nlohmann::json&)> lie) {
    lies.push_back({"table: " + name, {.toc = std::move(lie)}});
  };
  const auto split = [&lies](const std::string& name, std::function<void(std::string&)> lie) {
    lies.push_back({"tar-split: " + name, {.tar_split = std::move(lie)}});
  };
  using Json = nlohmann::json;
  toc("another digest for a file that is here", [](Json& t) {
    Kept(t)["digest"] = "sha256:" + digest::Sha256Hex(NoiseOf(6, 150'000 + 7919 * 6));
    Kept(t)["size"] = 150'000 + 7919 * 6;
  });
  toc("the digest of another file of the same size", [](Json& t) {
    Changed(t)["digest"] = "sha256:" + digest::Sha256Hex(NoiseOf(1001, 150'000 + 7919 * 13));
  });
  toc("no digest", [](Json& t) { Changed(t).erase("digest"); });
  toc("a digest that is none", [](Json& t) { Changed(t)["digest"] = "sha512:00"; });
  toc("a size beyond all", [](Json& t) { Changed(t)["size"] = std::int64_t{1} << 60; });
  toc("a size that is one less",
      [](Json& t) { Changed(t)["size"] = Changed(t)["size"].get<int>() - 1; });
  toc("a negative size", [](Json& t) { Changed(t)["size"] = -1; });
  toc("a place outside the blob", [](Json& t) {
    Changed(t)["offset"] = std::int64_t{1} << 50;
    Changed(t)["endOffset"] = (std::int64_t{1} << 50) + 100;
  });
  toc("an end beyond the blob", [](Json& t) { Changed(t)["endOffset"] = std::int64_t{1} << 60; });
  toc("an end before the beginning", [](Json& t) { Changed(t)["endOffset"] = 1; });
  toc("a place in the middle of a frame",
      [](Json& t) { Changed(t)["offset"] = Changed(t)["offset"].get<int>() + 3; });
  toc("the frames of two files overlap",
      [](Json& t) { Changed(t)["offset"] = Changed(t)["offset"].get<int>() - 100'000; });
  toc("the end is early",
      [](Json& t) { Changed(t)["endOffset"] = Changed(t)["endOffset"].get<int>() - 10; });
  toc("other frames follow",
      [](Json& t) { Changed(t)["endOffset"] = Changed(t)["endOffset"].get<int>() + 10; });
  toc("a file is missing", [](Json& t) {
    t["entries"].erase(std::find(t["entries"].begin(), t["entries"].end(), Kept(t)));
  });
  toc("a file is there twice", [](Json& t) { t["entries"].push_back(Kept(t)); });
  toc("files in another order",
      [](Json& t) { std::reverse(t["entries"].begin(), t["entries"].end()); });
  toc("no entries", [](Json& t) { t.erase("entries"); });
  toc("entries that are no objects", [](Json& t) { t["entries"] = {1, 2, "x"}; });
  toc("another version", [](Json& t) { t["version"] = 7; });
  toc("no object at all", [](Json& t) { t = Json::array({1}); });
  toc("another tar-split's digest",
      [](Json& t) { t["tarSplitDigest"] = "sha256:" + digest::Sha256Hex("x"); });
  toc("a tar-split's digest of another kind", [](Json& t) { t["tarSplitDigest"] = "md5:1"; });
  split("empty", [](std::string& s) { s.clear(); });
  split("of another tar", [](std::string& s) {
    const std::size_t at = s.find("AAAA", s.size() / 2);
    s.replace(at, 4, "AAAB");
  });
  split("without its last part", [](std::string& s) { s.resize(s.size() / 2); });
  split("no JSON", [](std::string& s) { s = std::string(2000, 'x') + "\n"; });
  split("of an unknown type", [](std::string& s) { s = "{\"type\":3}\n" + s; });
  split("begins with contents",
        [](std::string& s) { s.erase(0, s.rfind('\n', s.find("\"size\"")) + 1); });
  split("a file more", [](std::string& s) {
    s += R"({"type":1,"size":5})"
         "\n";
  });
  split("a line without an end", [](std::string& s) { s = std::string(5'000'000, ' '); });
  split("much more than the tar", [](std::string& s) {
    const std::string zeros = Base64(std::string(1'000'000, '\0'));
    for (int i = 0; i < 200; ++i) s += R"({"type":2,"payload":")" + zeros + "\"}\n";
  });
  return lies;
}

TEST_CASE("Whatever is wrong with a layer's table, it comes whole and is right") {
  for (const Lie& each : LiesOfTables()) {
    INFO(each.name);
    TwoVersions two(Version(2, each.lies));
    CHECK(PullAfter(two) >= 1.0);
  }
}

TEST_CASE("Annotations that say nothing of use make a layer like others") {
  TestImage next = Version(2);
  nlohmann::json manifest = nlohmann::json::parse(next.manifest);
  nlohmann::json& notes = manifest["layers"][0]["annotations"];
  const std::string key = "io.github.containers.zstd-chunked.";
  bool asks = false;
  SECTION("none") { notes.clear(); }
  SECTION("another table's digest") {
    notes[key + "manifest-checksum"] = "sha256:" + digest::Sha256Hex("x");
    asks = true;
  }
  SECTION("a digest of another kind") {
    notes[key + "manifest-checksum"] = "sha512:" + std::string(128, 'a');
  }
  SECTION("a place outside the blob") { notes[key + "manifest-position"] = "99999999:100:100:1"; }
  SECTION("a place that wraps around") {
    notes[key + "manifest-position"] = "10:18446744073709551615:100:1";
  }
  SECTION("not the table") {
    notes[key + "manifest-position"] = "10:100:100:1";
    asks = true;
  }
  SECTION("another kind") { notes[key + "manifest-position"] = "10:100:100:2"; }
  SECTION("no numbers") { notes[key + "manifest-position"] = "a:b:c:1"; }
  SECTION("no text") { notes[key + "manifest-position"] = {1, 2}; }
  SECTION("too few") { notes[key + "manifest-position"] = "10:100:1"; }
  SECTION("no tar-split") { notes.erase(key + "tarsplit-position"); }
  SECTION("a tar-split outside the blob") { notes[key + "tarsplit-position"] = "99999999:1:1"; }
  next.manifest = manifest.dump();
  TwoVersions two(std::move(next));
  CHECK(PullAfter(two) >= 1.0);
  CHECK((two.registry.Seen("Range: bytes=") > 0) == asks);
}

TEST_CASE("A file of the store that is not what it was is not used") {
  TwoVersions two(Version(2));
  std::string change;
  double least = 1.0;
  SECTION("other bytes") {}
  SECTION("shorter: seen before anything is fetched") { change = "short", least = 0; }
  SECTION("gone: seen before anything is fetched") { change = "gone", least = 0; }
  SECTION("a link to elsewhere: seen before anything is fetched") { change = "link", least = 0; }
  const double sent = PullAfter(two, [&](Node& node) {
    const std::string data = DiffOf(node, node.Image(two.registry.Name()).id()) + "/data/";
    std::string text = *os::ReadFile(data + "5");
    text[1000] = static_cast<char>(text[1000] ^ 1);
    if (change == "short") text.pop_back();
    REQUIRE(os::RemoveFile(data + "5").ok());
    if (change.empty() || change == "short") REQUIRE(os::WriteFile(data + "5", text).ok());
    if (change == "link") REQUIRE(os::Symlink("6", data + "5").ok());
  });
  CHECK(sent >= least);
  if (least == 0) CHECK(sent < 0.2);
}

TEST_CASE("An index that said something wrong is not believed again") {
  // The first image says that a file of it holds what a file of the next one does.
  ChunkedLies lies{.toc = [](nlohmann::json& toc) {
    Kept(toc)["digest"] = "sha256:" + digest::Sha256Hex(NoiseOf(500, 150'000 + 7919 * 5));
  }};
  TwoVersions two(Version(2));
  const std::string tar = LayerTar(1);
  two.registry.image = ChunkedImage(tar, ChunkedWriter(lies).Write(tar));
  TarWriter wanted;
  wanted.File("x", NoiseOf(500, 150'000 + 7919 * 5));
  for (unsigned i = 6; i < 12; ++i) wanted.File(std::to_string(i), NoiseOf(i, 150'000 + 7919 * i));
  const std::string next = wanted.Done();
  const TestImage victim = ChunkedImage(next, ChunkedWriter().Write(next));
  two.registry.Also(victim, "victim");
  Node node;
  const auto first = node.Pull(two.registry.Name());
  REQUIRE(first.ok());
  const std::string index = DiffOf(node, *first) + "/../files";
  REQUIRE(os::Exists(index));
  const auto id = node.Pull(two.registry.Name(":victim"));
  REQUIRE(id.status().message() == "");
  CHECK(node.File(*id, 0, "x") == NoiseOf(500, 150'000 + 7919 * 5));
  CHECK(two.registry.Answered(victim.layer_digests[0]) >=
        victim.blobs.at(victim.layer_digests[0]).size());
  CHECK_FALSE(os::Exists(index));
}

TEST_CASE("An index that is damaged costs the layer's coming whole") {
  TwoVersions two(Version(2));
  const double sent = PullAfter(two, [&](Node& node) {
    const std::string layer =
        node.layout.Layers() + "/" + os::ListDir(node.layout.Layers())->front();
    REQUIRE(os::Exists(layer + "/files"));
    SECTION("cut") { REQUIRE(::truncate((layer + "/files").c_str(), 100) == 0); }
    SECTION("empty") { REQUIRE(os::WriteFile(layer + "/files", "").ok()); }
    SECTION("rubbish") { REQUIRE(os::WriteFile(layer + "/files", NoiseOf(1, 9000)).ok()); }
    SECTION("a count beyond all") {
      REQUIRE(os::WriteFile(layer + "/files", "crispfi1" + std::string(8, '\xff')).ok());
    }
    SECTION("the layer has no directory") {
      REQUIRE(::rename((layer + "/diff").c_str(), (layer + "/other").c_str()) == 0);
    }
  });
  CHECK(sent >= 1.0);
}

TEST_CASE("A registry without ranges, or with wrong ones, sends the layer whole") {
  TwoVersions two(Version(2));
  SECTION("none") { two.registry.no_ranges = true; }
  SECTION("only from the beginning") { two.registry.no_tail_ranges = true; }
  SECTION("others than were asked for") { two.registry.shifted_ranges = true; }
  CHECK(PullAfter(two) >= 1.0);
}

TEST_CASE("Parts whose connections break go on from their last good byte") {
  TwoVersions two(Version(2));
  two.registry.cut_blob = two.Layer();
  const int away = GENERATE(0, 3);
  two.registry.away_after_cut = away;
  two.registry.new_versions = true;  // another endpoint's: the diff id tells
  CHECK(PullAfter(two) < 0.3);
}

TEST_CASE("A blob that is not what its manifest says is refused, with its files here as without") {
  TwoVersions two(Version(2));
  two.registry.wrong_blob = two.Layer();  // in the middle, in the changed file or beside it
  Node node;
  REQUIRE(node.Pull(two.registry.Name()).ok());
  const auto id = node.Pull(two.registry.Name(":v2"));
  if (id.ok()) {
    // The wrong byte was not needed.
    CheckVersion2(node, *id);
  } else {
    CHECK(id.code() == Code::kDataLoss);
    CHECK(id.status().message().find("has the digest sha256:") != std::string::npos);
  }
  node.CheckClean();
}

TEST_CASE("A diff id that no stream has is refused, with its files here as without") {
  const std::string tar = LayerTar(2);
  TestImage next = ChunkedImage(LayerTar(3), ChunkedWriter().Write(tar));
  TwoVersions two(std::move(next));
  Node node;
  REQUIRE(node.Pull(two.registry.Name()).ok());
  const auto id = node.Pull(two.registry.Name(":v2"));
  CHECK(id.code() == Code::kDataLoss);
  CHECK(id.status().message().find("unpacks to the diff id") != std::string::npos);
  node.CheckClean();
}

TEST_CASE("Contents that are taken again and again count as expansion") {
  const std::string once = NoiseOf(1, 2'000'000);
  const auto repeated = [&once](int times) {
    TarWriter tar;
    for (int i = 0; i < times; ++i) tar.File(fmt::format("f{}", i), once);
    return tar.File("pad", NoiseOf(2, 400'000)).Done();
  };
  const std::string first = repeated(1);
  // 120 MB of what is here once: more than the floor, and more than a few times what comes. As it
  // would come whole it is far less, so that it is allowed then.
  const std::string many = repeated(60);
  TwoVersions two(ChunkedImage(many, ChunkedWriter({.chunk = 4'000'000}).Write(many)));
  two.registry.image = ChunkedImage(first, ChunkedWriter().Write(first));
  two.registry.Also(two.next, "v2");
  PullOptions options;
  options.expansion.max_times = 100;
  Node node(options);
  REQUIRE(node.Pull(two.registry.Name()).ok());
  const auto id = node.Pull(two.registry.Name(":v2"));
  REQUIRE(id.status().message() == "");
  CHECK(two.registry.Answered(two.Layer()) >= two.Size());
}

TEST_CASE("A real registry sends the parts of a layer that are asked for") {
  RealRegistry registry;
  const TestImage first = Version(1);
  const TestImage second = Version(2);
  for (const auto& [image, tag] : {std::pair(first, "1"), std::pair(second, "2")}) {
    registry.PushBlobs("chunked", image.blobs);
    registry.PushManifest("chunked", image.manifest, image.manifest_type, tag);
  }
  Node node;
  REQUIRE(node.Pull(registry.Host() + "/chunked:1").status().message() == "");
  const double before = Metric(node, "crisp_imaged_fetched_bytes_total");
  const auto id = node.Pull(registry.Host() + "/chunked:2");
  REQUIRE(id.status().message() == "");
  CheckVersion2(node, *id);
  const auto size = static_cast<double>(second.blobs.at(second.layer_digests[0]).size());
  CHECK(Metric(node, "crisp_imaged_fetched_bytes_total") - before < size / 10);
}

TEST_CASE("A table of more files than one may have is refused") {
  std::string text = R"({"version":1,"entries":[)";
  const std::string entry = fmt::format(
      R"({{"type":"reg","name":"f","size":1,"digest":"sha256:{}","offset":1,"endOffset":2}},)",
      digest::Sha256Hex("x"));
  for (std::size_t i = 0; i <= kMaxTocFiles; ++i) text += entry;
  text.back() = ']';
  std::size_t count = 0;
  const auto read = ReadToc(ZstdOf(text + "}"), [&count](const TocFile&) {
    ++count;
    return Status::Ok();
  });
  CHECK(read.code() == Code::kResourceExhausted);
  CHECK(count == kMaxTocFiles);
}

TEST_CASE("An index finds contents by digest and size, under paths of the layer") {
  const crisp::testing::TestRoot root;
  FileIndexWriter writer;
  std::vector<WantedFile> wanted;
  for (unsigned i = 0; i < 3000; ++i) {
    const digest::Digest digest = digest::Sha256Digest(std::to_string(i));
    writer.Add(digest, i, fmt::format("./dir//{}", i));
    if (i % 3 == 0) wanted.push_back({digest.Bytes(), i});
    if (i % 3 == 1) wanted.push_back({digest.Bytes(), i + 1});
  }
  writer.Add(digest::Sha256Digest("bad"), 1, std::string("a\0b", 3));
  writer.Add(digest::Sha256Digest("bad"), 1, std::string(5000, 'l'));
  writer.Add(digest::Sha256Digest("bad"), 1, "./");
  wanted.push_back({digest::Sha256Digest("bad").Bytes(), 1});
  std::sort(wanted.begin(), wanted.end());
  REQUIRE(writer.Write(root / "files").message() == "");
  std::size_t count = 0;
  const Status status =
      LookUpFiles(root / "files", wanted, [&](std::size_t number, const std::string& path) {
        ++count;
        CHECK(wanted[number].digest ==
              digest::Sha256Digest(path.substr(path.rfind('/') + 1)).Bytes());
        CHECK(path.starts_with("dir//"));
      });
  CHECK(status.message() == "");
  CHECK(count == 1000);
  CHECK(LookUpFiles(root / "absent", wanted, [](std::size_t, const std::string&) {}).ok());
}

}  // namespace
}  // namespace crisp::imaged
