#include "services/crid/rpc/image_service.h"

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

}  // namespace crisp::crid
