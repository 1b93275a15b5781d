#include "services/imaged/rpc/image_service.h"

#include "libs/base/try.h"
#include "libs/rpc/status.h"
#include "libs/rpc/unary.h"

namespace crisp::imaged {

using work::Lane;

grpc::ServerUnaryReactor* ImageService::ListImages(grpc::CallbackServerContext* context,
                                                   const runtime::v1::ListImagesRequest* request,
                                                   runtime::v1::ListImagesResponse* response) {
  return rpc::Unary(
      pool_, Lane::kMutate, context, request, response,
      [this](const CallContext&, const auto& req, auto& resp) { return images_.List(req, resp); });
}

grpc::ServerUnaryReactor* ImageService::ImageStatus(grpc::CallbackServerContext* context,
                                                    const runtime::v1::ImageStatusRequest* request,
                                                    runtime::v1::ImageStatusResponse* response) {
  return rpc::Unary(pool_, Lane::kMutate, context, request, response,
                    [this](const CallContext&, const auto& req, auto& resp) {
                      return images_.ImageStatus(req, resp);
                    });
}

grpc::ServerUnaryReactor* ImageService::PullImage(grpc::CallbackServerContext* context,
                                                  const runtime::v1::PullImageRequest* request,
                                                  runtime::v1::PullImageResponse* response) {
  return rpc::Unary(
      pool_, Lane::kWait, context, request, response,
      [this](const CallContext& cc, const auto& req, auto& resp) -> Status {
        const Credentials credentials = CRISP_TRY(Puller::Credentials(req));
        resp.set_image_ref(CRISP_TRY(puller_.Pull(cc, req.image().image(), credentials)));
        return Status::Ok();
      });
}

grpc::ServerUnaryReactor* ImageService::RemoveImage(grpc::CallbackServerContext* context,
                                                    const runtime::v1::RemoveImageRequest* request,
                                                    runtime::v1::RemoveImageResponse* response) {
  return rpc::Unary(pool_, Lane::kWait, context, request, response,
                    [this](const CallContext& cc, const auto& req, auto&) -> Status {
                      on_removed_(cc, CRISP_TRY(images_.Remove(req.image().image())));
                      return Status::Ok();
                    });
}

grpc::ServerUnaryReactor* ImageService::ImageFsInfo(grpc::CallbackServerContext* context,
                                                    const runtime::v1::ImageFsInfoRequest* request,
                                                    runtime::v1::ImageFsInfoResponse* response) {
  return rpc::Unary(
      pool_, Lane::kMutate, context, request, response,
      [this](const CallContext&, const auto&, auto& resp) { return images_.FsInfo(resp); });
}

grpc::ServerWriteReactor<runtime::v1::StreamImagesResponse>* ImageService::StreamImages(
    grpc::CallbackServerContext*, const runtime::v1::StreamImagesRequest*) {
  class Refuse final : public grpc::ServerWriteReactor<runtime::v1::StreamImagesResponse> {
   public:
    Refuse() {
      Finish(rpc::ToGrpc(
          Unimplemented("StreamImages is not implemented: ListImages answers the same")));
    }
    void OnDone() override { delete this; }
  };
  return new Refuse();  // deletes itself
}

}  // namespace crisp::imaged
