#include "services/imaged/core/pull_progress.h"

#include <algorithm>

#include "libs/log/log.h"
#include "libs/work/operations.h"

namespace crisp::imaged {

std::string LayerProgress::HowFar() const {
  if (state != State::kDownloading) return {};
  const SteadyTime now = std::chrono::steady_clock::now();
  const std::uint64_t count = done;
  const std::uint64_t kept = spared;
  std::string text = fmt::format("{} of {} bytes", count + kept, size);
  if (kept > 0) text += fmt::format(" ({} need not come)", kept);
  if (const std::string host = *from.lock(); !host.empty()) text += " from " + host;
  const double seconds = std::chrono::duration<double>(now - began.load()).count();
  if (seconds > 0) {
    text += fmt::format(", {:.0f} bytes/s", static_cast<double>(count) / seconds);
  }
  constexpr std::chrono::seconds kSilence{2};
  const auto silence = now - std::max(last.load(), began.load());
  if (silence >= kSilence) text += ", nothing for " + work::TimeText(silence);
  return text;
}

std::string PullProgress::stage() const {
  const std::lock_guard lock(mutex_);
  return stage_;
}

std::vector<PullProgress::Layer> PullProgress::layers() const {
  const std::lock_guard lock(mutex_);
  std::vector<Layer> layers;
  for (const auto& each : layers_) {
    const std::uint64_t spared = each->spared;
    layers.push_back({each->digest, each->size, each->done + spared, spared, each->state.load()});
  }
  return layers;
}

void PullProgress::SetStage(std::string_view stage) {
  const std::lock_guard lock(mutex_);
  stage_ = stage;
}

void PullProgress::SetLayers(const std::vector<Descriptor>& layers) {
  const std::lock_guard lock(mutex_);
  layers_.clear();
  for (const Descriptor& layer : layers) {
    auto each = std::make_shared<LayerProgress>();
    each->digest = layer.digest.str();
    each->size = layer.size;
    layers_.push_back(std::move(each));
  }
}

void PullProgress::SetPresent(std::size_t index) {
  const std::lock_guard lock(mutex_);
  LayerProgress& layer = *layers_[index];
  layer.done = layer.size;
  layer.state = LayerProgress::State::kPresent;
}

void PullProgress::SetLayer(std::size_t index, std::shared_ptr<LayerProgress> progress) {
  const std::lock_guard lock(mutex_);
  layers_[index] = std::move(progress);
}

void PullProgress::Tell(std::string_view image) {
  std::size_t layers_done = 0;
  std::uint64_t size = 0;
  std::uint64_t done = 0;
  std::uint64_t come = 0;
  const std::vector<Layer> all = layers();
  for (const Layer& layer : all) {
    size += layer.size;
    done += layer.done;
    come += layer.done - layer.spared;
    if (layer.state >= LayerProgress::State::kUnpacked) ++layers_done;
  }
  const SteadyTime now = std::chrono::steady_clock::now();
  double rate = 0;
  {
    const std::lock_guard lock(mutex_);
    rate = static_cast<double>(come - std::min(come, told_bytes_)) /
           std::chrono::duration<double>(now - told_at_).count();
    told_at_ = now;
    told_bytes_ = come;
  }
  log::Info("image is being pulled", {{"image", image},
                                      {"layers", fmt::format("{}/{}", layers_done, all.size())},
                                      {"bytes", done},
                                      {"of", size},
                                      {"bytes_per_second", static_cast<std::uint64_t>(rate)}});
}

SteadyTime PullProgress::told_at() const {
  const std::lock_guard lock(mutex_);
  return told_at_;
}

}  // namespace crisp::imaged
