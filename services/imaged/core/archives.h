#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "libs/archive/source.h"
#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "services/imaged/core/archive_source.h"
#include "services/imaged/core/pull.h"
#include "services/imaged/store/catalogue.h"
#include "services/imaged/store/layer_store.h"

namespace crisp::imaged {

struct ImportedImage {
  std::string id;
  std::vector<std::string> names;
};

/// Images from and to tar archives, for nodes that reach no registry. Any thread.
class Archives {
 public:
  /// `spooled`: counts what imports take on the disk.
  Archives(Puller& puller, Hosts& hosts, Catalogue& catalogue, LayerStore& store,
           ArchiveLimits limits, std::shared_ptr<ByteCount> spooled)
      : puller_(puller),
        hosts_(hosts),
        catalogue_(catalogue),
        store_(store),
        limits_(limits),
        spooled_(std::move(spooled)) {}

  /// Takes every image of an archive (ArchiveSource) for this machine's platform, as if it had been
  /// pulled: the same checks and limits. `name`, unless empty, is given to its one image in the
  /// place of the archive's own. An image without a name gets "localhost/imported@sha256:…".
  /// kInvalidArgument, kDataLoss, kNotFound (no image for this platform), kResourceExhausted.
  Result<std::vector<ImportedImage>> Import(const CallContext& cc, archive::ChunkSource& bytes,
                                            const std::string& name);

  using Sink = std::function<Status(std::string_view)>;
  /// Writes an image as a tar that is an OCI layout and what `docker load` reads at once. The
  /// layers are made anew from what is unpacked, so they, the config that lists them, and thus the
  /// id are not the original ones. They stay until it is done, whoever removes the image.
  /// kNotFound.
  Status Export(const CallContext& cc, const std::string& image, const Sink& sink);

 private:
  Puller& puller_;
  Hosts& hosts_;
  Catalogue& catalogue_;
  LayerStore& store_;
  const ArchiveLimits limits_;
  const std::shared_ptr<ByteCount> spooled_;
};

}  // namespace crisp::imaged
