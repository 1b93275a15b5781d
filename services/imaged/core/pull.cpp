#include "services/imaged/core/pull.h"

#include <malloc.h>

#include <algorithm>
#include <thread>

#include "cri/v1/api.pb.h"
#include "libs/base/cleanup.h"
#include "libs/base/try.h"
#include "libs/log/log.h"
#include "services/imaged/core/limited_source.h"
#include "services/imaged/core/pull_internal.h"

namespace crisp::imaged {
namespace {

constexpr auto kQuietTime = std::chrono::seconds(5);
constexpr int kMaxRounds = 3;  // when a layer is collected between its check and the commit

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
      unpackers_(options.parallel_unpackers),
      connections_(options.parallel_downloads),
      rate_(options.max_rate, clock),
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
  const work::Stage stage(cc, "wait for a turn among the pulls");
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

void Puller::StopAbandoned(std::chrono::nanoseconds after) {
  for (const std::string& key : pulls_.StopAbandoned(after))
    log::Info("a pull that nobody waits for is stopped",
              {{"image", std::string_view(key).substr(0, key.find(' '))}});
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
  return pulls_.Do(cc, KeyOf(parsed, credentials),
                   [this, parsed, credentials](const CallContext& own) {
                     return PullForAll(own, parsed, credentials);
                   });
}

Result<std::string> Puller::PullForAll(const CallContext& cc, const ref::ImageRef& image,
                                       const imaged::Credentials& credentials) {
  const std::string key = KeyOf(image, credentials);
  const std::shared_ptr<PullProgress> progress = CRISP_TRY(Watch(image.ToString(), credentials));
  bool begun = false;
  const Cleanup end([this, &key, &begun] { End(key, begun); });
  CRISP_TRY(Begin(cc));
  begun = true;
  const SteadyTime start = clock_.Now();
  metrics_.PullStarted();
  std::stop_source either;  // we, or nobody wants it any more
  const auto stop = [&either] { either.request_stop(); };
  const std::stop_callback at_our_end(stop_.get_token(), stop);
  const std::stop_callback abandoned(cc.stop(), stop);
  const CallContext stoppable = cc.WithStop(either.get_token());
  const auto open = [&]() -> Result<std::shared_ptr<ImageSource>> {
    std::unique_ptr<ImageSource> registry =
        CRISP_TRY(RegistryClient::Open(client_, hosts_, image, credentials));
    return std::make_shared<LimitedSource>(std::move(registry), options_.max_pull_rate, rate_,
                                           clock_);
  };
  const std::string& wanted = image.digest.empty() ? image.tag : image.digest;
  Result<std::string> id = Run(stoppable, image, wanted, open, *progress);
  metrics_.PullDone(id.status(), clock_.Now() - start);
  if (id.ok()) {
    log::Info("image pulled", {{"image", image.ToString()},
                               {"id", *id},
                               {"took", clock_.Now() - start},
                               {"request", cc.request_id()}});
  }
  return id;
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

/// For what comes without an image's configuration: one of our own.
Result<std::optional<ConvertedImage>> Puller::MakeConfig(const CallContext& cc, ImageSource& source,
                                                         const ResolvedImage& resolved) const {
  const ProbeLimits limits{options_.max_layer_size, options_.expansion};
  using Made = std::optional<ConvertedImage>;
  if (const Schema1* old = std::get_if<Schema1>(&resolved.image))
    return Made(CRISP_TRY(Convert(cc, source, *old, limits)));
  const Manifest& manifest = std::get<Manifest>(resolved.image);
  switch (manifest.kind) {
    case Manifest::Kind::kImage: return Made();
    case Manifest::Kind::kBare: return Made(CRISP_TRY(ConvertBare(cc, source, manifest, limits)));
    case Manifest::Kind::kArtifact:
      return Made(ConvertArtifact(manifest, resolved.documents.back()));
  }
  return Made();
}

/// Manifest and config, verified, and from them what the commit will say.
Status Puller::FindImage(const CallContext& cc, Work& work) {
  const work::Stage stage(cc, "find the image");
  const ref::ImageRef& image = work.image;
  const FetchedManifest fetched =
      CRISP_TRY(work.source->Manifest(cc, work.wanted, options_.max_manifest_size));
  NewImage& commit = work.commit;
  // Of an index it is the index's digest: what the reference stood for, on every node.
  commit.digests.push_back(image.Name() + "@" + fetched.digest.str());
  const std::string name = image.ToString();
  commit.pulled_as = name;
  ResolvedImage resolved = CRISP_TRY(ResolveImage(cc, *work.source, fetched, Platform::Host(),
                                                  {.max_manifest_size = options_.max_manifest_size,
                                                   .max_layers = options_.max_layers})
                                         .While("{}", name));
  if (resolved.documents.size() > 1)
    commit.chosen = image.Name() + "@" + resolved.documents.back().str();
  CRISP_TRY(CheckTrust(cc, work, resolved.documents));
  std::optional<ConvertedImage> converted =
      CRISP_TRY(MakeConfig(cc, *work.source, resolved).While("{}", name));
  if (converted) {
    work.manifest = std::move(converted->manifest);
    commit.config = std::move(converted->config);
  } else {
    work.manifest = std::get<Manifest>(std::move(resolved.image));
    const digest::Digest& digest = work.manifest.config.digest;
    Result<std::string> known = catalogue_.Config(digest.str());
    commit.config = known.ok()
                        ? *std::move(known)
                        : CRISP_TRY(work.source->Blob(cc, digest, options_.max_manifest_size));
  }
  commit.id = work.manifest.config.digest.str();
  commit.annotations = work.manifest.annotations;
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

/// A layer below was collected meanwhile, or the failure is of somebody else's source, which need
/// not be ours.
bool Puller::MayTryAgain(const Work& work, const Status& status, int round) const {
  if (status.code() == Code::kAborted) return round < kMaxRounds;
  const std::lock_guard lock(mutex_);
  const LayerFlight* failed = FailedFlight(work);
  return !work.alone && failed != nullptr && failed->starter.lock().get() != &work;
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
    work->operation = cc.operation();
    progress.SetStage("resolve");
    work->source = CRISP_TRY(open());
    CRISP_TRY(FindImage(cc, *work));
    progress.SetStage("layers");
    progress.SetLayers(work->manifest.layers);

    Status status;
    for (std::size_t i = 0; i < work->manifest.layers.size() && status.ok(); ++i) {
      const Result<bool> present = catalogue_.HasLayer(work->commit.chain[i]);
      if (!present.ok()) {
        status = present.status();
        break;
      }
      if (*present) {
        progress.SetPresent(i);
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
      WaitTelling(lock, cc, *work, may_start);
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
    {
      const work::Stage stage(cc, "store the image");
      status = catalogue_.CommitImage(work->commit, clock_.Wall());
    }
    Leave(work->flights);
    if (status.ok()) {
      if (!work->commit.fresh_layers.empty()) on_store_changed_();
      return work->commit.id;
    }
    if (status.code() != Code::kAborted || round >= kMaxRounds)
      return ForImage(std::move(status), image);
  }
}

}  // namespace crisp::imaged
