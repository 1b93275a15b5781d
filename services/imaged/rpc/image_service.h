#pragma once

#include <functional>

#include "cri/v1/api.grpc.pb.h"
#include "libs/work/pool.h"
#include "services/imaged/core/images.h"
#include "services/imaged/core/pull.h"

namespace crisp::imaged {

/// The CRI's ImageService, word for word.
class ImageService final : public runtime::v1::ImageService::CallbackService {
 public:
  /// `on_removed` is called when `layers` may have become garbage, before the caller hears of it.
  using OnRemoved =
      std::function<void(const CallContext&, const std::vector<digest::Digest>& layers)>;
  ImageService(work::Pool& pool, Images& images, Puller& puller, OnRemoved on_removed)
      : pool_(pool), images_(images), puller_(puller), on_removed_(std::move(on_removed)) {}

  grpc::ServerUnaryReactor* ListImages(grpc::CallbackServerContext* context,
                                       const runtime::v1::ListImagesRequest* request,
                                       runtime::v1::ListImagesResponse* response) override;
  grpc::ServerUnaryReactor* ImageStatus(grpc::CallbackServerContext* context,
                                        const runtime::v1::ImageStatusRequest* request,
                                        runtime::v1::ImageStatusResponse* response) override;
  grpc::ServerUnaryReactor* PullImage(grpc::CallbackServerContext* context,
                                      const runtime::v1::PullImageRequest* request,
                                      runtime::v1::PullImageResponse* response) override;
  grpc::ServerUnaryReactor* RemoveImage(grpc::CallbackServerContext* context,
                                        const runtime::v1::RemoveImageRequest* request,
                                        runtime::v1::RemoveImageResponse* response) override;
  grpc::ServerUnaryReactor* ImageFsInfo(grpc::CallbackServerContext* context,
                                        const runtime::v1::ImageFsInfoRequest* request,
                                        runtime::v1::ImageFsInfoResponse* response) override;
  grpc::ServerWriteReactor<runtime::v1::StreamImagesResponse>* StreamImages(
      grpc::CallbackServerContext* context,
      const runtime::v1::StreamImagesRequest* request) override;

 private:
  work::Pool& pool_;
  Images& images_;
  Puller& puller_;
  const OnRemoved on_removed_;
};

}  // namespace crisp::imaged
