#pragma once

#include <string>

#include "cri/v1/api.grpc.pb.h"
#include "services/crid/rpc/peers.h"
#include "services/crid/rpc/unoffered.h"

namespace crisp::crid {

namespace internal {
using Image = runtime::v1::ImageService;
using ImageBase = Image::WithRawCallbackMethod_ListImages<Image::WithRawCallbackMethod_ImageStatus<
    Image::WithRawCallbackMethod_PullImage<Image::WithRawCallbackMethod_RemoveImage<
        Image::WithRawCallbackMethod_ImageFsInfo<Image::CallbackService>>>>>;
}  // namespace internal

/// CRI v1 ImageService: passed on to imaged as it comes.
class ImageService final : public internal::ImageBase {
 public:
  explicit ImageService(Peers& peers) : peers_(peers) {}

  using Context = grpc::CallbackServerContext;
  using Unary = grpc::ServerUnaryReactor;
  using Raw = grpc::ByteBuffer;

  Unary* ListImages(Context* context, const Raw* request, Raw* response) override;
  Unary* ImageStatus(Context* context, const Raw* request, Raw* response) override;
  /// No deadline but the caller's, who may cancel it.
  Unary* PullImage(Context* context, const Raw* request, Raw* response) override;
  Unary* RemoveImage(Context* context, const Raw* request, Raw* response) override;
  Unary* ImageFsInfo(Context* context, const Raw* request, Raw* response) override;

  CRISP_NO_STREAM_YET(StreamImages, StreamImagesRequest, StreamImagesResponse, "use ListImages")

 private:
  Unary* PassOn(Context* context, const Raw* request, Raw* response, const std::string& method);

  Peers& peers_;
};

}  // namespace crisp::crid
