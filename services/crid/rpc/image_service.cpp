#include "services/crid/rpc/image_service.h"

#include "libs/base/try.h"
#include "libs/rpc/about.h"
#include "libs/rpc/forward.h"

namespace crisp::crid {

template <typename Request>
ImageService::Unary* ImageService::PassOn(Context* context, const Raw* request, Raw* response) {
  rpc::ForwardOptions options;
  options.operations = &pool_.operations();
  // Only to say what it is about: what does not parse is imaged's to refuse.
  if (Request message; rpc::ParseBytes(*request, message).ok()) {
    options.subjects = rpc::AboutCall(message).subjects;
  }
  return rpc::Forward(context, request, response, peers_.ImagedPeer(),
                      "/runtime.v1.ImageService/" + rpc::CallName<Request>(), std::move(options));
}

ImageService::Unary* ImageService::ListImages(Context* context, const Raw* request, Raw* response) {
  return PassOn<runtime::v1::ListImagesRequest>(context, request, response);
}

ImageService::Unary* ImageService::ImageStatus(Context* context, const Raw* request,
                                               Raw* response) {
  return PassOn<runtime::v1::ImageStatusRequest>(context, request, response);
}

ImageService::Unary* ImageService::PullImage(Context* context, const Raw* request, Raw* response) {
  return PassOn<runtime::v1::PullImageRequest>(context, request, response);
}

ImageService::Unary* ImageService::RemoveImage(Context* context, const Raw* request,
                                               Raw* response) {
  return PassOn<runtime::v1::RemoveImageRequest>(context, request, response);
}

ImageService::Unary* ImageService::ImageFsInfo(Context* context, const Raw* request,
                                               Raw* response) {
  return PassOn<runtime::v1::ImageFsInfoRequest>(context, request, response);
}

Observer::Stream* ImageService::StreamImages(Context* context, const Raw* request) {
  return StreamInPieces(
      pool_, context, [this, asked = *request](const CallContext& cc) -> Result<std::string> {
        // The two requests have the same fields.
        return rpc::BytesToString(
            CRISP_TRY(Peers::CallRaw(cc, peers_.ImagedPeer(), "/runtime.v1.ImageService/ListImages",
                                     asked, {.idempotent = true})));
      });
}

}  // namespace crisp::crid
