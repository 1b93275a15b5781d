#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cri/v1/api.pb.h"
#include "libs/base/clock.h"
#include "libs/base/result.h"
#include "services/imaged/store/catalogue.h"
#include "services/imaged/store/disk_usage.h"
#include "services/imaged/store/layout.h"

namespace crisp::imaged {

/// The CRI's questions about images that are here. Any thread.
class Images {
 public:
  /// `later`: where the disk is measured.
  Images(
      Catalogue& catalogue, const Layout& layout, std::vector<std::string> pinned, Clock& clock,
      DiskUsage::Later later = [](const std::function<void()>& measure) { measure(); });

  /// A filter that names nothing we have, or nothing at all, gives an empty list.
  Status List(const runtime::v1::ListImagesRequest& request,
              runtime::v1::ListImagesResponse& response);
  /// An absent image is Ok with no image in the answer. The same answer whatever name is used.
  Status ImageStatus(const runtime::v1::ImageStatusRequest& request,
                     runtime::v1::ImageStatusResponse& response);
  /// Takes all names of the image that any of them, or its id, names. Absent is Ok. Its layers.
  Result<std::vector<digest::Digest>> Remove(const std::string& image);
  /// Has the disk measured, so that the first FsInfo has numbers.
  void MeasureDisk() { disk_.Refresh(); }
  /// What others have in nameless files of the store, to be counted by them.
  const std::shared_ptr<ByteCount>& spooled() const { return spooled_; }
  /// Images: layers, configurations, what pulls have on the disk by now and what waits to be
  /// deleted. Containers: the same entry, or with an image_root of its own the file system of their
  /// files.
  Status FsInfo(runtime::v1::ImageFsInfoResponse& response);

 private:
  void Fill(const ImageRecord& record, runtime::v1::Image& image) const;
  bool IsPinned(const ImageRecord& record) const;

  Catalogue& catalogue_;
  const Layout layout_;
  std::vector<std::string> pinned_;  // tags, digests or ids; a "*" stands for any characters
  Clock& clock_;
  DiskUsage disk_;
  const std::shared_ptr<ByteCount> spooled_ = std::make_shared<ByteCount>(0);
};

}  // namespace crisp::imaged
