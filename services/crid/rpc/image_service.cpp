#include "services/crid/rpc/image_service.h"

#include "libs/base/try.h"
#include "libs/rpc/forward.h"

namespace crisp::crid {

ImageService::Unary* ImageService::PassOn(Context* context, const Raw* request, Raw* response,
                                          const std::string& method) {
  return rpc::Forward(context, request, response, peers_.ImagedPeer(),
                      "/runtime.v1.ImageService/" + method);
}

ImageService::Unary* ImageService::ListImages(Context* context, const Raw* request, Raw* response) {
  return PassOn(context, request, response, "ListImages");
}

ImageService::Unary* ImageService::ImageStatus(Context* context, const Raw* request,
                                               Raw* response) {
  return PassOn(context, request, response, "ImageStatus");
}

ImageService::Unary* ImageService::PullImage(Context* context, const Raw* request, Raw* response) {
  return PassOn(context, request, response, "PullImage");
}

ImageService::Unary* ImageService::RemoveImage(Context* context, const Raw* request,
                                               Raw* response) {
  return PassOn(context, request, response, "RemoveImage");
}

ImageService::Unary* ImageService::ImageFsInfo(Context* context, const Raw* request,
                                               Raw* response) {
  return PassOn(context, request, response, "ImageFsInfo");
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
