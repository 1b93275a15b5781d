#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/clock.h"
#include "libs/base/result.h"
#include "libs/base/units.h"
#include "libs/http/client.h"
#include "libs/ref/ref.h"
#include "libs/work/flights.h"
#include "libs/work/pool.h"
#include "services/imaged/core/image_config.h"
#include "services/imaged/core/layer_pull.h"
#include "services/imaged/core/limits.h"
#include "services/imaged/core/manifest.h"
#include "services/imaged/core/pipeline.h"
#include "services/imaged/core/pull_progress.h"
#include "services/imaged/core/resolve.h"
#include "services/imaged/metrics.h"
#include "services/imaged/registry/auth.h"
#include "services/imaged/registry/client.h"
#include "services/imaged/registry/hosts.h"
#include "services/imaged/store/catalogue.h"
#include "services/imaged/store/layer_store.h"
#include "services/imaged/trust/trust.h"

namespace runtime::v1 {
class PullImageRequest;
}

namespace crisp::imaged {

struct PullOptions {
  std::size_t parallel_layers = 4;  // of one pull
  std::size_t parallel_pulls = 8;
  std::size_t parallel_unpackers = 8;   // layers over all pulls
  std::size_t parallel_downloads = 16;  // connections over all pulls
  Spread spread{.most = 4};             // of one large layer
  Bytes ranged_from = MiB(64);          // what a large layer is, compressed
  bool reuse_files = true;              // of other layers, for zstd:chunked ones
  Bytes max_rate{0};                    // a second, of all pulls together; 0: any
  Bytes max_pull_rate{0};               // of one pull
  std::chrono::nanoseconds tell_every = std::chrono::seconds(5);  // of a long pull, in the log
  std::chrono::nanoseconds timeout = std::chrono::hours(1);
  // For so long a registry may be away while a layer is fetched.
  std::chrono::nanoseconds outage = std::chrono::seconds(30);
  Bytes max_layer_size = GiB(64);  // unpacked
  Expansion expansion;
  Bytes max_manifest_size = MiB(4);
  std::size_t max_layers = 127;
  std::uint64_t max_files = 4'000'000;  // of one layer
  bool erofs = false;                   // each layer becomes one image file
};

/// Pulls images: resolve, config, layers side by side, commit. A pull of the same image with the
/// same credentials is joined, and so is a layer that another pull fetches: when that fails, this
/// one fetches the layer itself. Any thread.
class Puller {
 public:
  /// `on_store_changed`: the catalogue has layers that are not yet synced to the disk. Must not
  /// block.
  Puller(PullOptions options, work::Pool& pool, http::Client& client, Hosts& hosts,
         Catalogue& catalogue, LayerStore& store, Trust& trust, Metrics& metrics, Clock& clock,
         std::function<void()> on_store_changed);
  Puller(const Puller&) = delete;
  Puller& operator=(const Puller&) = delete;
  /// Stops what is under way and waits for it.
  ~Puller();

  /// What a request wants to show to its registry.
  static Result<imaged::Credentials> Credentials(const runtime::v1::PullImageRequest& request);

  /// The image's id. `image` is a name, not an id; a short one may stand for several, which are
  /// tried in their order. kInvalidArgument, kNotFound, kUnauthenticated,
  /// kPermissionDenied, kUnknown ("RegistryUnavailable: …", "SignatureValidationFailed: …"),
  /// kDataLoss, kDeadlineExceeded (the pull goes on, the next call joins it). Idempotent.
  Result<std::string> Pull(const CallContext& cc, std::string_view image,
                           const imaged::Credentials& credentials);
  /// An image from elsewhere than a registry, under the name `image`: everything as in a pull, but
  /// nobody joins it. `manifest`: its digest in the source.
  Result<std::string> Import(const CallContext& cc, const ref::ImageRef& image,
                             const std::string& manifest, std::shared_ptr<ImageSource> source);
  /// What Pull with the same arguments reports to, made now if it has not begun.
  Result<std::shared_ptr<PullProgress>> Watch(std::string_view image,
                                              const imaged::Credentials& credentials);

  /// Stops the pulls whose last caller went away at least so long ago (a caller's deadline is
  /// another matter: it comes again). What they have finished is kept for a while. Memory work
  /// only.
  void StopAbandoned(std::chrono::nanoseconds after);

  /// True while no pull is under way and none ended within the last seconds: deletions that slow
  /// the file system down may run.
  bool Quiet() const;

 private:
  struct LayerFlight;
  struct StagedLayer;
  struct Work;

  Result<std::string> PullName(const CallContext& cc, const ref::ImageRef& parsed,
                               const imaged::Credentials& credentials);
  /// The pull that all its equals wait for: `cc` outlives each caller.
  Result<std::string> PullForAll(const CallContext& cc, const ref::ImageRef& image,
                                 const imaged::Credentials& credentials);
  /// Makes the source anew for each round.
  using Open = std::function<Result<std::shared_ptr<ImageSource>>()>;
  Result<std::string> Run(const CallContext& cc, const ref::ImageRef& image,
                          const std::string& manifest, const Open& open, PullProgress& progress);
  Status FindImage(const CallContext& cc, Work& work);
  Result<std::optional<ConvertedImage>> MakeConfig(const CallContext& cc, ImageSource& source,
                                                   const ResolvedImage& resolved) const;
  Status CheckTrust(const CallContext& cc, Work& work,
                    const std::vector<digest::Digest>& manifests);
  Status PullLayers(const CallContext& cc, Work& work);
  static const LayerFlight* FailedFlight(const Work& work);
  bool MayTryAgain(const Work& work, const Status& status, int round) const;
  void WaitTelling(std::unique_lock<std::mutex>& lock, const CallContext& cc, Work& work,
                   const std::function<bool()>& done);
  std::shared_ptr<LayerFlight> Join(const std::shared_ptr<Work>& work, std::size_t index);
  void Fly(std::shared_ptr<LayerFlight> flight, std::shared_ptr<Work> work, std::size_t index);
  Result<LayerRecord> FetchLayer(const CallContext& cc, LayerFlight& flight, Work& work,
                                 std::size_t index);
  Result<StagedLayer> StageLayer(const digest::Digest& chain);
  Status PullStaged(const CallContext& cc, LayerFlight& flight, Work& work, std::size_t index,
                    std::optional<StagedLayer>& staged, LayerNews& news);
  void Leave(const std::vector<std::shared_ptr<LayerFlight>>& flights);
  Status Begin(const CallContext& cc);
  void End(const std::string& key, bool begun);

  const PullOptions options_;
  http::Client& client_;
  Hosts& hosts_;
  Catalogue& catalogue_;
  LayerStore& store_;
  Trust& trust_;
  Metrics& metrics_;
  Clock& clock_;
  const std::function<void()> on_store_changed_;
  BufferPool buffers_;
  Slots unpackers_;
  Slots connections_;
  RateLimit rate_;
  work::Flights<std::string, std::string> pulls_;
  std::stop_source stop_;

  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::size_t active_ = 0;   // pulls that run
  std::size_t threads_ = 0;  // of layers
  SteadyTime last_end_;
  std::map<std::string, std::shared_ptr<LayerFlight>> layers_;   // by chain id
  std::map<std::string, std::weak_ptr<PullProgress>> progress_;  // of who pulls or watches
};

}  // namespace crisp::imaged
