// A second opinion: images of every tar feature, unpacked by us (as the kernel's overlay shows the
// layers) and by umoci, are the same tree: contents, kinds, modes, owners, times, links,
// attributes.
#include <fcntl.h>
#include <unistd.h>

#include "libs/base/cleanup.h"
#include "libs/os/image_mount.h"
#include "libs/os/mount.h"
#include "services/imaged/store/flatten.h"
#include "services/imaged/store/layer_reader.h"
#include "services/imaged/tests/second_opinion.h"
#include "services/imaged/tests/unpack_bench.h"

namespace crisp::imaged {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): what the tests are written in

/// What our layers show, overlaid by the kernel and copied by us. `images`: layers of one file
/// each.
void CompareLayers(const std::vector<std::string>& tars, const Tree& theirs, bool images) {
  const crisp::testing::TestRoot root;
  Bench bench;
  bench.images = images;
  for (const std::string& tar : tars) REQUIRE(bench.Layer(tar).message() == "");
  if (images)
    for (const std::string& layer : bench.layers) RunTool("/usr/bin/fsck.erofs", {layer});
  for (const char* name : {"upper", "work", "merged"}) REQUIRE(os::MakeDirs(root / name).ok());
  const struct stat top = (*OpenLayer(bench.layers.front()))->Root()->info;
  REQUIRE(::chmod((root / "upper").c_str(), top.st_mode & 07777U) == 0);
  REQUIRE(::chown((root / "upper").c_str(), top.st_uid, top.st_gid) == 0);
  const std::array<timespec, 2> times = {top.st_mtim, top.st_mtim};
  const os::Overlay overlay{bench.layers, root / "upper", root / "work", {"userxattr"}};
  REQUIRE(os::MountOverlay(overlay, root / "merged").message() == "");
  const Cleanup unmount([&] { CHECK(os::Unmount(root / "merged", os::UnmountHow::kNormal).ok()); });
  REQUIRE(::utimensat(AT_FDCWD, (root / "merged").c_str(), times.data(), 0) == 0);

  // The driver without overlayfs makes the same.
  REQUIRE(os::MakeDirs(root / "copied").ok());
  const CallContext cc = CallContext::Background(std::chrono::seconds(60));
  REQUIRE(Flatten(cc, bench.layers, root / "copied").message() == "");
  CheckSame(Tree(root / "copied"), theirs);
  CheckSame(Tree(root / "merged"), theirs);
}

void Compare(const std::vector<std::string>& tars) {
  const crisp::testing::TestRoot root;
  LayoutWriter(root, "layout").Write(tars, LayoutWriter::Layers::kGzip);
  RunTool("/usr/bin/umoci", {"unpack", "--image", root / "layout:t", root / "bundle"});
  const Tree theirs(root / "bundle/rootfs");
  {
    INFO("layers are trees");
    CompareLayers(tars, theirs, false);
  }
  INFO("layers are images");
  if (os::CheckImageLayers().ok()) CompareLayers(tars, theirs, true);
}

TEST_CASE("Every tar feature comes out as umoci has it") { Compare(EveryFeature(true)); }

TEST_CASE("Generated images come out as umoci has them") {
  const char* more = std::getenv("CRISP_UMOCI_IMAGES");
  const unsigned images = more == nullptr ? 12 : static_cast<unsigned>(std::atoi(more));
  for (unsigned seed = 1; seed <= images; ++seed) {
    CAPTURE(seed);
    Generator generator(seed);
    std::vector<std::string> tars;
    for (int layer = 0; layer < 4; ++layer) tars.push_back(generator.Layer());
    Compare(tars);
  }
}

}  // namespace
}  // namespace crisp::imaged
