// A second opinion on the whole way: what skopeo pushes to a registry, in each of its formats and
// compressions, the daemon pulls, and its snapshot is the tree that umoci unpacks. Needs root.
#include <fcntl.h>
#include <unistd.h>

#include "libs/base/cleanup.h"
#include "libs/os/image_mount.h"
#include "libs/os/mount.h"
#include "services/imaged/tests/daemon_node.h"
#include "services/imaged/tests/real_registry.h"
#include "services/imaged/tests/second_opinion.h"

namespace crisp::imaged {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): what the tests are written in

struct Form {
  std::string name;
  LayoutWriter::Layers source;
  std::vector<std::string> flags;
};

const std::vector<Form>& Forms() {
  using Layers = LayoutWriter::Layers;
  static const std::vector<Form> kForms = {
      {"oci-gzip", Layers::kGzip, {"--format", "oci"}},
      {"oci-zstd", Layers::kPlain, {"--format", "oci", "--dest-compress-format", "zstd"}},
      {"oci-plain", Layers::kPlain, {"--preserve-digests"}},
      {"docker-gzip", Layers::kPlain, {"--format", "v2s2"}},
  };
  return kForms;
}

/// The daemon's snapshot of an image, mounted as rund mounts it.
class Mounted {
 public:
  Mounted(const DaemonNode& node, const crisp::testing::TestRoot& root, const std::string& image)
      : node_(node), merged_(root / "merged") {
    const auto prepared = node.Prepare("c1", image, "");
    REQUIRE(prepared.status().message() == "");
    const v1::MountInstruction& mount = prepared->mounts(0);
    const os::Overlay overlay{{mount.lower_dirs().begin(), mount.lower_dirs().end()},
                              mount.upper_dir(),
                              mount.work_dir(),
                              {mount.options().begin(), mount.options().end()}};
    REQUIRE(os::MakeDirs(merged_).ok());
    REQUIRE(os::MountOverlay(overlay, merged_).message() == "");
    // A container's own root directory is new.
    std::string lower = overlay.lower_dirs.front();
    os::UniqueFd mounted;
    if (os::IsImage(lower)) {
      mounted = *os::MountImage(lower);
      lower = fmt::format("/proc/self/fd/{}/.", mounted.get());
    }
    struct stat top {};
    REQUIRE(::stat(lower.c_str(), &top) == 0);
    const std::array<timespec, 2> times = {top.st_mtim, top.st_mtim};
    REQUIRE(::utimensat(AT_FDCWD, merged_.c_str(), times.data(), 0) == 0);
  }
  Mounted(const Mounted&) = delete;
  Mounted& operator=(const Mounted&) = delete;
  ~Mounted() {
    CHECK(os::Unmount(merged_).ok());
    CHECK(node_.Release("c1").ok());
  }

  const std::string& path() const { return merged_; }

 private:
  const DaemonNode& node_;
  const std::string merged_;
};

void Compare(RealRegistry& registry, const DaemonNode& node, const std::vector<std::string>& tars,
             const std::string& name) {
  const crisp::testing::TestRoot root;
  using Layers = LayoutWriter::Layers;
  LayoutWriter(root, "gzip").Write(tars, Layers::kGzip);
  LayoutWriter(root, "plain").Write(tars, Layers::kPlain);
  RunTool("/usr/bin/umoci", {"unpack", "--image", root / "gzip:t", root / "bundle"});
  const Tree theirs(root / "bundle/rootfs");
  for (const Form& form : Forms()) {
    INFO(form.name);
    const std::string image = fmt::format("{}/{}:{}", registry.Host(), name, form.name);
    std::vector<std::string> copy = {"copy", "--insecure-policy", "--dest-tls-verify=false"};
    copy.insert(copy.end(), form.flags.begin(), form.flags.end());
    copy.push_back("oci:" + (root / (form.source == Layers::kGzip ? "gzip:t" : "plain:t")));
    copy.push_back("docker://" + image);
    RunTool("/usr/bin/skopeo", copy);
    const auto id = node.Pull(image);
    REQUIRE(id.status().message() == "");
    {
      const Mounted snapshot(node, root, image);
      CheckSame(Tree(snapshot.path()), theirs);
    }
    // So that the next form is unpacked, too: its layers have the same diff ids.
    node.Remove(image);
    REQUIRE(os::ListDir(node.LayersDir())->empty());
  }
}

TEST_CASE("What skopeo pushes in any form is, pulled and mounted, the tree that umoci unpacks") {
  RealRegistry registry;
  const DaemonNode node;
  Compare(registry, node, EveryFeature(false), "features");
  const char* more = std::getenv("CRISP_UMOCI_IMAGES");
  const unsigned images = more == nullptr ? 3 : static_cast<unsigned>(std::atoi(more));
  for (unsigned seed = 101; seed < 101 + images; ++seed) {
    CAPTURE(seed);
    Generator generator(seed);
    std::vector<std::string> tars;
    for (int layer = 0; layer < 4; ++layer) tars.push_back(generator.Layer());
    Compare(registry, node, tars, fmt::format("generated{}", seed));
  }
}

}  // namespace
}  // namespace crisp::imaged
