#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "libs/base/cleanup.h"
#include "services/imaged/core/pull.h"

// What the two halves of the puller share.
namespace crisp::imaged {

/// One layer on its way into the store, for every pull that wants it. Stays in the table until its
/// row is written, so that nobody fetches it again in between.
struct Puller::LayerFlight {
  digest::Digest chain;
  std::shared_ptr<LayerProgress> progress = std::make_shared<LayerProgress>();
  std::shared_ptr<LayerFlight> below;  // nothing: the layer below is finished
  std::weak_ptr<Work> starter;         // from whose source it is fetched
  std::stop_source stop;
  ChainLock lock;    // the flight's thread sets it; kept until the row is written
  StageTimes times;  // the flight's thread's own

  // Guarded by the puller's mutex.
  int users = 0;
  bool unpacked = false;  // the expensive part is over, well or not
  std::optional<Result<LayerRecord>> outcome;
  bool fresh = true;  // false: found in the catalogue after all
};

/// A layer's directory until it is moved to its place; deleted when it never is.
struct Puller::StagedLayer {
  std::string path;
  Cleanup discard;
  Unpacker unpacker;
};

/// What one pull knows.
struct Puller::Work {
  ref::ImageRef image;
  std::string wanted;  // the manifest: a tag or a digest
  PullProgress* progress = nullptr;
  std::shared_ptr<work::Operation> operation;
  std::shared_ptr<ImageSource> source;
  Manifest manifest;
  ImageConfig config;
  NewImage commit;
  std::vector<std::shared_ptr<LayerFlight>> flights;
  bool alone = false;  // joins no flight of another pull
};

}  // namespace crisp::imaged
