#include "services/imaged/rpc/snapshots_service.h"

#include "libs/base/try.h"
#include "libs/rpc/unary.h"

namespace crisp::imaged {
namespace {

void Fill(const PreparedSnapshot& snapshot, v1::PrepareResponse& response) {
  response.set_checkpoint_of(snapshot.checkpoint_of);
  if (!snapshot.checkpoint_of.empty()) return;
  response.set_image_id(snapshot.image_id);
  response.set_image_ref(snapshot.image_ref);
  response.set_image_name(snapshot.image_name);
  response.set_config_json(snapshot.config);
  v1::MountInstruction& mount = *response.add_mounts();
  if (!snapshot.copied_root.empty()) {
    mount.set_kind("bind");
    mount.set_source(snapshot.copied_root);
    if (snapshot.is_branch) mount.set_upper_dir(snapshot.copied_root);
    return;
  }
  mount.set_kind("overlay");
  mount.set_source("overlay");
  for (const std::string& option : snapshot.mount.options) mount.add_options(option);
  for (const std::string& lower : snapshot.mount.lower_dirs) mount.add_lower_dirs(lower);
  mount.set_upper_dir(snapshot.mount.upper_dir);
  mount.set_work_dir(snapshot.mount.work_dir);
}

void Fill(const PreparedVolume& volume, v1::PrepareVolumeResponse& response) {
  response.set_image_id(volume.image_id);
  v1::MountInstruction& mount = *response.add_mounts();
  for (const std::string& option : volume.options) mount.add_options(option);
  if (volume.layers.size() == 1) {
    mount.set_kind("bind");
    mount.set_source(volume.layers.front());
    return;
  }
  mount.set_kind("overlay");
  mount.set_source("overlay");
  for (const std::string& layer : volume.layers) mount.add_lower_dirs(layer);
}

}  // namespace

grpc::ServerUnaryReactor* SnapshotsService::Prepare(grpc::CallbackServerContext* context,
                                                    const v1::PrepareRequest* request,
                                                    v1::PrepareResponse* response) {
  return rpc::Unary(pool_, work::Lane::kMutate, context, request, response,
                    [this](const CallContext& cc, const auto& req, auto& resp) -> Status {
                      Fill(CRISP_TRY(snapshots_.Prepare(cc, OwnerId(req.owner_id()), req.image(),
                                                        req.user_specified_image())),
                           resp);
                      return Status::Ok();
                    });
}

grpc::ServerUnaryReactor* SnapshotsService::PrepareVolume(grpc::CallbackServerContext* context,
                                                          const v1::PrepareVolumeRequest* request,
                                                          v1::PrepareVolumeResponse* response) {
  return rpc::Unary(
      pool_, work::Lane::kMutate, context, request, response,
      [this](const CallContext& cc, const auto& req, auto& resp) -> Status {
        Fill(CRISP_TRY(snapshots_.PrepareVolume(cc, OwnerId(req.owner_id()), req.index(),
                                                req.image(), req.user_specified_image())),
             resp);
        return Status::Ok();
      });
}

grpc::ServerUnaryReactor* SnapshotsService::Release(grpc::CallbackServerContext* context,
                                                    const v1::ReleaseRequest* request,
                                                    v1::ReleaseResponse* response) {
  return rpc::Unary(pool_, work::Lane::kMutate, context, request, response,
                    [this](const CallContext& cc, const auto& req, auto&) {
                      Status status = snapshots_.Release(cc, OwnerId(req.owner_id()));
                      on_released_();
                      return status;
                    });
}

grpc::ServerUnaryReactor* SnapshotsService::Reconcile(grpc::CallbackServerContext* context,
                                                      const v1::ReconcileRequest* request,
                                                      v1::ReconcileResponse* response) {
  return rpc::Unary(pool_, work::Lane::kMutate, context, request, response,
                    [this](const CallContext& cc, const auto& req, auto& resp) -> Status {
                      const std::vector<OwnerId> live(req.live_owner_ids().begin(),
                                                      req.live_owner_ids().end());
                      Snapshots::Reconciled done = snapshots_.Reconcile(cc, live, orphan_grace_);
                      for (const OwnerId& owner : done.freed) resp.add_freed_owner_ids(owner.str());
                      if (!done.freed.empty()) on_released_();
                      return std::move(done.failed);
                    });
}

}  // namespace crisp::imaged
