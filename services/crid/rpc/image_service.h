#pragma once

#include <string>

#include "cri/v1/api.grpc.pb.h"
#include "libs/work/pool.h"
#include "services/crid/rpc/observer.h"
#include "services/crid/rpc/peers.h"

namespace crisp::crid {

namespace internal {
using Image = runtime::v1::ImageService;
using ImageBase = Image::WithRawCallbackMethod_ListImages<
    Image::WithRawCallbackMethod_ImageStatus<Image::WithRawCallbackMethod_PullImage<
        Image::WithRawCallbackMethod_RemoveImage<Image::WithRawCallbackMethod_ImageFsInfo<
            Image::WithRawCallbackMethod_StreamImages<Image::CallbackService>>>>>>;
}  // namespace internal

/// CRI v1 ImageService: passed on to imaged as it comes.
class ImageService final : public internal::ImageBase {
 public:
  ImageService(Peers& peers, work::Pool& pool) : peers_(peers), pool_(pool) {}

  using Context = grpc::CallbackServerContext;
  using Unary = grpc::ServerUnaryReactor;
  using Raw = grpc::ByteBuffer;

  Unary* ListImages(Context* context, const Raw* request, Raw* response) override;
  Unary* ImageStatus(Context* context, const Raw* request, Raw* response) override;
  /// No deadline but the caller's, who may cancel it.
  Unary* PullImage(Context* context, const Raw* request, Raw* response) override;
  Unary* RemoveImage(Context* context, const Raw* request, Raw* response) override;
  Unary* ImageFsInfo(Context* context, const Raw* request, Raw* response) override;

  /// ListImages in pieces.
  Observer::Stream* StreamImages(Context* context, const Raw* request) override;

 private:
  template <typename Request>
  Unary* PassOn(Context* context, const Raw* request, Raw* response);

  Peers& peers_;
  work::Pool& pool_;
};

}  // namespace crisp::crid
