#include <catch2/catch.hpp>

#include "services/imaged/core/archives.h"
#include "services/imaged/tests/fake_registry.h"
#include "services/imaged/tests/node.h"

namespace crisp::imaged {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): what the tests are written in

/// The image as a tar of an OCI layout; `name` is its annotation unless empty.
TarWriter LayoutOf(const TestImage& image, const std::string& name) {
  TarWriter tar;
  tar.File("oci-layout", R"({"imageLayoutVersion":"1.0.0"})");
  for (const auto& [digest, blob] : image.blobs) tar.File("blobs/sha256/" + digest.substr(7), blob);
  tar.File("./blobs/sha256/" + image.manifest_digest.substr(7), image.manifest);
  nlohmann::json entry = {{"mediaType", image.manifest_type},
                          {"digest", image.manifest_digest},
                          {"size", image.manifest.size()}};
  if (!name.empty()) entry["annotations"]["org.opencontainers.image.ref.name"] = name;
  const nlohmann::json index = {{"schemaVersion", 2},
                                {"manifests", nlohmann::json::array({entry})}};
  tar.File("index.json", index.dump());
  return tar;
}

/// What `docker save` wrote before it wrote layouts too.
std::string DockerArchive(const TestImage& image, const std::vector<std::string>& tags) {
  TarWriter tar;
  nlohmann::json layers = nlohmann::json::array();
  for (const std::string& digest : image.layer_digests) {
    const std::string id = digest.substr(7, 12);
    tar.File(id + "/layer.tar", image.blobs.at(digest));
    tar.Symlink("linked-" + id, id + "/layer.tar");
    layers.push_back("linked-" + id);
  }
  tar.File("config.json", image.blobs.at(image.config_digest));
  nlohmann::json one = {{"Config", "config.json"}, {"RepoTags", tags}, {"Layers", layers}};
  tar.File("manifest.json", nlohmann::json::array({one}).dump());
  return tar.Done();
}

TestImage PlainLayers() {
  return TestImage::Make({{TarWriter().Dir("etc/").File("etc/name", "low").Done(), Pack::kPlain},
                          {TarWriter().File("etc/name", "high").Done(), Pack::kPlain}});
}

struct ArchiveNode : Node {
  Archives archives{puller, hosts, *catalogue, store, {}, images.spooled()};

  Result<std::vector<ImportedImage>> Import(const std::string& tar, const std::string& name = "") {
    archive::StringSource source(tar, 10'000);
    return archives.Import(Call(), source, name);
  }
  std::string ImportError(const std::string& tar, const std::string& name = "") {
    const auto imported = Import(tar, name);
    CHECK(os::ListDir(layout.Staging())->empty());
    return imported.ok() ? "ok" : imported.status().message();
  }
};

TEST_CASE("An OCI layout is imported as if it had been pulled") {
  const TestImage image = TwoLayers();
  ArchiveNode node;
  std::string tar = LayoutOf(image, "example.com/app:1").Done();
  SECTION("plain") {}
  SECTION("gzip") { tar = GzipOf(tar); }
  SECTION("zstd") { tar = ZstdOf(tar); }
  const auto imported = node.Import(tar);
  REQUIRE(imported.status().message() == "");
  REQUIRE(imported->size() == 1);
  CHECK((*imported)[0].id == image.config_digest);
  CHECK((*imported)[0].names == std::vector<std::string>{"example.com/app:1"});
  CHECK(node.File(image.config_digest, 0, "etc/name") == "high");
  const auto status = node.Image("example.com/app:1");
  CHECK(status.repo_tags(0) == "example.com/app:1");
  CHECK(status.repo_digests(0) == "example.com/app@" + image.manifest_digest);
  node.CheckClean();
  CHECK(node.Import(tar).ok());  // once more: nothing to do
}

TEST_CASE("An import may name its image, and one without a name can be found too") {
  const TestImage image = TwoLayers();
  ArchiveNode node;
  CHECK((*node.Import(LayoutOf(image, "").Done(), "mine:2"))[0].names[0] ==
        "docker.io/library/mine:2");
  CHECK(node.Image("mine:2").id() == image.config_digest);
  const auto nameless = node.Import(LayoutOf(image, "latest").Done());
  CHECK((*nameless)[0].names[0] == "localhost/imported@" + image.manifest_digest);
  CHECK(node.ImportError(LayoutOf(image, "").Done(), "UPPER").find("UPPER") != std::string::npos);
  CHECK(node.ImportError(LayoutOf(image, "").Done(), "x@" + image.manifest_digest)
            .find("has a digest") != std::string::npos);
}

TEST_CASE("What an import takes on the disk is counted as long as it does") {
  const TestImage image =
      TestImage::Make({{TarWriter().File("f", Noise(3'000'000)).Done(), Pack::kPlain}});
  ArchiveNode node;
  const auto used = [&node] {
    runtime::v1::ImageFsInfoResponse info;
    REQUIRE(node.images.FsInfo(info).ok());
    return info.image_filesystems(0).used_bytes().value();
  };
  const std::string tar = LayoutOf(image, "x.io/y:1").Done();
  /// The archive, and a look at the numbers when all of it was read.
  struct Watched final : archive::ChunkSource {
    archive::StringSource source;
    std::function<void()> at_end;
    Watched(const std::string& text, std::function<void()> look)
        : source(text, 100'000), at_end(std::move(look)) {}
    Result<std::string_view> Next() override {
      Result<std::string_view> piece = source.Next();
      if (piece.ok() && piece->empty()) at_end();
      return piece;
    }
  };
  const std::uint64_t before = used();
  std::uint64_t during = 0;
  Watched watched(tar, [&] { during = std::max(during, used()); });
  REQUIRE(node.archives.Import(Node::Call(), watched, "").ok());
  CHECK(during >= before + 2'800'000);  // it may end before the last piece is read
  CHECK(used() < before + 2 * 3'000'000);
  CHECK(*node.images.spooled() == 0);
}

TEST_CASE("What docker save writes is imported under its tags") {
  const TestImage image = PlainLayers();
  ArchiveNode node;
  const auto imported = node.Import(DockerArchive(image, {"busybox:1", "example.com/x:2"}));
  REQUIRE(imported.status().message() == "");
  CHECK((*imported)[0].id == image.config_digest);
  CHECK((*imported)[0].names ==
        std::vector<std::string>{"docker.io/library/busybox:1", "example.com/x:2"});
  CHECK(node.Image("busybox:1").repo_tags_size() == 2);
  CHECK(node.File(image.config_digest, 1, "etc/name") == "low");
  node.CheckClean();
}

TEST_CASE("An archive that is damaged, lies or is none is refused, and nothing is left") {
  const TestImage image = TwoLayers();
  ArchiveNode node;
  const auto has = [&](const std::string& tar, const std::string& text) {
    const std::string error = node.ImportError(tar);
    INFO(error);
    CHECK(error.find(text) != std::string::npos);
  };
  has("", "the archive is empty");
  has("not a tar at all", "import: ");
  has(TarWriter().File("x", "y").Done(), "this is no image archive");
  has(TarWriter().File("oci-layout", "{}").File("index.json", "oops").Done(),
      "index.json:1: is not JSON");
  has(TarWriter().File("oci-layout", "{}").File("index.json", "{\"manifests\": []}").Done(),
      "the archive has no image");
  has(TarWriter().File("manifest.json", R"([{"Config": "../../etc/passwd"}])").Done(),
      "the archive has no file ../../etc/passwd");
  has(TarWriter()
          .Symlink("a", "b")
          .Symlink("b", "a")
          .File("manifest.json", R"([{"Config": "a"}])")
          .Done(),
      "the archive has no file a");
  std::string cut = LayoutOf(image, "x/y:1").Done();
  cut.resize(cut.size() / 2);
  has(cut, "import: ");
  TestImage missing = image;
  missing.blobs.erase(image.layer_digests[1]);
  has(LayoutOf(missing, "x/y:1").Done(), "the archive has no blob " + image.layer_digests[1]);
  TestImage damaged = image;
  damaged.blobs[image.layer_digests[1]].back() ^= 1;
  has(LayoutOf(damaged, "x/y:1").Done(), "the archive has no blob " + image.layer_digests[1]);
  CHECK(node.catalogue->List()->empty());
  node.CheckClean();
}

TEST_CASE("An exported image can be imported again, whiteouts and all") {
  const TestImage image =
      TestImage::Make({{TarWriter()
                            .Dir("./", {.mode = 0751})
                            .Dir("etc/", {.mode = 0700, .uid = 9})
                            .File("etc/gone", "x", {.mode = 04755, .uid = 7, .gid = 8})
                            .Symlink("link", "etc/gone")
                            .HardLink("hard", "etc/gone")
                            .Dir("opaque/")
                            .File("opaque/old", "x")
                            .Done(),
                        Pack::kGzip},
                       {TarWriter()
                            .File("etc/.wh.gone", "")
                            .Dir("opaque/")
                            .File("opaque/.wh..wh..opq", "")
                            .File("opaque/new", std::string(300'000, 'n'))
                            .Done(),
                        Pack::kZstd}},
                      Flavour::kOci, "5");
  ArchiveNode node;
  REQUIRE(node.Import(LayoutOf(image, "example.com/app:1").Done()).ok());
  REQUIRE(node.Import(LayoutOf(image, "example.com/app:2").Done()).ok());
  const auto exported = [](ArchiveNode& from, const std::string& name) {
    std::string tar;
    const Status status = from.archives.Export(Node::Call(), name, [&tar](std::string_view bytes) {
      tar += bytes;
      return Status::Ok();
    });
    CHECK(status.message() == "");
    return tar;
  };
  const std::string tar = exported(node, "example.com/app:1");
  CHECK(tar == exported(node, image.config_digest));
  ArchiveNode other;
  const auto imported = other.Import(tar);
  REQUIRE(imported.status().message() == "");
  REQUIRE(imported->size() == 1);  // with both of its names
  CHECK((*imported)[0].names == std::vector<std::string>{"example.com/app:1", "example.com/app:2"});
  const std::string id = (*imported)[0].id;
  CHECK(other.Image(id).uid().value() == 5);
  CHECK(other.File(id, 1, "etc/gone") == "x");
  CHECK(other.File(id, 1, "hard") == "x");
  CHECK(other.File(id, 0, "opaque/new").size() == 300'000);
  // The same tree: exported from there it is the same archive.
  CHECK(exported(other, id) == tar);
  // Removed in the midst of it.
  bool removed = false;
  std::string whole;
  CHECK(node.archives
            .Export(Node::Call(), image.config_digest,
                    [&](std::string_view bytes) {
                      whole += bytes;
                      if (!std::exchange(removed, true)) {
                        CHECK(node.images.Remove(image.config_digest).ok());
                        CHECK(node.gc.Collect().ok());
                      }
                      return Status::Ok();
                    })
            .message() == "");
  CHECK(whole == tar);
  CHECK(os::ListDir(node.layout.Layers())->size() == 2);
  CHECK(node.gc.Collect().ok());
  CHECK(os::ListDir(node.layout.Layers())->empty());
  REQUIRE(node.Import(LayoutOf(image, "example.com/app:1").Done()).ok());
  CHECK(node.archives.Export(Node::Call(), "nope", [](std::string_view) { return Status::Ok(); })
            .code() == Code::kNotFound);
  CHECK(node.archives
            .Export(Node::Call(), image.config_digest,
                    [](std::string_view) { return Cancelled("enough"); })
            .code() == Code::kCancelled);
}

}  // namespace
}  // namespace crisp::imaged
