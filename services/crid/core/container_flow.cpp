#include "services/crid/core/container_flow.h"

#include <utility>

#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/work/operations.h"
#include "services/crid/core/validate.h"

namespace crisp::crid {
namespace {

// Beside the mounts, which have the first numbers.
constexpr std::uint32_t kCheckpointVolume = 1'000'000'000;

template <typename T>
Status StatusOf(Result<T> result) {
  return std::move(result).status();
}

/// The images among the mounts of `create`; each gets the id of what it was resolved to as its
/// image_ref, which is what the container's status tells. kUnknown with the word at the beginning
/// that the kubelet looks for; kUnavailable while imaged is away.
Status PrepareVolumes(const CallContext& cc, Imaged& imaged, const std::string& id,
                      rund::v1::CreateContainerRequest& create) {
  for (int i = 0; i < create.config().mounts_size(); ++i) {
    if (create.config().mounts(i).image().image().empty()) continue;
    runtime::v1::ImageSpec& image = *create.mutable_config()->mutable_mounts(i)->mutable_image();
    imaged::v1::PrepareVolumeRequest prepare;
    prepare.set_owner_id(id);
    prepare.set_index(static_cast<std::uint32_t>(i));
    prepare.set_image(image.image());
    prepare.set_user_specified_image(image.user_specified_image());
    auto prepared = imaged.PrepareVolume(cc, prepare);
    if (prepared.code() == Code::kUnavailable) return std::move(prepared).status();
    if (!prepared.ok()) {
      return Unknown("ImageVolumeMountFailed: mounts[{}].image: {}", i,
                     prepared.status().message());
    }
    image.set_image_ref(prepared->image_id());
    rund::v1::ImageVolume& volume = *create.add_image_volumes();
    volume.set_mount_index(i);
    *volume.mutable_image() = *std::move(prepared);
  }
  return Status::Ok();
}

/// The image that the checkpoint in `stage` was made from; sets what the container needs to know of
/// that in `create`.
Status PrepareRestore(const CallContext& cc, Imaged& imaged, Rund& rund, const std::string& id,
                      rund::v1::StageCheckpointRequest stage,
                      rund::v1::CreateContainerRequest& create) {
  stage.set_container_id(id);
  const auto staged = CRISP_TRY(rund.StageCheckpoint(cc, stage));
  imaged::v1::PrepareRequest prepare;
  prepare.set_owner_id(id);
  prepare.set_image(staged.image_id().empty() ? staged.image_name() : staged.image_id());
  auto prepared = imaged.Prepare(cc, prepare);
  if (prepared.code() == Code::kNotFound) {
    return NotFound("the checkpoint was made from the image {} ({}), which is not on this node",
                    staged.image_name(), prepare.image());
  }
  *create.mutable_image() = CRISP_TRY(std::move(prepared));
  if (!create.image().checkpoint_of().empty()) {
    return InvalidArgument("the checkpoint says that it was made from a checkpoint: {}",
                           prepare.image());
  }
  create.set_restore(true);
  return Status::Ok();
}

/// What the container is made from: an image; or, to be restored, an image that holds a checkpoint,
/// or the absolute path of an archive of one.
Status PrepareImage(const CallContext& cc, Imaged& imaged, Rund& rund, const std::string& id,
                    const runtime::v1::ImageSpec& image, rund::v1::CreateContainerRequest& create) {
  rund::v1::StageCheckpointRequest stage;
  if (image.image().starts_with('/')) {
    stage.set_archive(image.image());
    return PrepareRestore(cc, imaged, rund, id, std::move(stage), create);
  }
  imaged::v1::PrepareRequest prepare;
  prepare.set_owner_id(id);
  prepare.set_image(image.image());
  prepare.set_user_specified_image(image.user_specified_image());
  auto prepared = CRISP_TRY(imaged.Prepare(cc, prepare));
  if (prepared.checkpoint_of().empty()) {
    *create.mutable_image() = std::move(prepared);
    return Status::Ok();
  }
  imaged::v1::PrepareVolumeRequest volume;
  volume.set_owner_id(id);
  volume.set_index(kCheckpointVolume);
  volume.set_image(image.image());
  volume.set_user_specified_image(image.user_specified_image());
  *stage.mutable_image() = CRISP_TRY(imaged.PrepareVolume(cc, volume));
  return PrepareRestore(cc, imaged, rund, id, std::move(stage), create);
}

}  // namespace

ContainerFlow::ContainerFlow(View& view, Backends& backends, work::Pool& pool, IdSource& ids,
                             Metrics& metrics, const FlowOptions& options)
    : view_(view),
      backends_(backends),
      ids_(ids),
      metrics_(metrics),
      options_(options),
      began_(Clock::System().Wall()),
      creates_(pool, options.create_timeout, work::Lane::kCreateFlight),
      starts_(pool, options.end_timeout, work::Lane::kCreateFlight),
      ends_(pool, options.end_timeout, work::Lane::kEndFlight) {}

Result<std::string> ContainerFlow::Create(const CallContext& cc,
                                          const runtime::v1::CreateContainerRequest& request) {
  CRISP_TRY(Validate(request));
  const RecordPtr pod = CRISP_TRY(view_.Resolve(cc, Kind::kPod, request.pod_sandbox_id()));
  const auto resolved = CRISP_TRY(WithFullTarget(cc, request));
  return creates_.Do(cc, ContainerKey(pod->id, request.config().metadata()),
                     [this, pod, resolved](const CallContext& own) {
                       FlowTimer timer(metrics_, "create_container");
                       return timer.Done(CreateNow(own, *pod, resolved));
                     });
}

Result<runtime::v1::CreateContainerRequest> ContainerFlow::WithFullTarget(
    const CallContext& cc, const runtime::v1::CreateContainerRequest& request) {
  runtime::v1::CreateContainerRequest resolved = request;
  const auto& asked = request.config().linux().security_context().namespace_options();
  if (asked.pid() != runtime::v1::TARGET || asked.target_id().empty()) return resolved;
  const auto target = view_.Resolve(cc, Kind::kContainer, asked.target_id());
  constexpr std::string_view kField = "linux.security_context.namespace_options.target_id";
  if (target.code() == Code::kNotFound) {
    return InvalidArgument("{}: {}", kField, target.status().message());
  }
  if (!target.ok()) return target.status().While("{}", kField);
  resolved.mutable_config()
      ->mutable_linux()
      ->mutable_security_context()
      ->mutable_namespace_options()
      ->set_target_id((*target)->id);
  return resolved;
}

Result<std::string> ContainerFlow::CreateNow(const CallContext& cc, const Record& pod,
                                             const runtime::v1::CreateContainerRequest& request) {
  const auto& metadata = request.config().metadata();
  const std::shared_ptr<Rund> rund = backends_.RundOf(pod.instance);
  if (rund == nullptr) return Unavailable("rund/{} is away", pod.instance);

  rund::v1::ReserveContainerRequest reserve;
  reserve.set_container_id(ids_.Next());
  reserve.set_pod_id(pod.id);
  *reserve.mutable_metadata() = metadata;
  const auto reserved = CRISP_TRY(rund->ReserveContainer(cc, reserve));
  const std::string& id = reserved.container_id();
  work::AddSubject(cc, id);
  if (reserved.phase() == rund::v1::REMOVING) {
    return Aborted("container {} (attempt {}) is being removed: try again", metadata.name(),
                   metadata.attempt());
  }
  if (reserved.phase() == rund::v1::LIVE || reserved.phase() == rund::v1::STOPPED) {
    view_.WaitSeq(cc, rund->instance(), reserved.seq());
    return id;
  }
  auto created = Build(cc, *rund, id, request);
  if (!created.ok()) {
    log::Warn("container failed", {{"container", id},
                                   {"pod", pod.id},
                                   {"name", metadata.name()},
                                   {"error", created.status()}});
    Undo(cc, *rund, id);
    return std::move(created).status();
  }
  view_.WaitSeq(cc, rund->instance(), created->seq());
  log::Info("container created", {{"container", id}, {"pod", pod.id}, {"name", metadata.name()}});
  return id;
}

Result<rund::v1::CreateContainerResponse> ContainerFlow::Build(
    const CallContext& cc, Rund& rund, const std::string& id,
    const runtime::v1::CreateContainerRequest& request) {
  rund::v1::CreateContainerRequest create;
  CRISP_TRY(PrepareImage(cc, backends_.imaged(), rund, id, request.config().image(), create));
  create.set_container_id(id);
  *create.mutable_config() = request.config();
  CRISP_TRY(PrepareVolumes(cc, backends_.imaged(), id, create));
  if (request.has_sandbox_config()) *create.mutable_sandbox_config() = request.sandbox_config();
  return rund.CreateContainer(cc, create);
}

void ContainerFlow::Undo(const CallContext& cc, Rund& rund, const std::string& id) {
  const CallContext undo = cc.Detached(options_.end_timeout);
  rund::v1::RemoveContainerRequest remove;
  remove.set_container_id(id);
  Status removed = StatusOf(rund.RemoveContainer(undo, remove));
  log::IfError("undo the container", removed);
  if (!removed.ok()) {
    // It may still use its rootfs: the snapshot stays until the reconcile finds it without owner.
    metrics_.LeftBehind();
    return;
  }
  ReleaseSnapshot(undo, backends_.imaged(), metrics_, id);
}

Status ContainerFlow::Start(const CallContext& cc, const std::string& id) {
  const RecordPtr container = CRISP_TRY(view_.Resolve(cc, Kind::kContainer, id));
  return StatusOf(
      starts_.Do(cc, container->id, [this, container](const CallContext& own) -> Result<Nothing> {
        FlowTimer timer(metrics_, "start_container");
        Status started = timer.Done(StartNow(own, *container));
        if (!started.ok()) return started;
        return Nothing{};
      }));
}

Status ContainerFlow::StartNow(const CallContext& cc, const Record& container) {
  const std::shared_ptr<Rund> rund = backends_.RundOf(container.instance);
  if (rund == nullptr) return Unavailable("rund/{} is away", container.instance);
  rund::v1::StartContainerRequest start;
  start.set_container_id(container.id);
  start.set_asked_at(Clock::System().Wall().time_since_epoch().count());
  start.set_caller_began(began_.time_since_epoch().count());
  const auto started = CRISP_TRY(rund->StartContainer(cc, start));
  view_.WaitSeq(cc, rund->instance(), started.seq());
  log::Info("container started", {{"container", container.id}});
  return Status::Ok();
}

Status ContainerFlow::Remove(const CallContext& cc, const std::string& id) {
  auto found = view_.Resolve(cc, Kind::kContainer, id, /*hidden=*/id.size() == 64);
  if (found.code() == Code::kNotFound) return Status::Ok();
  const RecordPtr container = CRISP_TRY(std::move(found));
  return StatusOf(
      ends_.Do(cc, container->id, [this, container](const CallContext& own) -> Result<Nothing> {
        FlowTimer timer(metrics_, "remove_container");
        Status removed = timer.Done(RemoveNow(own, *container));
        if (!removed.ok()) return removed;
        return Nothing{};
      }));
}

Status ContainerFlow::RemoveNow(const CallContext& cc, const Record& container) {
  const std::shared_ptr<Rund> rund = backends_.RundOf(container.instance);
  if (rund == nullptr) return Unavailable("rund/{} is away", container.instance);
  rund::v1::RemoveContainerRequest remove;
  remove.set_container_id(container.id);
  const auto removed = CRISP_TRY(rund->RemoveContainer(cc, remove));
  ReleaseSnapshot(cc, backends_.imaged(), metrics_, container.id);
  view_.WaitSeq(cc, rund->instance(), removed.seq());
  log::Info("container removed", {{"container", container.id}});
  return Status::Ok();
}

}  // namespace crisp::crid
