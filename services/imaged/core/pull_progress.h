#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/clock.h"
#include "services/imaged/core/layer_pull.h"
#include "services/imaged/core/manifest.h"

namespace crisp::imaged {

/// How far a pull is. Any thread.
class PullProgress {
 public:
  struct Layer {
    std::string digest;
    std::uint64_t size = 0;
    std::uint64_t done = 0;    // come, or spared
    std::uint64_t spared = 0;  // need not come: their files are here
    LayerProgress::State state = LayerProgress::State::kWaiting;
  };
  std::string stage() const;  // "resolve", "layers", "commit"
  std::vector<Layer> layers() const;

  void SetStage(std::string_view stage);
  /// What the manifest says: all of them wait.
  void SetLayers(const std::vector<Descriptor>& layers);
  void SetPresent(std::size_t index);
  /// From now on the layer is as far as that pull of it.
  void SetLayer(std::size_t index, std::shared_ptr<LayerProgress> progress);

  /// One line of the log: how far `image` is, and how fast it was since the line before.
  void Tell(std::string_view image);
  /// When it was told last; at first, when the pull began.
  SteadyTime told_at() const;

 private:
  mutable std::mutex mutex_;
  std::string stage_ = "resolve";
  std::vector<std::shared_ptr<LayerProgress>> layers_;
  SteadyTime told_at_ = std::chrono::steady_clock::now();
  std::uint64_t told_bytes_ = 0;
};

}  // namespace crisp::imaged
