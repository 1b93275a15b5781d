#include "services/imaged/core/pull.h"

#include <malloc.h>

#include <algorithm>
#include <thread>

#include "cri/v1/api.pb.h"
#include "libs/base/cleanup.h"
#include "libs/base/try.h"
#include "libs/log/log.h"
#include "services/imaged/core/resolve.h"

namespace crisp::imaged {
namespace {

constexpr auto kQuietTime = std::chrono::seconds(5);
constexpr auto kKeepForRetry = std::chrono::minutes(10);
constexpr int kDeleteNow = 512;  // files of a failed layer; more than that waits for a quiet time
constexpr int kMaxRounds = 3;    // when a layer is collected between its check and the commit

std::string KeyOf(const ref::ImageRef& image, const imaged::Credentials& credentials) {
  return image.ToString() + " " + credentials.Fingerprint();
}

/// The failure of a pull names the image, once; "RegistryUnavailable" stays its first word, which
/// clients look for.
Status ForImage(Status status, const ref::ImageRef& image) {
  const std::string name = image.ToString();
  if (status.message().find(name) != std::string::npos) return status;
  return std::move(status).While("{}", name);
}

}  // namespace

/// One layer on its way into the store, for every pull that wants it. Stays in the table until its
/// row is written, so that nobody fetches it again in between.
struct Puller::LayerFlight {
  digest::Digest chain;
  std::shared_ptr<LayerProgress> progress = std::make_shared<LayerProgress>();
  std::shared_ptr<LayerFlight> below;  // nothing: the layer below is finished
  std::weak_ptr<Work> starter;         // from whose source it is fetched
  std::stop_source stop;
  ChainLock lock;  // the flight's thread sets it; kept until the row is written

  // Guarded by the puller's mutex.
  int users = 0;
  bool unpacked = false;  // the expensive part is over, well or not
  std::optional<Result<LayerRecord>> outcome;
  bool fresh = true;  // false: found in the catalogue after all
};

/// What one pull knows.
struct Puller::Work {
  ref::ImageRef image;
  std::string wanted;  // the manifest: a tag or a digest
  PullProgress* progress = nullptr;
  std::shared_ptr<ImageSource> source;
  Manifest manifest;
  ImageConfig config;
  NewImage commit;
  std::vector<std::shared_ptr<LayerFlight>> flights;
  bool alone = false;  // joins no flight of another pull
};

std::string PullProgress::stage() const {
  const std::lock_guard lock(mutex_);
  return stage_;
}

std::vector<PullProgress::Layer> PullProgress::layers() const {
  const std::lock_guard lock(mutex_);
  std::vector<Layer> layers;
  for (const auto& each : layers_)
    layers.push_back({each->digest, each->size, each->done.load(), each->state.load()});
  return layers;
}

void PullProgress::SetStage(std::string_view stage) {
  const std::lock_guard lock(mutex_);
  stage_ = stage;
}

Puller::Puller(PullOptions options, work::Pool& pool, http::Client& client, Hosts& hosts,
               Catalogue& catalogue, LayerStore& store, Trust& trust, Metrics& metrics,
               Clock& clock, std::function<void()> on_store_changed)
    : options_(options),
      client_(client),
      hosts_(hosts),
      catalogue_(catalogue),
      store_(store),
      trust_(trust),
      metrics_(metrics),
      clock_(clock),
      on_store_changed_(std::move(on_store_changed)),
      pulls_(pool, options.timeout) {}

Puller::~Puller() {
  stop_.request_stop();
  std::unique_lock lock(mutex_);
  for (const auto& [chain, flight] : layers_) flight->stop.request_stop();
  changed_.notify_all();
  changed_.wait(lock, [this] { return active_ == 0 && threads_ == 0; });
}

bool Puller::Quiet() const {
  const std::lock_guard lock(mutex_);
  return active_ == 0 && (last_end_ == SteadyTime() || clock_.Now() - last_end_ > kQuietTime);
}

Status Puller::Begin(const CallContext& cc) {
  std::unique_lock lock(mutex_);
  const auto free = [this] { return active_ < options_.parallel_pulls || stop_.stop_requested(); };
  changed_.wait_until(lock, cc.stop(), cc.deadline(), free);
  if (stop_.stop_requested()) return Unavailable("imaged is stopping");
  if (active_ >= options_.parallel_pulls) {
    CRISP_TRY(cc.Check());
    return DeadlineExceeded("the deadline of the call has passed");
  }
  ++active_;
  return Status::Ok();
}

void Puller::End(const std::string& key, bool begun) {
  bool last = false;
  {
    const std::lock_guard lock(mutex_);
    progress_.erase(key);
    last = begun && active_ == 1;
  }
  if (last) {
    client_.Trim();
    buffers_.Trim();
    ::malloc_trim(0);
  }
  // One step, the last: the destructor may run on once it sees it.
  const std::lock_guard lock(mutex_);
  if (!begun) return;
  --active_;
  last_end_ = clock_.Now();
  changed_.notify_all();
}

Result<std::shared_ptr<PullProgress>> Puller::Watch(std::string_view image,
                                                    const imaged::Credentials& credentials) {
  const std::vector<ref::ImageRef> names = CRISP_TRY(hosts_.Names(image));
  const std::lock_guard lock(mutex_);
  std::erase_if(progress_, [](const auto& each) { return each.second.expired(); });
  auto& slot = progress_[KeyOf(names.front(), credentials)];
  std::shared_ptr<PullProgress> progress = slot.lock();
  if (!progress) slot = progress = std::make_shared<PullProgress>();
  return progress;
}

Result<imaged::Credentials> Puller::Credentials(const runtime::v1::PullImageRequest& request) {
  return ParseAuth(request.auth()).While("cannot pull \"{}\"", request.image().image());
}

Result<std::string> Puller::Pull(const CallContext& cc, std::string_view image,
                                 const imaged::Credentials& credentials) {
  const std::vector<ref::ImageRef> names =
      CRISP_TRY(hosts_.Names(image).While("cannot pull \"{}\"", image));
  std::string reasons;
  for (const ref::ImageRef& name : names) {
    Result<std::string> id = PullName(cc, name, credentials);
    if (id.ok() || names.size() == 1) return id;
    CRISP_TRY(cc.Check());
    reasons += (reasons.empty() ? "" : "; ") + id.status().message();
    if (&name == &names.back()) return Status(id.code(), std::move(reasons));
  }
  return Internal("the image {} has no name", image);  // Names answers one at least
}

Result<std::string> Puller::PullName(const CallContext& cc, const ref::ImageRef& parsed,
                                     const imaged::Credentials& credentials) {
  const std::string key = KeyOf(parsed, credentials);
  return pulls_.Do(
      cc, key, [this, parsed, credentials, key](const CallContext& own) -> Result<std::string> {
        const std::shared_ptr<PullProgress> progress =
            CRISP_TRY(Watch(parsed.ToString(), credentials));
        bool begun = false;
        const Cleanup end([this, &key, &begun] { End(key, begun); });
        CRISP_TRY(Begin(own));
        begun = true;
        const SteadyTime start = clock_.Now();
        metrics_.PullStarted();
        const CallContext stoppable(own.deadline(), stop_.get_token(), own.request_id());
        const auto open = [&]() -> Result<std::shared_ptr<ImageSource>> {
          return std::shared_ptr<ImageSource>(
              CRISP_TRY(RegistryClient::Open(client_, hosts_, parsed, credentials)));
        };
        const std::string& wanted = parsed.digest.empty() ? parsed.tag : parsed.digest;
        Result<std::string> id = Run(stoppable, parsed, wanted, open, *progress);
        const Status status = id.ok() ? Status::Ok() : id.status();
        metrics_.PullDone(status, clock_.Now() - start);
        if (id.ok())
          log::Info("image pulled", {{"image", parsed.ToString()},
                                     {"id", *id},
                                     {"took", clock_.Now() - start},
                                     {"request", own.request_id()}});
        return id;
      });
}

/// The signature policy, before anything but manifests is fetched. What was found is kept for later
/// decisions.
Status Puller::CheckTrust(const CallContext& cc, Work& work,
                          const std::vector<digest::Digest>& manifests) {
  RepositoryReader reader;
  reader.manifest = [this, &work](const CallContext& call,
                                  const std::string& tag) -> Result<std::string> {
    FetchedManifest fetched =
        CRISP_TRY(work.source->Manifest(call, tag, options_.max_manifest_size));
    return std::move(fetched.body);
  };
  reader.blob = [&work](const CallContext& call, const digest::Digest& digest, Bytes limit) {
    return work.source->Blob(call, digest, limit);
  };
  for (const Signature& each : CRISP_TRY(trust_.CheckPull(cc, work.image, manifests, reader)))
    work.commit.signatures.push_back(EncodeSignature(each));
  return Status::Ok();
}

Result<std::string> Puller::Import(const CallContext& cc, const ref::ImageRef& image,
                                   const std::string& manifest,
                                   std::shared_ptr<ImageSource> source) {
  const std::string key = "import " + image.ToString();
  bool begun = false;
  const Cleanup end([this, &key, &begun] { End(key, begun); });
  CRISP_TRY(Begin(cc));
  begun = true;
  PullProgress progress;
  const auto open = [&source]() -> Result<std::shared_ptr<ImageSource>> { return source; };
  std::string id = CRISP_TRY(Run(cc, image, manifest, open, progress));
  log::Info("image imported", {{"image", image.ToString()}, {"id", id}});
  return id;
}

/// Manifest and config, verified, and from them what the commit will say.
Status Puller::FindImage(const CallContext& cc, Work& work) {
  const ref::ImageRef& image = work.image;
  const FetchedManifest fetched =
      CRISP_TRY(work.source->Manifest(cc, work.wanted, options_.max_manifest_size));
  NewImage& commit = work.commit;
  // Of an index it is the index's digest, and only that: what the reference stood for, on every
  // node.
  commit.digests.push_back(image.Name() + "@" + fetched.digest.str());
  const std::string name = image.ToString();
  commit.pulled_as = name;
  ResolvedImage resolved = CRISP_TRY(ResolveImage(cc, *work.source, fetched, Platform::Host(),
                                                  {.max_manifest_size = options_.max_manifest_size,
                                                   .max_layers = options_.max_layers})
                                         .While("{}", name));
  CRISP_TRY(CheckTrust(cc, work, resolved.documents));
  if (const Schema1* old = std::get_if<Schema1>(&resolved.image)) {
    ConvertedImage converted =
        CRISP_TRY(Convert(cc, *work.source, *old, options_.max_layer_size).While("{}", name));
    work.manifest = std::move(converted.manifest);
    commit.id = work.manifest.config.digest.str();
    commit.config = std::move(converted.config);
  } else {
    work.manifest = std::get<Manifest>(std::move(resolved.image));
    commit.id = work.manifest.config.digest.str();
    Result<std::string> known = catalogue_.Config(commit.id);
    commit.config = known.ok() ? *std::move(known)
                               : CRISP_TRY(work.source->Blob(cc, work.manifest.config.digest,
                                                             options_.max_manifest_size));
  }
  work.config = CRISP_TRY(ParseImageConfig(commit.config).While("{}", name));
  if (work.config.diff_ids.size() != work.manifest.layers.size())
    return InvalidArgument("{}: the manifest has {} layers, the config {}", name,
                           work.manifest.layers.size(), work.config.diff_ids.size());
  commit.uid = work.config.uid;
  commit.username = work.config.username;
  commit.chain = ChainIds(work.config.diff_ids);
  // name:tag@digest means the digest: the tag may be elsewhere by now.
  if (image.digest.empty()) commit.tag = image.Tagged();
  return Status::Ok();
}

Result<std::string> Puller::Run(const CallContext& cc, const ref::ImageRef& image,
                                const std::string& manifest, const Open& open,
                                PullProgress& progress) {
  bool alone = false;
  for (int round = 1;; ++round) {
    const auto work = std::make_shared<Work>();
    work->alone = alone;
    work->image = image;
    work->wanted = manifest;
    work->progress = &progress;
    progress.SetStage("resolve");
    work->source = CRISP_TRY(open());
    CRISP_TRY(FindImage(cc, *work));
    progress.SetStage("layers");
    {
      const std::lock_guard lock(progress.mutex_);
      progress.layers_.clear();
      for (const Descriptor& layer : work->manifest.layers) {
        auto each = std::make_shared<LayerProgress>();
        each->digest = layer.digest.str();
        each->size = layer.size;
        progress.layers_.push_back(std::move(each));
      }
    }

    std::shared_ptr<LayerFlight> below;
    Status status;
    for (std::size_t i = 0; i < work->manifest.layers.size() && status.ok(); ++i) {
      const Result<bool> present = catalogue_.HasLayer(work->commit.chain[i]);
      if (!present.ok()) {
        status = present.status();
        break;
      }
      if (*present) {
        const std::lock_guard lock(progress.mutex_);
        progress.layers_[i]->done = progress.layers_[i]->size;
        progress.layers_[i]->state = LayerProgress::State::kPresent;
        continue;
      }
      // Not more than so many of ours at once, and none after the first failure.
      std::unique_lock lock(mutex_);
      const auto may_start = [&] {
        std::size_t busy = 0;
        for (const auto& flight : work->flights) {
          if (flight->outcome && !flight->outcome->ok()) return true;
          if (!flight->unpacked) ++busy;
        }
        return busy < options_.parallel_layers;
      };
      changed_.wait_until(lock, cc.stop(), cc.deadline(), may_start);
      lock.unlock();
      status = cc.Check();
      if (status.ok()) work->flights.push_back(Join(work, i));
      lock.lock();
      if (const LayerFlight* failed = FailedFlight(*work); failed != nullptr && status.ok())
        status = failed->outcome->status();
    }
    if (status.ok()) status = PullLayers(cc, *work);
    if (!status.ok()) {
      const bool again = cc.Check().ok() && MayTryAgain(*work, status, round);
      alone = true;
      Leave(work->flights);
      on_store_changed_();
      if (again) continue;
      return ForImage(std::move(status), image);
    }
    progress.SetStage("commit");
    status = catalogue_.CommitImage(work->commit, clock_.Wall());
    Leave(work->flights);
    if (status.ok()) {
      if (!work->commit.fresh_layers.empty()) on_store_changed_();
      return work->commit.id;
    }
    if (status.code() != Code::kAborted || round >= kMaxRounds)
      return ForImage(std::move(status), image);
  }
}

/// The flight that made the pull fail, not one that failed for it; null as long as none has. The
/// caller holds the mutex.
const Puller::LayerFlight* Puller::FailedFlight(const Work& work) {
  const LayerFlight* failed = nullptr;
  for (const auto& flight : work.flights) {
    if (!flight->outcome || flight->outcome->ok()) continue;
    if (flight->outcome->code() != Code::kAborted) return flight.get();
    if (failed == nullptr) failed = flight.get();
  }
  return failed;
}

/// A layer below was collected meanwhile, or the failure is of somebody else's source, which need
/// not be ours.
bool Puller::MayTryAgain(const Work& work, const Status& status, int round) const {
  if (status.code() == Code::kAborted) return round < kMaxRounds;
  const std::lock_guard lock(mutex_);
  const LayerFlight* failed = FailedFlight(work);
  return !work.alone && failed != nullptr && failed->starter.lock().get() != &work;
}

/// Waits for all layers; the first failure is the pull's.
Status Puller::PullLayers(const CallContext& cc, Work& work) {
  std::unique_lock lock(mutex_);
  const auto settled = [&work] {
    const LayerFlight* failed = FailedFlight(work);
    return (failed != nullptr && failed->outcome->code() != Code::kAborted) ||
           std::all_of(work.flights.begin(), work.flights.end(),
                       [](const auto& flight) { return flight->outcome.has_value(); });
  };
  changed_.wait_until(lock, cc.stop(), cc.deadline(), settled);
  if (const LayerFlight* failed = FailedFlight(work);
      failed != nullptr && failed->outcome->code() != Code::kAborted)
    return failed->outcome->status();
  for (const auto& flight : work.flights) {
    if (!flight->outcome) {
      CRISP_TRY(cc.Check());
      return DeadlineExceeded("the deadline of the call has passed");
    }
    if (!flight->outcome->ok()) return flight->outcome->status();
    if (flight->fresh) work.commit.fresh_layers.push_back(**flight->outcome);
  }
  return Status::Ok();
}

std::shared_ptr<Puller::LayerFlight> Puller::Join(const std::shared_ptr<Work>& work,
                                                  std::size_t index) {
  const digest::Digest& chain = work->commit.chain[index];
  const std::lock_guard lock(mutex_);
  auto& slot = layers_[chain.str()];
  // A failed one, or one that is being stopped, is of no use: a new one starts once its lock is
  // free.
  const bool join =
      slot != nullptr &&
      (slot->outcome ? slot->outcome->ok() : !slot->stop.stop_requested() && !work->alone);
  if (!join) {
    slot = std::make_shared<LayerFlight>();
    slot->chain = chain;
    slot->starter = work;
    slot->progress->digest = work->manifest.layers[index].digest.str();
    slot->progress->size = work->manifest.layers[index].size;
    for (const auto& flight : work->flights)
      if (index > 0 && flight->chain == work->commit.chain[index - 1]) slot->below = flight;
  }
  const std::shared_ptr<LayerFlight> flight = slot;
  ++flight->users;
  {
    const std::lock_guard progress_lock(work->progress->mutex_);
    work->progress->layers_[index] = flight->progress;
  }
  if (!join) {
    ++threads_;
    std::thread([this, flight, work, index] { Fly(flight, work, index); }).detach();
  }
  return flight;
}

/// The thread of one layer. Layers are unpacked in any order, but finished from below: a layer
/// takes what its archive left out from those that it lies on.
void Puller::Fly(const std::shared_ptr<LayerFlight>& flight, const std::shared_ptr<Work>& work,
                 std::size_t index) {
  const CallContext cc = CallContext(clock_.Now() + options_.timeout, flight->stop.get_token(),
                                     work->image.ToString());
  Result<LayerRecord> outcome = FetchLayer(cc, *flight, *work, index);
  metrics_.LayerDone(outcome.ok() ? Status::Ok() : outcome.status(), flight->progress->done);
  const std::lock_guard lock(mutex_);
  flight->unpacked = true;
  flight->outcome = std::move(outcome);
  flight->below.reset();
  --threads_;
  changed_.notify_all();
}

Result<LayerRecord> Puller::FetchLayer(const CallContext& cc, LayerFlight& flight, Work& work,
                                       std::size_t index) {
  flight.lock = CRISP_TRY(store_.Lock(cc, flight.chain));
  if (CRISP_TRY(catalogue_.HasLayer(flight.chain))) {  // another instance was faster
    flight.progress->state = LayerProgress::State::kPresent;
    const std::lock_guard lock(mutex_);
    flight.fresh = false;
    return LayerRecord{flight.chain, work.config.diff_ids[index]};
  }
  const std::string staged = CRISP_TRY(store_.Stage(flight.chain));
  Cleanup discard(
      [&] { log::IfError("discard staged layer", store_.Discard(staged, kDeleteNow)); });
  Unpacker unpacker = CRISP_TRY(Unpacker::Create(
      staged + "/diff", {.max_size = options_.max_layer_size, .max_inodes = options_.max_files}));
  const Descriptor& blob = work.manifest.layers[index];
  const OpenBlob open = [&work, &blob](const CallContext& call, std::uint64_t offset) {
    return work.source->OpenBlob(call, blob.digest, offset);
  };
  Status pulled = PullLayer(cc, blob, work.config.diff_ids[index], open, unpacker, buffers_,
                            options_.max_layer_size, *flight.progress);
  if (pulled.code() == Code::kNotFound && blob.foreign)
    return std::move(pulled).While(
        "layer {} is a foreign one: it is taken from its registry, never from elsewhere",
        blob.digest.str());
  CRISP_TRY(std::move(pulled));
  if (unpacker.devices_left_out() > 0)
    log::Warn("device nodes of a layer left out: imaged is confined",
              {{"layer", blob.digest.str()}, {"devices", unpacker.devices_left_out()}});
  {
    std::unique_lock lock(mutex_);
    flight.unpacked = true;
    changed_.notify_all();
    if (flight.below) {
      changed_.wait(lock, cc.stop(), [&flight] { return flight.below->outcome.has_value(); });
      CRISP_TRY(cc.Check());
      if (!flight.below->outcome->ok())
        return Aborted("layer {}: the layer below it failed", blob.digest.str());
    }
  }
  std::vector<std::string> parents;
  for (std::size_t i = index; i > 0; --i)
    parents.push_back(store_.layout().Diff(work.commit.chain[i - 1].hex()));
  CRISP_TRY(unpacker.Finish(cc, parents).While("layer {}", blob.digest.str()));
  CRISP_TRY(store_.Commit(staged, flight.chain));
  discard.Dismiss();
  return LayerRecord{flight.chain, work.config.diff_ids[index], unpacker.usage().bytes,
                     unpacker.usage().inodes};
}

/// The pull needs its flights no more. Those that nobody else wants are stopped; finished layers
/// that no commit has told the catalogue of are kept for the next try.
void Puller::Leave(const std::vector<std::shared_ptr<LayerFlight>>& flights) {
  std::vector<std::shared_ptr<LayerFlight>> ours;
  {
    std::unique_lock lock(mutex_);
    for (const auto& flight : flights)
      if (--flight->users == 0) {
        if (!flight->outcome) flight->stop.request_stop();
        ours.push_back(flight);
      }
    changed_.notify_all();
    changed_.wait(lock, [&ours] {
      return std::all_of(ours.begin(), ours.end(),
                         [](const auto& flight) { return flight->outcome.has_value(); });
    });
  }
  std::vector<LayerRecord> finished;
  for (const auto& flight : ours)
    if (flight->outcome->ok() && flight->fresh) {
      const Result<bool> known = catalogue_.HasLayer(flight->chain);
      if (known.ok() && !*known) finished.push_back(**flight->outcome);
    }
  bool lost = false;
  if (!finished.empty()) {
    const Status kept = catalogue_.AddLayers(finished, clock_.Wall() + kKeepForRetry);
    log::IfError("keep the layers of a failed pull", kept);
    lost = !kept.ok();
    on_store_changed_();
  }
  {
    const std::lock_guard lock(mutex_);
    for (const auto& flight : ours) {
      const auto found = layers_.find(flight->chain.str());
      if (found != layers_.end() && found->second == flight && flight->users == 0)
        layers_.erase(found);
      // Who joined it meanwhile sees to it.
      if (flight->users > 0)
        std::erase_if(finished, [&](const auto& layer) { return layer.chain == flight->chain; });
    }
  }
  // Nobody would know of them; their locks are still ours.
  for (const LayerRecord& layer : finished)
    if (lost)
      log::IfError("discard a layer", store_.Discard(store_.layout().Layer(layer.chain.hex())));
}

}  // namespace crisp::imaged
