#include "services/rund/core/containers.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "libs/base/cleanup.h"
#include "libs/base/text.h"
#include "libs/base/try.h"
#include "libs/json/json.h"
#include "libs/log/log.h"
#include "libs/os/files.h"
#include "libs/work/operations.h"
#include "services/rund/core/checkpoints.h"
#include "services/rund/core/exec.h"
#include "services/rund/core/log_limits.h"
#include "services/rund/core/log_path.h"
#include "services/rund/core/pod_files.h"
#include "services/rund/core/status.h"
#include "services/rund/runtime/conmon.h"
#include "services/rund/runtime/exec_sync.h"
#include "services/rund/runtime/rootfs.h"
#include "services/rund/runtime/volume_mounts.h"

namespace crisp::rund {
namespace {

namespace cri = runtime::v1;
using std::chrono::nanoseconds;
using std::chrono::seconds;

constexpr int kStartErrorCode = 128;
constexpr std::string_view kStartError = "StartError";  // the reason

bool HasOwnPidNamespace(const nlohmann::json& spec) {
  const nlohmann::json* namespaces = json::Find(spec, "linux.namespaces");
  if (namespaces == nullptr || !namespaces->is_array()) return false;
  return std::any_of(namespaces->begin(), namespaces->end(), [](const nlohmann::json& ns) {
    return ns.value("type", "") == "pid" && ns.value("path", "").empty();
  });
}

/// Says which container it is about, but where the kubelet looks for a word at the beginning.
template <typename T>
Result<T> Named(Result<T> failed, const std::string& name) {
  for (const char* word : {"RROUnsupported", "ImageVolumeMountFailed"}) {
    if (failed.status().message().starts_with(word)) return failed;
  }
  return std::move(failed).While("create container {}", name);
}

// For the runtime, which is not our child.
std::string PathOf(const os::UniqueFd& fd) {
  return fd.valid() ? fmt::format("/proc/{}/fd/{}", getpid(), fd.get()) : "";
}

Status CheckMetadata(const v1::ReserveContainerRequest& request) {
  if (!IsFullId(request.container_id())) {
    return InvalidArgument("container_id: '{}' is not 64 hexadecimal characters",
                           request.container_id());
  }
  if (request.metadata().name().empty()) return InvalidArgument("config.metadata.name is empty");
  return Status::Ok();
}

}  // namespace

/// What is known of a container before anything is done for it.
struct Containers::Plan {
  PodRef pod;
  const OciRuntime* runtime = nullptr;
  CgroupDriver::Place place;
  std::string log_path;
  LogLimits log_limits;
  os::UniqueFd target_pids;  // the PID namespace of another container; open until it is joined
};

Result<v1::ReserveContainerResponse> Containers::Reserve(
    const v1::ReserveContainerRequest& request) {
  CRISP_TRY(CheckMetadata(request));
  ContainerRecord fresh;
  fresh.set_id(request.container_id());
  fresh.set_pod_id(request.pod_id());
  *fresh.mutable_metadata() = request.metadata();
  fresh.set_phase(v1::RESERVED);
  fresh.set_touched_at(p_.clock.Wall().time_since_epoch().count());
  const auto reserved = CRISP_TRY(p_.state.ReserveContainer(fresh));
  v1::ReserveContainerResponse response;
  response.set_container_id(reserved.container->id());
  response.set_phase(reserved.container->phase());
  response.set_seq(reserved.seq);
  return response;
}

namespace {

Status CheckRestore(const v1::CreateContainerRequest& request, const PodFiles& pod) {
  if (!request.restore()) return Status::Ok();
  if (pod.userns) {
    return FailedPrecondition(
        "a checkpoint cannot be restored into a pod with a user namespace of its own");
  }
  const auto& namespaces = request.config().linux().security_context().namespace_options();
  if (namespaces.pid() == cri::TARGET) {
    return InvalidArgument(
        "namespace_options.pid: a checkpoint cannot be restored into another container's PIDs");
  }
  return Status::Ok();
}

}  // namespace

Result<Containers::Plan> Containers::MakePlan(const v1::CreateContainerRequest& request,
                                              const PodRef& pod) {
  Plan plan;
  plan.pod = pod;
  plan.runtime = CRISP_TRY(RuntimeOf(p_, *pod));
  const cri::ContainerConfig& config = request.config();
  plan.log_path = CRISP_TRY(LogPathOf(pod->config().log_directory(), config.log_path()));
  plan.log_limits = CRISP_TRY(LogLimitsOf(p_.config.log_limits, pod->config(), config));
  plan.place =
      CgroupDriver::ContainerPlace(pod->cgroup_parent(), ContainerId(request.container_id()));
  const auto& namespaces = config.linux().security_context().namespace_options();
  if (namespaces.pid() == cri::TARGET) {
    const ContainerRef target = p_.state.FindContainer(ContainerId(namespaces.target_id()));
    if (!target || target->pod_id() != pod->id()) {
      return InvalidArgument("namespace_options.target_id: no container {} in this pod",
                             namespaces.target_id());
    }
    if (target->state() != cri::CONTAINER_RUNNING || target->phase() != v1::LIVE) {
      return FailedPrecondition("namespace_options.target_id: container {} is not running",
                                namespaces.target_id());
    }
    const os::ProcessId init = ProcessOf(target->init());
    plan.target_pids =
        os::UniqueFd(open(fmt::format("/proc/{}/ns/pid", init.pid).c_str(), O_RDONLY | O_CLOEXEC));
    // Looked at afterwards: then what was opened is of that process, not of one with its number.
    if (!plan.target_pids.valid() || !os::Alive(init)) {
      return FailedPrecondition("namespace_options.target_id: container {} has ended",
                                namespaces.target_id());
    }
  }
  return plan;
}

Status Containers::RecordIntent(const v1::CreateContainerRequest& request, const Plan& plan) {
  const auto changed =
      p_.state.ChangeContainer(ContainerId(request.container_id()), [&](ContainerRecord& record) {
        const PodRef pod = p_.state.FindPod(PodId(record.pod_id()));
        CRISP_TRY(CheckTakesContainers(pod.get(), record.pod_id()));
        record.set_creating(true);
        *record.mutable_config() = request.config();
        record.set_image_id(request.image().image_id());
        record.set_image_ref(request.image().image_ref());
        record.set_image_name(request.image().image_name());
        *record.mutable_rootfs_mounts() = request.image().mounts();
        record.set_runtime(plan.runtime->info().name);
        record.set_cgroup_path(plan.place.cgroup);
        record.set_log_path(plan.log_path);
        v1::LogLimitsRecord* limits = record.mutable_log_limits();
        limits->set_rate(plan.log_limits.rate.count());
        limits->set_burst(plan.log_limits.burst.count());
        limits->set_block(plan.log_limits.block);
        limits->set_max_size(plan.log_limits.max_size.count());
        limits->set_guarded(plan.log_limits.guarded);
        return Status::Ok();
      });
  return changed.ok() ? Status::Ok() : changed.status();
}

Result<std::uint64_t> Containers::Create(const CallContext& cc,
                                         const v1::CreateContainerRequest& request) {
  const ContainerId id(request.container_id());
  const SteadyTime begin = p_.clock.Now();
  auto held = CRISP_TRY(p_.locks.Lock(cc, LockKey(id)));
  const ContainerRef container = p_.state.FindContainer(id);
  if (!container) return NotFound("no container {}", id);
  if (container->phase() == v1::LIVE) return p_.state.seq();
  if (container->phase() != v1::RESERVED) {
    return FailedPrecondition("container {} is being removed", id);
  }
  const PodRef pod = p_.state.FindPod(PodId(container->pod_id()));
  CRISP_TRY(CheckTakesContainers(pod.get(), container->pod_id()));
  // Our own deadline: the caller may go, what it asked for is finished and found by its retry.
  const CallContext own = cc.Detached(p_.config.runtime_timeout);
  // What an earlier attempt left, when its undo failed as well.
  CRISP_TRY(lifecycle_.UndoCreate(own, id));
  const Plan plan = CRISP_TRY(MakePlan(request, pod));
  CRISP_TRY(RecordIntent(request, plan));
  auto created = DoCreate(own, request, plan);
  if (!created.ok()) {
    log::IfError("undo a create", lifecycle_.UndoCreate(own, id));
    created = Named(std::move(created), request.config().metadata().name());
  }
  p_.metrics.ContainerCreated(created.ok() ? Status::Ok() : created.status(),
                              p_.clock.Now() - begin);
  if (created.ok()) lifecycle_.CheckExit(id);
  return created;
}

void Containers::WarmUpCgroups(const CallContext& cc) {
  if (p_.cgroups.mode() == os::CgroupMode::kV2) return;
  // Not now is well, too.
  static_cast<void>(p_.pool.Submit(work::Lane::kBulk, cc, [this] { p_.cgroups.WarmUp(); }).ok());
}

Result<std::uint64_t> Containers::DoCreate(const CallContext& cc,
                                           const v1::CreateContainerRequest& request,
                                           const Plan& plan) {
  const ContainerId id(request.container_id());
  const Layout& layout = p_.config.layout;
  WarmUpCgroups(cc);
  CRISP_TRY(os::MakeDirs(layout.Bundle(id), 0711));
  const PodFiles pod_files = PodFilesOf(layout, *plan.pod);
  CRISP_TRY(CheckRestore(request, pod_files));
  const SelinuxLabels labels = CRISP_TRY(ContainerLabels(
      p_.spec_defaults.selinux, request.config(), plan.pod->config(), pod_files.selinux_level));
  {
    const work::Stage stage(cc, "mount the root file system");
    CRISP_TRY(MountRootfs(WithLabel(request.image().mounts(), labels.mount), layout.Rootfs(id),
                          IdmappedFor(pod_files.userns, layout.LowersDir(id))));
  }
  SpecInputs inputs{.id = id,
                    .pod = PodId(plan.pod->id()),
                    .config = request.config(),
                    .sandbox = plan.pod->config(),
                    .image = request.image(),
                    .pod_files = pod_files,
                    .rootfs = layout.Rootfs(id),
                    .cgroup_path = plan.place.spec,
                    .runtime = plan.runtime->info(),
                    .volumes_dir = layout.VolumesOf(id),
                    .target_pid_ns_path = PathOf(plan.target_pids),
                    .mounts_dir = layout.MountsOf(id),
                    .labels = labels};
  BuiltSpec built = CRISP_TRY([&] {
    const work::Stage stage(cc, "look at volumes and devices");
    return BuildSpec(cc, inputs, p_.spec_defaults);
  }());
  for (const HostMount& mount : built.host_mounts) {
    CRISP_TRY(MountImageVolume(mount, request.image_volumes(), labels.mount, pod_files.userns));
  }
  for (const std::string& note : built.notes) {
    log::Warn("container gets less than it asked for", {{"container", id}, {"what", note}});
  }
  if (request.restore()) CRISP_TRY(ApplyCheckpoint(cc, layout, id, built.spec));
  CRISP_TRY(os::WriteFile(layout.SpecPath(id), json::Dump(built.spec), 0600));

  const cri::ContainerConfig& config = request.config();
  // One that is restored runs from its first process on: it gets that when it is started.
  Monitored monitored;
  if (!request.restore()) {
    monitored = CRISP_TRY(Monitor(cc, *plan.pod, id, *plan.runtime, /*restore=*/false));
  }
  const std::string cgroup = CgroupDriver::CgroupOfInit(plan.place.cgroup, monitored.init.pid);
  const auto oom_kills = lifecycle_.oom_kills().Before(*plan.pod);
  const auto seq = p_.state.ChangeContainer(id, [&](ContainerRecord& record) {
    // The pod may have been stopped while we were at it.
    const PodRef pod = p_.state.FindPod(PodId(record.pod_id()));
    CRISP_TRY(CheckTakesContainers(pod.get(), record.pod_id()));
    record.set_creating(false);
    record.set_phase(v1::LIVE);
    record.set_state(cri::CONTAINER_CREATED);
    record.set_created_at(p_.state.NextTimestamp());
    record.set_stop_signal(built.stop_signal);
    if (config.linux().has_resources()) *record.mutable_resources() = config.linux().resources();
    *record.mutable_user() = built.user;
    record.set_own_pid_namespace(HasOwnPidNamespace(built.spec));
    record.set_cgroup_path(cgroup);
    if (oom_kills) record.set_pod_oom_kills(*oom_kills);
    record.set_restores(request.restore());
    *record.mutable_init() = RecordOf(monitored.init);
    *record.mutable_monitor() = RecordOf(monitored.monitor);
    return Status::Ok();
  });
  if (!seq.ok()) return seq;
  if (!request.restore()) p_.supervisor->WatchMonitor(id, monitored.monitor);
  log::Info("container created",
            {{"container", id}, {"pod", plan.pod->id()}, {"pid", monitored.init.pid}});
  return seq;
}

namespace {

/// Whoever was to answer for the start ended meanwhile, and began again at `began`.
bool WasCutShort(const ContainerRecord& container, std::int64_t began) {
  constexpr std::chrono::nanoseconds kAnswerPatience = std::chrono::minutes(1);
  const std::int64_t started = container.started_at();
  return started < began && began - started <= kAnswerPatience.count();
}

bool HasStarted(const ContainerRecord& container) {
  return container.started_at() != 0 && container.reason() != kStartError;
}

}  // namespace

bool StartAsked::MayHaveStarted(const ContainerRecord& container) const {
  if (!HasStarted(container)) return false;
  return (at != 0 && container.started_at() >= at) || WasCutShort(container, caller_began);
}

bool Containers::MayHaveStarted(const ContainerRecord& container, const StartAsked& asked) {
  if (asked.MayHaveStarted(container)) return true;
  if (!HasStarted(container) || !WasCutShort(container, began_)) return false;
  return retried_.lock()->insert(container.id()).second;
}

Result<std::uint64_t> Containers::Start(const CallContext& cc, const ContainerId& id,
                                        const StartAsked& asked) {
  const SteadyTime begin = p_.clock.Now();
  auto held = CRISP_TRY(p_.locks.Lock(cc, LockKey(id)));
  auto started = DoStart(cc.Detached(p_.config.runtime_timeout), id, asked);
  p_.metrics.ContainerStarted(started.ok() ? Status::Ok() : started.status(),
                              p_.clock.Now() - begin);
  return started;
}

Result<std::uint64_t> Containers::DoStart(const CallContext& cc, const ContainerId& id,
                                          const StartAsked& asked) {
  CRISP_TRY(lifecycle_.ResolveStart(cc, id));
  const ContainerRef container = p_.state.FindContainer(id);
  if (!container || !IsListed(*container)) return NotFound("no container {}", id);
  if (container->phase() == v1::LIVE && container->start_unanswered()) {
    retried_.lock()->insert(id.str());
    return p_.state.ChangeContainer(id, [](ContainerRecord& record) {
      record.set_start_unanswered(false);
      return Status::Ok();
    });
  }
  if (container->phase() == v1::LIVE && MayHaveStarted(*container, asked)) return p_.state.seq();
  if (container->phase() != v1::LIVE || container->state() != cri::CONTAINER_CREATED) {
    return FailedPrecondition("container {} cannot be started: it is {}", id,
                              container->phase() != v1::LIVE
                                  ? "being removed"
                                  : cri::ContainerState_Name(container->state()));
  }
  const OciRuntime* runtime = CRISP_TRY(p_.runtimes.Kept(container->runtime()));
  CRISP_TRY(p_.state.ChangeContainer(id, [&](ContainerRecord& record) {
    if (record.state() != cri::CONTAINER_CREATED) {
      return FailedPrecondition("container {} ended before it was started", id);
    }
    record.set_starting_at(p_.state.NextTimestamp());
    return Status::Ok();
  }));
  if (container->restores()) return DoRestore(cc, id, *runtime);
  Status outcome = runtime->Start(cc, id);
  if (!outcome.ok()) return FailStart(cc, id, outcome);
  const auto seq = p_.state.ChangeContainer(id, [&](ContainerRecord& record) {
    record.set_starting_at(0);
    record.set_started_at(p_.state.NextTimestamp());
    record.set_state(cri::CONTAINER_RUNNING);
    return Status::Ok();
  });
  if (seq.ok()) log::Info("container started", {{"container", id}});
  // An exit in the meantime was held back, so that it follows on the start.
  lifecycle_.CheckExit(id);
  return seq;
}

Result<std::uint64_t> Containers::FailStart(const CallContext& cc, const ContainerId& id,
                                            const Status& failure) {
  log::Warn("container could not be started", {{"container", id}, {"error", failure}});
  // The runtime may have let it go all the same: what is shown as ended runs no more.
  if (const ContainerRef container = p_.state.FindContainer(id)) lifecycle_.KillInit(*container);
  const auto changed = p_.state.ChangeContainer(id, [&](ContainerRecord& record) {
    record.set_starting_at(0);
    record.set_restores(false);
    record.set_state(cri::CONTAINER_EXITED);
    record.set_started_at(p_.state.NextTimestamp());
    record.set_finished_at(p_.state.NextTimestamp());
    record.set_exit_code(kStartErrorCode);
    record.set_reason(std::string(kStartError));
    record.set_message(ToUtf8(failure.message(), kMaxMessageBytes));
    return Status::Ok();
  });
  if (!changed.ok()) {
    // Resolved later, by whoever comes next: until then an exit has nowhere to go.
    log::IfError("store a failed start", changed.status());
    return failure;
  }
  p_.supervisor->Forget(id);
  log::IfError("clean up after a failed start", lifecycle_.Clean(cc, id));
  return failure;
}

void Containers::Stop(const ContainerId& id, seconds grace,
                      std::function<void(Result<std::uint64_t>)> done) {
  lifecycle_.Stop(id, grace, [this, done = std::move(done)](const Status& status) {
    done(status.ok() ? Result<std::uint64_t>(p_.state.seq()) : status);
  });
}

Result<std::uint64_t> Containers::RemoveIf(
    const CallContext& cc, const ContainerId& id,
    const std::function<bool(const ContainerRecord&)>& still) {
  // What may be wanted again is not to be ended.
  auto held = CRISP_TRY(still ? p_.locks.Lock(cc, LockKey(id)) : lifecycle_.LockEnded(cc, id));
  const ContainerRef container = p_.state.FindContainer(id);
  if (!container) return p_.state.seq();
  if (still && !still(*container)) return Aborted("it is wanted again");
  const CallContext own = cc.Detached(p_.config.runtime_timeout);
  CRISP_TRY(UndoCheckpoint(p_, id));
  CRISP_TRY(lifecycle_.UndoCreate(own, id));
  const auto marked = p_.state.ChangeContainer(id, [&still](ContainerRecord& record) {
    // Another reservation may have come in between; creating it takes the lock that we hold.
    if (still && !still(record)) return Aborted("it is wanted again");
    record.set_phase(v1::REMOVING);
    return Status::Ok();
  });
  if (!marked.ok()) return marked;
  CRISP_TRY(lifecycle_.Clean(own, id));
  const Layout& layout = p_.config.layout;
  p_.supervisor->Forget(id);
  CRISP_TRY(os::RemoveTree(layout.Bundle(id)));
  CRISP_TRY(os::RemoveFile(layout.ExitPath(id)));
  CRISP_TRY(os::RemoveTree(layout.VolumesOf(id)));
  const auto seq = p_.state.EraseContainer(id);
  lifecycle_.logs().Forget(id);
  if (seq.ok()) log::Info("container removed", {{"container", id}});
  return seq;
}

Result<cri::ContainerStatusResponse> Containers::GetStatus(const ContainerId& id, bool verbose) {
  const ContainerRef container = p_.state.FindContainer(id);
  if (!container || !IsListed(*container)) return NotFound("no container {}", id);
  cri::ContainerStatusResponse response;
  *response.mutable_status() = StatusOf(*container);
  if (!verbose) return response;
  nlohmann::json info;
  info["sandboxID"] = container->pod_id();
  info["pid"] = container->init().pid();
  info["monitorPid"] = container->monitor().pid();
  info["runtime"] = container->runtime();
  info["cgroupPath"] = container->cgroup_path();
  info["imageName"] = container->image_name();
  info["removing"] = container->phase() == v1::REMOVING;
  if (const auto spec = os::ReadFile(p_.config.layout.SpecPath(id)); spec.ok()) {
    if (auto parsed = json::Parse(*spec); parsed.ok()) info["runtimeSpec"] = *std::move(parsed);
  }
  (*response.mutable_info())["info"] = json::Dump(info);
  return response;
}

Status Containers::ReopenLog(const CallContext& cc, const ContainerId& id) {
  const ContainerRef container = p_.state.FindContainer(id);
  if (!container || !IsListed(*container)) return NotFound("no container {}", id);
  // Nothing of it waits for whoever else has to do with the container: a stop may take its time.
  if (!Runs(container.get())) {
    return FailedPrecondition("container {} is not running", id);
  }
  return lifecycle_.logs()
      .Reopen(cc.Within(seconds(10)), *container)
      .While("reopen the log of container {}", id);
}

Result<cri::ExecSyncResponse> Containers::ExecSync(const CallContext& cc,
                                                   const cri::ExecSyncRequest& request,
                                                   SteadyTime asked_at) {
  const ContainerId id(request.container_id());
  if (request.timeout() < 0) return InvalidArgument("timeout: {} is negative", request.timeout());
  const int running = ++(*execs_.lock())[id.str()];
  const Cleanup leave([this, &id] {
    auto execs = execs_.lock();
    if (--(*execs)[id.str()] == 0) execs->erase(id.str());
  });
  if (running > kMaxExecs) {
    return ResourceExhausted("{} commands run in container {} already", kMaxExecs, id);
  }
  ExecSyncArgs args;
  static_cast<ExecArgs&>(args) =
      CRISP_TRY(PlanExec(p_, id, request.cmd(), /*tty=*/false, p_.config.layout.Bundle(id)));
  // Bounded, so that no sum overflows; nobody waits longer than ten years.
  args.timeout = std::min(seconds(request.timeout()), seconds(315'360'000));
  args.asked_at = asked_at;
  WarmUpCgroups(cc);
  const ExecSyncResult result = CRISP_TRY(rund::ExecSync(cc, args));
  cri::ExecSyncResponse response;
  response.set_exit_code(result.exit_code);
  response.set_stdout(result.out);
  response.set_stderr(result.err);
  return response;
}

}  // namespace crisp::rund
