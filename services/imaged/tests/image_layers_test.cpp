// The driver erofs: layers that are pulled become images, and everybody who needs a layer takes it
// in the form that it has.
#include <catch2/catch.hpp>

#include "libs/base/cleanup.h"
#include "libs/os/image_mount.h"
#include "libs/os/mount.h"
#include "services/imaged/core/archives.h"
#include "services/imaged/core/store_check.h"
#include "services/imaged/tests/fake_registry.h"
#include "services/imaged/tests/node.h"

namespace crisp::imaged {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): what the tests are written in

struct ErofsNode : Node {
  Puller erofs{[] {
                 PullOptions made;
                 made.erofs = true;
                 return made;
               }(),
               pool,
               client,
               hosts,
               *catalogue,
               store,
               trust,
               metrics,
               Clock::System(),
               [] {}};

  std::vector<std::string> Paths(const std::string& id) const {
    std::vector<std::string> paths;
    const auto layers = catalogue->Layers(id);
    REQUIRE(layers.ok());
    for (const digest::Digest& chain : *layers) paths.push_back(store.PathOf(chain));
    return paths;
  }
  CheckReport Check(bool contents = true) {
    const auto report = CheckStore(Call(), *catalogue, store, Clock::System(),
                                   {.contents = contents, .repair = false});
    REQUIRE(report.status().message() == "");
    return *report;
  }
};

/// What the kernel shows of a snapshot.
std::map<std::string, std::string> Shown(Node& node, const std::string& image,
                                         const std::vector<std::string>& files) {
  const auto prepared = node.snapshots.Prepare(Node::Call(), OwnerId("c"), image);
  REQUIRE(prepared.status().message() == "");
  const OverlayMount& mount = prepared->mount;
  const std::string merged = node.root / "merged";
  REQUIRE(os::MakeDirs(merged).ok());
  const os::Overlay overlay{mount.lower_dirs, mount.upper_dir, mount.work_dir, mount.options};
  REQUIRE(os::MountOverlay(overlay, merged).message() == "");
  const Cleanup unmount([&] {
    CHECK(os::Unmount(merged).ok());
    CHECK(node.snapshots.Release(Node::Call(), OwnerId("c")).ok());
  });
  std::map<std::string, std::string> shown;
  for (const std::string& file : files)
    shown[file] = os::ReadFile(merged + "/" + file).value_or("<absent>");
  return shown;
}

/// On the layer of TwoLayers' first: a directory only implied, and a link to a file below.
TestImage OnTop() {
  return TestImage::Make(
      {{TarWriter().Dir("etc/").File("etc/name", "low").File("noise", Noise(700'000)).Done(),
        Pack::kGzip},
       {TarWriter().File("etc/more", "new").HardLink("linked", "noise").Done(), Pack::kGzip}});
}

TEST_CASE("Each layer becomes an image, counted as what it takes, and shows the same") {
  LyingRegistry registry(TwoLayers());
  ErofsNode node;
  const auto id = node.erofs.Pull(Node::Call(), registry.Name(), {});
  REQUIRE(id.status().message() == "");
  for (const std::string& path : node.Paths(*id)) {
    CHECK(path.ends_with("/layer.erofs"));
    CHECK(os::IsImage(path));
    CHECK(os::ListDir(path.substr(0, path.rfind('/')))->size() == 1);
  }
  node.CheckClean();
  CHECK(node.catalogue->Sum()->inodes == 2);
  CHECK(node.catalogue->Sum()->bytes > 1'400'000);
  CHECK(node.Check().problems.empty());
  CHECK(node.Check().problems.empty());  // compared with the first time
  if (!os::CheckImageLayers().ok()) return;
  const auto shown = Shown(node, *id, {"etc/name", "etc/noise", "noise"});
  CHECK(shown.at("etc/name") == "high");
  CHECK(shown.at("etc/noise") == Noise(700'000));
  CHECK(shown.at("noise") == Noise(700'000));
}

TEST_CASE("Layers of both forms go together, whichever came first") {
  LyingRegistry below(TwoLayers());
  LyingRegistry above(OnTop());
  const bool image_first = GENERATE(true, false);
  CAPTURE(image_first);
  ErofsNode node;
  Puller& first = image_first ? node.erofs : node.puller;
  Puller& second = image_first ? node.puller : node.erofs;
  REQUIRE(first.Pull(Node::Call(), below.Name(), {}).ok());
  const auto id = second.Pull(Node::Call(), above.Name(), {});
  REQUIRE(id.status().message() == "");
  const std::vector<std::string> paths = node.Paths(*id);
  REQUIRE(paths.size() == 2);
  CHECK(os::IsImage(paths[0]) == image_first);
  CHECK(os::IsImage(paths[1]) != image_first);
  CHECK(node.Check().problems.empty());
  // Without overlayfs it is copied, also a single layer that nobody could bind.
  Snapshots vfs(*node.catalogue, node.store, node.trust, node.metrics, Clock::System(),
                Snapshots::Driver::kVfs);
  const auto copied = vfs.Prepare(Node::Call(), OwnerId("v"), *id);
  REQUIRE(copied.status().message() == "");
  CHECK(os::ReadFile(copied->copied_root + "/etc/more").value_or("") == "new");
  CHECK(os::ReadFile(copied->copied_root + "/linked").value_or("") == Noise(700'000));
  REQUIRE(vfs.Release(Node::Call(), OwnerId("v")).ok());
  if (!os::CheckImageLayers().ok()) return;
  const auto shown = Shown(node, *id, {"etc/name", "etc/more", "linked"});
  CHECK(shown.at("etc/name") == "low");
  CHECK(shown.at("etc/more") == "new");
  CHECK(shown.at("linked") == Noise(700'000));
}

TEST_CASE("A volume of one image layer is copied where nothing can be overlaid") {
  LyingRegistry registry(TestImage::Make({{TarWriter().File("only", "this").Done(), Pack::kGzip}}));
  ErofsNode node;
  REQUIRE(node.erofs.Pull(Node::Call(), registry.Name(), {}).ok());
  Snapshots vfs(*node.catalogue, node.store, node.trust, node.metrics, Clock::System(),
                Snapshots::Driver::kVfs);
  const auto volume = vfs.PrepareVolume(Node::Call(), OwnerId("v"), 0, registry.Name());
  REQUIRE(volume.status().message() == "");
  REQUIRE(volume->layers.size() == 1);
  CHECK(os::ReadFile(volume->layers[0] + "/only").value_or("") == "this");
  // Overlaid it has an empty layer below.
  const auto overlaid =
      node.snapshots.PrepareVolume(Node::Call(), OwnerId("o"), 0, registry.Name());
  REQUIRE(overlaid.ok());
  CHECK(overlaid->layers.size() == 2);
}

TEST_CASE("An export of image layers is that of trees") {
  // Nothing that is only implied, and so has the time of the pull.
  LyingRegistry registry(TestImage::Make({{TarWriter()
                                               .Dir("./", {.mode = 0755, .mtime = 1})
                                               .Dir("etc/", {.mode = 0700, .mtime = 2})
                                               .File("etc/gone", "x")
                                               .File("noise", Noise(700'000))
                                               .Done(),
                                           Pack::kGzip},
                                          {TarWriter()
                                               .Dir("./", {.mode = 0755, .mtime = 3})
                                               .Dir("etc/", {.mode = 0700, .mtime = 2})
                                               .File("etc/.wh.gone", "")
                                               .Dir("new/", {.mode = 0755, .mtime = 3})
                                               .File("new/.wh..wh..opq", "")
                                               .HardLink("new/noise", "noise")
                                               .Done(),
                                           Pack::kGzip}}));
  const auto exported = [&registry](bool images) {
    ErofsNode node;
    REQUIRE((images ? node.erofs : node.puller).Pull(Node::Call(), registry.Name(), {}).ok());
    Archives archives(node.puller, node.hosts, *node.catalogue, node.store, {},
                      node.images.spooled());
    std::string bytes;
    REQUIRE(archives
                .Export(Node::Call(), registry.Name(),
                        [&bytes](std::string_view piece) {
                          bytes += piece;
                          return Status::Ok();
                        })
                .message() == "");
    return digest::Sha256Hex(bytes);
  };
  CHECK(exported(true) == exported(false));
}

TEST_CASE("Damage of a layer's image is found, and repaired by the next pull") {
  LyingRegistry registry(TwoLayers());
  ErofsNode node;
  const auto id = node.erofs.Pull(Node::Call(), registry.Name(), {});
  REQUIRE(id.ok());
  REQUIRE(node.Check().problems.empty());
  const std::string path = node.Paths(*id).front();
  std::string text = os::ReadFile(path).value();
  text[text.size() - 5000] ^= 1;
  REQUIRE(os::WriteFile(path, text).ok());
  CHECK(node.Check(false).problems.empty());
  REQUIRE(node.Check().problems.size() == 1);
  CHECK_THAT(node.Check().problems[0], Catch::Contains("is not what it was"));
  // Even without reading all of it.
  REQUIRE(os::WriteFile(path, text.substr(0, text.size() - 4096)).ok());
  REQUIRE(node.Check(false).problems.size() == 1);
  CHECK_THAT(node.Check(false).problems[0], Catch::Contains("damaged"));
  REQUIRE(CheckStore(Node::Call(), *node.catalogue, node.store, Clock::System(),
                     {.contents = false, .repair = true})
              .ok());
  REQUIRE(node.erofs.Pull(Node::Call(), registry.Name(), {}).ok());
  CHECK(node.Check().problems.empty());
  // One that is not there any more is forgotten at start.
  REQUIRE(os::RemoveFile(node.Paths(*id).front()).ok());
  REQUIRE(node.gc.Recover().ok());
  CHECK(node.catalogue->List()->empty());
}

}  // namespace
}  // namespace crisp::imaged
