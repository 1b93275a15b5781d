#include "services/rund/core/checkpoints.h"

#include <fcntl.h>

#include <algorithm>
#include <set>
#include <utility>

#include "libs/archive/source.h"
#include "libs/archive/tar_writer.h"
#include "libs/base/cleanup.h"
#include "libs/base/text.h"
#include "libs/base/try.h"
#include "libs/json/json.h"
#include "libs/log/log.h"
#include "libs/os/files.h"
#include "libs/work/operations.h"
#include "services/rund/core/exec.h"
#include "services/rund/core/status.h"
#include "services/rund/runtime/checkpoint_archive.h"
#include "services/rund/runtime/conmon.h"
#include "services/rund/runtime/criu.h"
#include "services/rund/runtime/rootfs.h"
#include "services/rund/runtime/rootfs_diff.h"
#include "services/rund/runtime/volume_mounts.h"

namespace crisp::rund {
namespace {

using std::chrono::nanoseconds;
using std::chrono::seconds;

// What a request without a timeout has. Memory is written to disk, perhaps twice: gigabytes take
// minutes.
constexpr seconds kDefaultTime{600};
// Bounded, so that no sum overflows; nobody waits longer than ten years.
constexpr seconds kMostTime{315'360'000};

/// RFC 3339, as Go's JSON has times.
std::string TimeText(std::int64_t nanoseconds_since_epoch) {
  const std::time_t whole = nanoseconds_since_epoch / 1'000'000'000;
  std::tm parts{};
  gmtime_r(&whole, &parts);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z", parts.tm_year + 1900,
                     parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
                     nanoseconds_since_epoch % 1'000'000'000);
}

nlohmann::json MapOf(const google::protobuf::Map<std::string, std::string>& map) {
  nlohmann::json object = nlohmann::json::object();
  for (const auto& [name, value] : map) object[name] = value;
  return object;
}

/// What CRI-O and checkpointctl look for in the spec of a checkpoint: they know an archive by whose
/// it is.
void AddAnnotations(const ContainerRecord& container, const PodRecord& pod, nlohmann::json& spec) {
  nlohmann::json& annotations = spec["annotations"];
  if (!annotations.is_object()) annotations = nlohmann::json::object();
  const std::string prefix = "io.kubernetes.cri-o.";
  annotations["io.container.manager"] = "cri-o";
  annotations[prefix + "Metadata"] = json::Dump(
      {{"name", container.metadata().name()}, {"attempt", container.metadata().attempt()}});
  annotations[prefix + "Annotations"] = json::Dump(MapOf(container.config().annotations()));
  annotations[prefix + "Labels"] = json::Dump(MapOf(container.config().labels()));
  annotations[prefix + "Created"] = TimeText(container.created_at());
  for (int i = 0; i < pod.ips_size(); ++i) {
    annotations[fmt::format("{}IP.{}", prefix, i)] = pod.ips(i);
  }
}

nlohmann::json ConfigDump(const ContainerRecord& container, std::int64_t now) {
  std::string image = container.image_id();
  if (const auto colon = image.find(':'); colon != std::string::npos) image.erase(0, colon + 1);
  return {{"id", container.id()},
          {"name", container.metadata().name()},
          {"rootfsImage", container.config().image().image()},
          {"rootfsImageRef", image},
          {"rootfsImageName", container.image_name()},
          {"runtime", container.runtime()},
          {"createdTime", TimeText(container.created_at())},
          {"checkpointedTime", TimeText(now)},
          {"restoredTime", TimeText(0)},
          {"restored", false}};
}

nlohmann::json BindMounts(const nlohmann::json& spec) {
  nlohmann::json list = nlohmann::json::array();
  for (const nlohmann::json& mount : json::OptArray(spec, "mounts").value_or({})) {
    if (json::OptString(mount, "type").value_or("") != "bind") continue;
    const std::string source = json::OptString(mount, "source").value_or("");
    list.push_back({{"source", source},
                    {"destination", json::OptString(mount, "destination").value_or("")},
                    {"file_type", os::IsDirectory(source) ? "directory" : "file"},
                    {"permissions", 0}});
  }
  return list;
}

std::set<std::string> MountsOf(const nlohmann::json& spec) {
  std::set<std::string> mounted;
  for (const nlohmann::json& mount : json::OptArray(spec, "mounts").value_or({})) {
    mounted.insert(json::OptString(mount, "destination").value_or(""));
  }
  return mounted;
}

Status WriteJson(const std::string& path, const nlohmann::json& value) {
  return os::WriteFile(path, json::Dump(value), 0600);
}

}  // namespace

Status Checkpoints::RecordIntent(const CallContext& cc, const ContainerId& id,
                                 const std::string& location) {
  const auto changed = p_.state.ChangeContainer(id, [&](ContainerRecord& record) {
    record.mutable_checkpoint()->set_location(location);
    record.mutable_checkpoint()->set_until(
        (p_.clock.Wall() + cc.Remaining()).time_since_epoch().count());
    return Status::Ok();
  });
  return changed.ok() ? Status::Ok() : changed.status();
}

Status Checkpoints::Write(const CallContext& caller,
                          const runtime::v1::CheckpointContainerRequest& request) {
  const ContainerId id(request.container_id());
  if (request.timeout() < 0) return InvalidArgument("timeout: {} is negative", request.timeout());
  CRISP_TRY(CheckLocation(request.location()));
  CRISP_TRY(FindRunning(p_.state, id));
  const CallContext cc = caller.Within(
      request.timeout() == 0 ? kDefaultTime : std::min(seconds(request.timeout()), kMostTime));
  const SteadyTime begin = p_.clock.Now();
  const auto held = CRISP_TRY(p_.locks.Lock(cc, LockKey(id)));
  CRISP_TRY(UndoCheckpoint(p_, id));
  const ContainerRef container = CRISP_TRY(FindRunning(p_.state, id));
  const OciRuntime* runtime = CRISP_TRY(p_.runtimes.Kept(container->runtime()));
  CRISP_TRY(CheckCriu(cc, *runtime, p_.config.criu));
  CRISP_TRY(RecordIntent(cc, id, request.location()));
  Status done = DoWrite(cc, *container, *runtime, request.location());
  Status undone = UndoCheckpoint(p_, id);
  if (!undone.ok())
    log::Error("a checkpoint is not cleaned up", {{"container", id}, {"error", undone}});
  p_.metrics.ContainerCheckpointed(done, p_.clock.Now() - begin);
  if (!done.ok()) return std::move(done).While("checkpoint container {}", id);
  log::Info("container checkpointed", {{"container", id}, {"location", request.location()}});
  return Status::Ok();
}

Status Checkpoints::WriteDumps(const ContainerRecord& container, const nlohmann::json& spec) const {
  const CheckpointDir dir{p_.config.layout.CheckpointOf(ContainerId(container.id()))};
  CRISP_TRY(WriteJson(dir.ConfigDump(),
                      ConfigDump(container, p_.clock.Wall().time_since_epoch().count())));
  CRISP_TRY(WriteJson(dir.BindMounts(), BindMounts(spec)));
  nlohmann::json annotated = spec;
  if (const PodRef pod = p_.state.FindPod(PodId(container.pod_id()))) {
    AddAnnotations(container, *pod, annotated);
  }
  return WriteJson(dir.SpecDump(), annotated);
}

Status Checkpoints::DoWrite(const CallContext& cc, const ContainerRecord& container,
                            const OciRuntime& runtime, const std::string& location) {
  const ContainerId id(container.id());
  const CheckpointDir dir{p_.config.layout.CheckpointOf(id)};
  CRISP_TRY(os::MakeDirs(dir.path, 0700));
  CRISP_TRY(os::MakeDirs(dir.Images(), 0700));
  const std::string text = CRISP_TRY(os::ReadFile(p_.config.layout.SpecPath(id)));
  const nlohmann::json spec = CRISP_TRY(json::Parse(text));
  CRISP_TRY(WriteDumps(container, spec));
  // CRIU leaves it frozen, as it finds it: nothing changes in its files until they are written.
  CRISP_TRY(p_.cgroups.Freeze(container.cgroup_path()));
  CRISP_TRY(DumpProcesses(cc, runtime, id, dir.Images(), dir.path));
  CRISP_TRY(p_.cgroups.Freeze(container.cgroup_path()));
  std::vector<std::string> deleted;
  {
    const work::Stage stage(cc, "write what has changed in the root file system");
    const os::UniqueFd diff =
        CRISP_TRY(os::Open(dir.RootfsDiff(), O_WRONLY | O_CREAT | O_EXCL, 0600));
    crisp::imaged::v1::MountInstruction rootfs;
    if (container.rootfs_mounts_size() == 1) rootfs = container.rootfs_mounts(0);
    deleted = CRISP_TRY(WriteRootfsDiff(cc, rootfs, MountsOf(spec), [&](std::string_view bytes) {
      return os::WriteAll(diff.get(), bytes, dir.RootfsDiff());
    }));
  }
  CRISP_TRY(p_.cgroups.Thaw(container.cgroup_path()));
  if (!deleted.empty()) CRISP_TRY(WriteJson(dir.DeletedFiles(), deleted));
  const work::Stage stage(cc, "write the archive");
  return PackCheckpoint(cc, dir, PartialPath(location, id.str()), location);
}

Status UndoCheckpoint(const Parts& parts, const ContainerId& id) {
  const ContainerRef container = parts.state.FindContainer(id);
  if (!container || !container->has_checkpoint()) return Status::Ok();
  const CheckpointDir dir{parts.config.layout.CheckpointOf(id)};
  KillDump(dir.Images());
  // First of all: it runs, whatever else fails.
  CRISP_TRY(parts.cgroups.Thaw(container->cgroup_path()));
  CRISP_TRY(os::RemoveFile(PartialPath(container->checkpoint().location(), id.str())));
  CRISP_TRY(os::RemoveTree(dir.path));
  const auto changed = parts.state.ChangeContainer(id, [](ContainerRecord& record) {
    record.clear_checkpoint();
    return Status::Ok();
  });
  return changed.ok() ? Status::Ok() : changed.status();
}

void Checkpoints::TakeUp(const CallContext& cc, const ContainerId& id) {
  const auto held = p_.locks.Lock(cc, LockKey(id));
  const ContainerRef container = p_.state.FindContainer(id);
  if (!held.ok() || !container || !container->has_checkpoint()) return;
  const std::string images = CheckpointDir{p_.config.layout.CheckpointOf(id)}.Images();
  const nanoseconds left(container->checkpoint().until() -
                         p_.clock.Wall().time_since_epoch().count());
  // Killed half way, CRIU may leave a process in what it has put into it.
  log::IfError("an interrupted checkpoint",
               AwaitAllWith(cc.Within(std::clamp(left, nanoseconds(0), nanoseconds(kDefaultTime))),
                            {"--image-path", images}, "checkpoint"));
  log::IfError("undo an interrupted checkpoint", UndoCheckpoint(p_, id));
}

Result<v1::StageCheckpointResponse> Checkpoints::Stage(const CallContext& cc,
                                                       const v1::StageCheckpointRequest& request) {
  const ContainerId id(request.container_id());
  if (!p_.config.restore_checkpoints) {
    return FailedPrecondition(
        "this node restores no checkpoints (rund.restore_checkpoints): their processes get the "
        "identity and the capabilities that are written in them");
  }
  const auto held = CRISP_TRY(p_.locks.Lock(cc, LockKey(id)));
  const ContainerRef container = p_.state.FindContainer(id);
  if (!container) return NotFound("no container {}", id);
  const CheckpointDir dir{p_.config.layout.RestoreOf(id)};
  if (container->phase() == v1::RESERVED && !container->creating()) {
    const PodRef pod = p_.state.FindPod(PodId(container->pod_id()));
    CRISP_TRY(CheckTakesContainers(pod.get(), container->pod_id()));
    const OciRuntime* runtime = CRISP_TRY(RuntimeOf(p_, *pod));
    CRISP_TRY(CheckCriu(cc, *runtime, p_.config.criu));
    CRISP_TRY(UnmountVolumes(p_.config.layout.MountsOf(id)));
    CRISP_TRY(os::RemoveTree(dir.path));
    const work::Stage stage(cc, "take the checkpoint in");
    if (request.has_archive()) {
      CRISP_TRY(UnpackCheckpoint(cc, request.archive(), dir));
    } else {
      const std::string mounted = p_.config.layout.MountsOf(id) + "/checkpoint";
      CRISP_TRY(MountRootfs(request.image().mounts(), mounted, std::nullopt));
      const Cleanup unmount(
          [&mounted] { log::IfError("a checkpoint's image", UnmountRootfs(mounted)); });
      CRISP_TRY(CopyCheckpoint(cc, mounted, dir));
    }
  }
  const CheckpointFacts facts = CRISP_TRY(ReadFacts(dir));
  v1::StageCheckpointResponse response;
  response.set_image_id(facts.image_id);
  response.set_image_name(ToUtf8(facts.image_name, kMaxMessageBytes));
  return response;
}

Status ApplyCheckpoint(const CallContext& cc, const Layout& layout, const ContainerId& id,
                       nlohmann::json& spec) {
  const CheckpointDir dir{layout.RestoreOf(id)};
  const CheckpointFacts facts = CRISP_TRY(ReadFacts(dir));
  // Never taken from the checkpoint itself: it would choose directories of the node.
  const std::set<std::string> mounted = MountsOf(spec);
  std::vector<std::string> missing;
  std::copy_if(facts.bind_mounts.begin(), facts.bind_mounts.end(), std::back_inserter(missing),
               [&mounted](const std::string& where) { return !mounted.contains(where); });
  if (!missing.empty()) {
    return InvalidArgument("mounts: the checkpoint needs one at {}", fmt::join(missing, ", "));
  }
  // CRIU looks for each by the name that it had.
  nlohmann::json& masked = spec["linux"]["maskedPaths"];
  if (!masked.is_array()) masked = nlohmann::json::array();
  for (const std::string& path : facts.masked_paths) {
    if (std::find(masked.begin(), masked.end(), path) == masked.end()) masked.push_back(path);
  }
  // The runtime has put CRIU into the new cgroup, and what that makes is to stay there. Some
  // runtimes have no option for it.
  const std::string criu_config = layout.Bundle(id) + "/criu.conf";
  CRISP_TRY(os::WriteFile(criu_config, "manage-cgroups=ignore\n", 0600));
  nlohmann::json& annotations = spec["annotations"];
  if (!annotations.is_object()) annotations = nlohmann::json::object();
  annotations["org.criu.config"] = criu_config;
  const std::vector<std::string> deleted = CRISP_TRY(ReadDeleted(dir));
  const work::Stage stage(cc, "bring the checkpoint's files into the root file system");
  // Not written when there was nothing to write.
  const auto diff = os::Open(dir.RootfsDiff(), O_RDONLY);
  if (diff.code() == Code::kNotFound) {
    const std::string empty = archive::TarEnd();
    archive::StringSource nothing(empty);
    return ApplyRootfsDiff(cc, layout.Rootfs(id), nothing, deleted);
  }
  if (!diff.ok()) return diff.status();
  archive::FileSource source(diff->get(), dir.RootfsDiff());
  return ApplyRootfsDiff(cc, layout.Rootfs(id), source, deleted).While("rootfs-diff.tar");
}

}  // namespace crisp::rund
