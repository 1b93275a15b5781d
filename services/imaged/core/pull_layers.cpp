#include <algorithm>
#include <thread>

#include "libs/base/cleanup.h"
#include "libs/base/try.h"
#include "libs/log/log.h"
#include "services/imaged/core/pull_internal.h"
#include "services/imaged/core/reuse.h"

// The puller's second half: the layers of its pulls.
namespace crisp::imaged {
namespace {

constexpr auto kKeepForRetry = std::chrono::minutes(10);
constexpr int kDeleteNow = 512;  // files of a failed layer; more than that waits for a quiet time

}  // namespace

/// Waits until `done`, the call's deadline or its stop. What takes long is told of in the log.
void Puller::WaitTelling(std::unique_lock<std::mutex>& lock, const CallContext& cc, Work& work,
                         const std::function<bool()>& done) {
  while (!cc.stop().stop_requested() && std::chrono::steady_clock::now() < cc.deadline()) {
    const SteadyTime next = work.progress->told_at() + options_.tell_every;
    if (changed_.wait_until(lock, cc.stop(), std::min(next, cc.deadline()), done)) return;
    if (std::chrono::steady_clock::now() < next) continue;
    lock.unlock();
    work.progress->Tell(work.image.ToString());
    lock.lock();
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

/// Waits for all layers; the first failure is the pull's.
Status Puller::PullLayers(const CallContext& cc, Work& work) {
  std::vector<work::Stage> theirs;
  for (const auto& flight : work.flights) {
    if (flight->starter.lock().get() == &work) continue;
    theirs.push_back(work::Stage::Elsewhere(
        cc, fmt::format("layer {}, which another pull fetches", flight->progress->digest)));
    theirs.back().HowFar([progress = flight->progress] { return progress->HowFar(); });
  }
  std::unique_lock lock(mutex_);
  const auto settled = [&work] {
    const LayerFlight* failed = FailedFlight(work);
    return (failed != nullptr && failed->outcome->code() != Code::kAborted) ||
           std::all_of(work.flights.begin(), work.flights.end(),
                       [](const auto& flight) { return flight->outcome.has_value(); });
  };
  WaitTelling(lock, cc, work, settled);
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
  work->progress->SetLayer(index, flight->progress);
  if (!join) {
    ++threads_;
    std::thread([this, flight = flight, work = work, index]() mutable {
      Fly(std::move(flight), std::move(work), index);
    }).detach();
  }
  return flight;
}

/// The thread of one layer. Layers are unpacked in any order, but finished from below: a layer
/// takes what its archive left out from those that it lies on.
void Puller::Fly(std::shared_ptr<LayerFlight> flight, std::shared_ptr<Work> work,
                 std::size_t index) {
  metrics_.LayerStarted();
  Result<LayerRecord> outcome = [&] {
    const CallContext cc = CallContext(clock_.Now() + options_.timeout, flight->stop.get_token(),
                                       work->image.ToString())
                               .PartOf(work->operation);
    work::Stage stage(cc, fmt::format("layer {}", flight->progress->digest));
    stage.HowFar([progress = flight->progress] { return progress->HowFar(); });
    return FetchLayer(cc, *flight, *work, index);
  }();
  metrics_.LayerDone(outcome.ok() ? Status::Ok() : outcome.status(), flight->times);
  const std::lock_guard lock(mutex_);
  flight->unpacked = true;
  flight->outcome = std::move(outcome);
  flight->below.reset();
  // The layer's lock goes with the pulls that hold the flight, not when this thread, which may have
  // to wait for a processor, comes to its end.
  flight.reset();
  work.reset();
  --threads_;
  changed_.notify_all();
}

Result<Puller::StagedLayer> Puller::StageLayer(const digest::Digest& chain) {
  std::string path = CRISP_TRY(store_.Stage(chain));
  Cleanup discard(
      [this, path] { log::IfError("discard staged layer", store_.Discard(path, kDeleteNow)); });
  Unpacker unpacker = CRISP_TRY(Unpacker::Create(
      path + "/diff", {.max_size = options_.max_layer_size, .max_inodes = options_.max_files}));
  return StagedLayer{std::move(path), std::move(discard), std::move(unpacker)};
}

/// The layer's blob, or what of it is not here. When that fails it comes whole, into a new
/// directory.
Status Puller::PullStaged(const CallContext& cc, LayerFlight& flight, Work& work, std::size_t index,
                          std::optional<StagedLayer>& staged, LayerNews& news) {
  const Descriptor& blob = work.manifest.layers[index];
  const OpenBlob open = [&work, &blob](const CallContext& call, BlobRange range) {
    return work.source->OpenBlob(call, blob.digest, range);
  };
  const LayerLimits limits{
      .buffers = buffers_,
      .connections = connections_,
      .spread = options_.spread,
      .ranged_from = options_.ranged_from,
      .max_size = options_.max_layer_size,
      .expansion = options_.expansion,
      .outage = options_.outage,
      .on_fetched = [this](std::uint64_t count) { metrics_.Fetched(count); },
  };
  std::optional<ReusePlan> plan;
  if (options_.reuse_files) plan = CRISP_TRY(PlanReuse(cc, blob, open, store_, limits));
  WantedLayer layer{blob, work.config.diff_ids[index], open, plan ? &*plan : nullptr};
  Status pulled = PullLayer(cc, layer, staged->unpacker, limits, *flight.progress, news);
  if (!plan) return pulled;
  if (pulled.ok()) {
    news.toc = std::move(plan->toc);
    metrics_.Reused(flight.progress->spared);
    log::Info("a layer is made of files that were here",
              {{"layer", blob.digest.str()}, {"of", blob.size}, {"fetched", plan->fetch_size}});
    return Status::Ok();
  }
  if (!MayComeWhole(cc, pulled)) return pulled;
  log::Warn("a layer comes whole: it could not be made of files that are here",
            {{"layer", blob.digest.str()}, {"why", pulled}});
  layer.reuse = nullptr;
  plan.reset();
  staged.reset();
  staged.emplace(CRISP_TRY(StageLayer(flight.chain)));
  return PullLayer(cc, layer, staged->unpacker, limits, *flight.progress, news);
}

Result<LayerRecord> Puller::FetchLayer(const CallContext& cc, LayerFlight& flight, Work& work,
                                       std::size_t index) {
  {
    const work::Stage stage(cc, "lock the layer");
    flight.lock = CRISP_TRY(store_.Lock(cc, flight.chain));
  }
  if (CRISP_TRY(catalogue_.HasLayer(flight.chain))) {  // another instance was faster
    flight.progress->state = LayerProgress::State::kPresent;
    const std::lock_guard lock(mutex_);
    flight.fresh = false;
    return LayerRecord{flight.chain, work.config.diff_ids[index]};
  }
  Slots::Hold unpacks = CRISP_TRY(unpackers_.Take(cc, "wait for a turn to unpack"));
  std::optional<StagedLayer> staged(CRISP_TRY(StageLayer(flight.chain)));
  const Descriptor& blob = work.manifest.layers[index];
  LayerNews news;
  Status pulled = PullStaged(cc, flight, work, index, staged, news);
  flight.times = news.times;
  unpacks.Release();
  if (pulled.code() == Code::kNotFound && blob.foreign)
    return std::move(pulled).While(
        "layer {} is a foreign one: it is taken from its registry, never from elsewhere",
        blob.digest.str());
  CRISP_TRY(std::move(pulled));
  Unpacker& unpacker = staged->unpacker;
  if (unpacker.devices_left_out() > 0)
    log::Warn("device nodes of a layer left out: imaged is confined",
              {{"layer", blob.digest.str()}, {"devices", unpacker.devices_left_out()}});
  {
    std::unique_lock lock(mutex_);
    flight.unpacked = true;
    changed_.notify_all();
    if (flight.below) {
      const work::Stage stage(cc, "wait for the layer below");
      changed_.wait(lock, cc.stop(), [&flight] { return flight.below->outcome.has_value(); });
      CRISP_TRY(cc.Check());
      if (!flight.below->outcome->ok())
        return Aborted("layer {}: the layer below it failed", blob.digest.str());
    }
  }
  std::vector<std::string> parents;
  for (std::size_t i = index; i > 0; --i)
    parents.push_back(store_.PathOf(work.commit.chain[i - 1]));
  const work::Stage stage(cc, "finish the layer's files");
  CRISP_TRY(unpacker.Finish(cc, parents).While("layer {}", blob.digest.str()));
  Usage usage = unpacker.usage();
  std::optional<Usage> image;
  if (options_.erofs)
    image = CRISP_TRY(store_.MakeImage(cc, staged->path).While("layer {}", blob.digest.str()));
  if (image) usage = *image;
  // An image serves no files.
  if (!image && !news.toc.empty() && options_.reuse_files)
    log::IfError("index the files of a layer", IndexFiles(news.toc, staged->path));
  CRISP_TRY(store_.Commit(staged->path, flight.chain));
  staged->discard.Dismiss();
  return LayerRecord{flight.chain, work.config.diff_ids[index], usage.bytes, usage.inodes};
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
