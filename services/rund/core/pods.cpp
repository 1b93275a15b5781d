#include "services/rund/core/pods.h"

#include <poll.h>
#include <unistd.h>

#include <charconv>
#include <csignal>
#include <set>
#include <utility>

#include "libs/base/try.h"
#include "libs/json/json.h"
#include "libs/log/log.h"
#include "libs/os/files.h"
#include "libs/os/pidfd.h"
#include "libs/os/pipe.h"
#include "libs/process/command.h"
#include "libs/work/operations.h"
#include "libs/work/side_by_side.h"
#include "services/rund/core/pod_files.h"
#include "services/rund/core/resources.h"
#include "services/rund/core/status.h"
#include "services/rund/spec/opt_ins.h"

namespace crisp::rund {
namespace {

namespace cri = runtime::v1;
using std::chrono::seconds;

// A prepared pod waits for its network, for as long as CNI plugins may take.
constexpr seconds kNetworkPatience{300};

std::vector<ContainerId> IdsOf(const std::vector<ContainerRef>& containers) {
  std::vector<ContainerId> ids;
  ids.reserve(containers.size());
  for (const ContainerRef& container : containers) ids.emplace_back(container->id());
  return ids;
}

v1::RuntimeRecord RecordOf(const OciRuntime& runtime) {
  v1::RuntimeRecord record;
  record.set_path(runtime.info().path);
  record.set_root(runtime.root());
  for (const std::string& arg : runtime.args()) record.add_args(arg);
  for (const std::string& variable : runtime.monitor_env()) record.add_monitor_env(variable);
  return record;
}

// Of the form that tools know from sandboxes which are containers themselves: where they look for
// a pod's namespaces.
nlohmann::json SandboxSpecOf(const Layout& layout, const PodRecord& pod) {
  const PodFiles files = PodFilesOf(layout, pod);
  nlohmann::json namespaces = nlohmann::json::array();
  const auto add = [&namespaces](const char* type, const std::string& path) {
    if (!path.empty()) namespaces.push_back({{"type", type}, {"path", path}});
  };
  add("user", files.userns ? files.userns->path : "");
  add("network", files.netns_path);
  add("ipc", files.ipcns_path);
  add("uts", files.utsns_path);
  add("pid", files.pid_ns_path);
  nlohmann::json annotations = nlohmann::json::object();
  for (const auto& [name, value] : pod.config().annotations()) annotations[name] = value;
  return {{"hostname", pod.hostname()},
          {"annotations", std::move(annotations)},
          {"linux", {{"cgroupsPath", pod.cgroup_parent()}, {"namespaces", std::move(namespaces)}}}};
}

// Of a process in the pod's namespaces, for tools that enter them by it: its own where it has one,
// else that of the container which has run for the longest time. 0: nothing runs.
pid_t PidIn(const PodRecord& pod, const std::vector<ContainerRef>& containers) {
  if (pod.has_pause()) return pod.pause().pid();
  const ContainerRecord* first = nullptr;
  for (const ContainerRef& container : containers) {
    if (container->state() != cri::CONTAINER_RUNNING || !Runs(container.get())) continue;
    if (first == nullptr || container->started_at() < first->started_at()) first = container.get();
  }
  return first == nullptr ? 0 : static_cast<pid_t>(first->init().pid());
}

}  // namespace

Result<v1::ReservePodResponse> Pods::Reserve(const v1::ReservePodRequest& request) {
  if (!IsFullId(request.pod_id())) {
    return InvalidArgument("pod_id: '{}' is not 64 hexadecimal characters", request.pod_id());
  }
  const cri::PodSandboxMetadata& metadata = request.metadata();
  if (metadata.name().empty()) return InvalidArgument("config.metadata.name is empty");
  if (metadata.namespace_().empty()) return InvalidArgument("config.metadata.namespace is empty");
  if (metadata.uid().empty()) return InvalidArgument("config.metadata.uid is empty");
  PodRecord fresh;
  fresh.set_id(request.pod_id());
  *fresh.mutable_metadata() = metadata;
  fresh.set_runtime_handler(request.runtime_handler());
  fresh.set_phase(v1::RESERVED);
  fresh.set_touched_at(p_.clock.Wall().time_since_epoch().count());
  const auto runtime = p_.runtimes.Find(request.runtime_handler());
  if (runtime.ok()) {
    fresh.set_runtime((*runtime)->info().name);
    *fresh.mutable_program() = RecordOf(**runtime);
  }
  // A pod that is there already has its own; only a new one needs what the settings have now.
  const auto reserved = CRISP_TRY(p_.state.ReservePod(fresh, runtime.status()));
  v1::ReservePodResponse response;
  response.set_pod_id(reserved.pod->id());
  response.set_phase(reserved.pod->phase());
  response.set_seq(reserved.seq);
  return response;
}

Result<std::string> Pods::SelinuxLevelOf(const PodId& id,
                                         const cri::PodSandboxConfig& config) const {
  if (!p_.spec_defaults.selinux.on()) return std::string();
  const auto& options = config.linux().security_context().selinux_options();
  if (!options.level().empty()) return options.level();
  std::set<std::string> taken;
  for (const PodRef& other : p_.state.Pods()) taken.insert(other->selinux_level());
  const std::string instance =
      p_.config.layout.state_dir.substr(p_.config.layout.state_dir.rfind('/') + 1);
  unsigned number = 0;
  std::from_chars(instance.data(), instance.data() + instance.size(), number);
  return PickLevel(taken, id.str(), number);
}

Result<v1::PreparePodResponse> Pods::Prepare(const CallContext& cc,
                                             const v1::PreparePodRequest& request) {
  const PodId id(request.pod_id());
  auto held = CRISP_TRY(p_.locks.Lock(cc, LockKey(id)));
  const PodRef pod = p_.state.FindPod(id);
  if (!pod) return NotFound("pod {} is not reserved", id);
  if (pod->stopping()) return FailedPrecondition("pod {} was stopped", id);
  v1::PreparePodResponse response;
  if (HasUserns(request.config())) response.set_userns_path(p_.config.layout.UserPath(id));
  if (pod->phase() == v1::PREPARED || pod->phase() == v1::LIVE) return response;
  if (pod->phase() != v1::RESERVED) return FailedPrecondition("pod {} was stopped", id);
  const cri::PodSandboxConfig& config = request.config();
  CRISP_TRY(CheckPodConfig(config));
  CRISP_TRY(CheckOverhead(config.linux().overhead()));
  const CallContext own = cc.Detached(p_.config.runtime_timeout);
  if (HasUserns(config)) CRISP_TRY(CheckUserns(*pod));
  const std::string hostname = CRISP_TRY(HostnameOf(id, config));
  const std::string parent =
      CRISP_TRY(p_.cgroup_driver.PodCgroup(id, config.linux().cgroup_parent()));
  // Nobody else removes what nobody else made.
  const bool ours = !CRISP_TRY(p_.cgroups.Exists(parent));
  const Bytes shm_size = CRISP_TRY(ShmSize(*pod, config));
  // What an earlier attempt left.
  CRISP_TRY(RemovePodFiles(p_.config.layout, id));
  // Says what is wrong with them before anything is made.
  CRISP_TRY(LabelsOf(p_.spec_defaults.selinux, config.linux().security_context().selinux_options(),
                     "", false));
  CRISP_TRY(p_.state.ChangePod(id, [&](PodRecord& record) {
    // Here, where no other pod takes the same one meanwhile.
    auto level = SelinuxLevelOf(id, config);
    if (!level.ok()) return level.status();
    *record.mutable_config() = config;
    AddDefaultSysctls(p_.config.sysctls, *record.mutable_config());
    record.set_hostname(hostname);
    record.set_selinux_level(*std::move(level));
    // An earlier attempt may have made it.
    record.set_cgroup_is_ours(ours ||
                              (record.cgroup_is_ours() && record.cgroup_parent() == parent));
    record.set_cgroup_parent(parent);
    record.set_touched_at(p_.clock.Wall().time_since_epoch().count());
    return Status::Ok();
  }));
  const PodRef intent = p_.state.FindPod(id);
  const work::Stage stage(cc, "make the pod's cgroup, namespaces and files");
  Status made =
      NoteCgroup(p_.config.layout, id, {.cgroup = parent, .ours = intent->cgroup_is_ours()});
  if (made.ok()) {
    made = p_.cgroup_driver.MakePod(own, id, parent).While("make the cgroup of the pod");
  }
  if (made.ok() && intent->cgroup_is_ours()) {
    made = LimitPod(own, p_, parent, config.linux()).While("limit the pod");
  }
  if (made.ok()) made = MakePodFiles(own, p_.config.layout, p_.config.pause, *intent, shm_size);
  if (made.ok()) made = LabelPodFiles(p_.config.layout, *intent, p_.spec_defaults.selinux);
  if (!made.ok()) {
    log::IfError("undo the preparation of a pod", TakeDown(own, *intent));
    p_.metrics.PodStarted(made);
    return made;
  }
  const auto prepared = p_.state.ChangePod(id, [](PodRecord& record) {
    record.set_phase(v1::PREPARED);
    return Status::Ok();
  });
  if (!prepared.ok()) return prepared.status();
  return response;
}

Result<Bytes> Pods::ShmSize(const PodRecord& pod, const cri::PodSandboxConfig& config) const {
  const OciRuntime* runtime = CRISP_TRY(RuntimeOf(p_, pod));
  std::vector<std::string> notes;
  const Bytes size = CRISP_TRY(ShmSizeOf(config, runtime->info(), notes));
  for (const std::string& note : notes) {
    log::Warn("pod gets less than it asked for", {{"pod", pod.id()}, {"what", note}});
  }
  return size;
}

Status Pods::CheckUserns(const PodRecord& pod) const {
  if (!p_.userns_support.ok()) {
    return InvalidArgument(
        "linux.security_context.namespace_options.userns_options: this node has no user "
        "namespaces for pods: {}",
        p_.userns_support.message());
  }
  const OciRuntime* runtime = CRISP_TRY(RuntimeOf(p_, pod));
  if (runtime->info().user_namespaces) return Status::Ok();
  return InvalidArgument(
      "linux.security_context.namespace_options.userns_options: runtime handler '{}' has no user "
      "namespaces",
      runtime->info().name);
}

Result<std::uint64_t> Pods::Start(const CallContext& cc, const v1::StartPodRequest& request) {
  const PodId id(request.pod_id());
  auto held = CRISP_TRY(p_.locks.Lock(cc, LockKey(id)));
  auto started = StartLocked(cc.Detached(p_.config.runtime_timeout), request);
  p_.metrics.PodStarted(started.ok() ? Status::Ok() : started.status());
  return started;
}

Result<std::uint64_t> Pods::StartLocked(const CallContext& cc, const v1::StartPodRequest& request) {
  const PodId id(request.pod_id());
  const PodRef pod = p_.state.FindPod(id);
  if (!pod) return NotFound("pod {} is not reserved", id);
  if (pod->stopping()) return FailedPrecondition("pod {} was stopped meanwhile", id);
  if (pod->phase() == v1::LIVE) return p_.state.seq();
  if (pod->phase() != v1::PREPARED) return FailedPrecondition("pod {} is not prepared", id);
  PodRecord next = *pod;
  next.set_netns_path(request.netns_path());
  *next.mutable_ips() = request.ips();
  next.set_cni_result(request.cni_result());
  CRISP_TRY(AddHostsEntry(p_.config.layout, next));
  if (SharesPids(next.config())) {
    const os::ProcessId pause = CRISP_TRY(StartPause(cc, next));
    CRISP_TRY(PinPids(id, pause));
    *next.mutable_pause() = RecordOf(pause);
  }
  const auto seq = p_.state.ChangePod(id, [&](PodRecord& record) {
    record = next;
    record.set_phase(v1::LIVE);
    record.set_created_at(p_.state.NextTimestamp());
    return Status::Ok();
  });
  if (!seq.ok()) return seq;
  if (next.has_pause()) p_.supervisor->WatchPause(id, ProcessOf(next.pause()));
  log::Info(
      "pod is ready",
      {{"pod", id}, {"namespace", next.metadata().namespace_()}, {"name", next.metadata().name()}});
  return seq;
}

Result<os::ProcessId> Pods::StartPause(const CallContext& cc, const PodRecord& pod) {
  const Layout& layout = p_.config.layout;
  const PodFiles files = PodFilesOf(layout, pod);
  // All of it is in a cgroup of its own, so that a record that was never written leaves nothing
  // that removing the pod would not find.
  CRISP_TRY(p_.cgroup_driver.RemovePause(cc, pod.cgroup_parent(), PodId(pod.id())));
  process::Command command;
  command.program = p_.config.pause;
  // The user namespace first: it owns the others.
  const std::string userns = files.userns ? files.userns->path : "";
  for (const std::string& path : {userns, files.ipcns_path, files.utsns_path, files.netns_path}) {
    if (!path.empty()) command.args.push_back(path);
  }
  // It ends with this end of the pipe, until it has been told to stay.
  os::Pipe told = CRISP_TRY(os::MakePipe());
  command.in_fd = told.read.get();
  const process::Output out =
      CRISP_TRY(process::Run(cc.Within(seconds(10)), command).While("start crisp-pause"));
  told.read.reset();
  if (out.exit_code != 0) return Internal("crisp-pause: {}", RuntimeWords(out.err));
  pid_t pid = 0;
  const auto parsed = std::from_chars(out.out.data(), out.out.data() + out.out.size(), pid);
  if (parsed.ec != std::errc() || pid <= 0) return Internal("crisp-pause printed no pid");
  const os::ProcessId process = CRISP_TRY(os::ProcessId::Of(pid).While("crisp-pause"));
  CRISP_TRY(p_.cgroup_driver.AddPause(cc, pod.cgroup_parent(), PodId(pod.id()), pid));
  if (write(told.write.get(), "1", 1) != 1) {
    return Status::FromErrno(errno, "crisp-pause ended at once");
  }
  return process;
}

// By its pid alone the namespace could become that of a process which gets the same one later.
Status Pods::PinPids(const PodId& id, const os::ProcessId& pause) {
  const std::string path = p_.config.layout.PidPath(id);
  CRISP_TRY(os::UnpinNamespace(path));  // of an earlier attempt
  auto pins = CRISP_TRY(os::NamespacePin::OfProcess(pause.pid, {{os::NamespaceKind::kPid, path}})
                            .While("pin the PID namespace of the pod"));
  if (!os::Alive(pause)) return Aborted("crisp-pause ended at once");
  for (os::NamespacePin& pin : pins) pin.Commit();  // the pod's record is there already
  return Status::Ok();
}

void Pods::OnPauseGone(const PodId& id) {
  const auto changed = p_.state.ChangePod(id, [](PodRecord& record) {
    if (record.phase() != v1::LIVE || record.stopping()) return Aborted("it is being stopped");
    record.set_stopping(true);
    record.set_phase(v1::STOPPED);
    return Status::Ok();
  });
  if (changed.ok()) log::Warn("pod's pause process ended; the pod is not ready", {{"pod", id}});
}

Status Pods::EndContainers(const CallContext& cc, const PodId& id) {
  const std::vector<ContainerId> containers = IdsOf(p_.state.ContainersOf(id));
  const Status ended = lifecycle_.End(cc, containers);
  const Status cleaned =
      ForEach(cc, containers, [this, &cc](const ContainerId& container) -> Status {
        // Also waits for a create or a start that is under way.
        auto held = CRISP_TRY(p_.locks.Lock(cc, LockKey(container)));
        CRISP_TRY(lifecycle_.ResolveStart(cc, container));
        CRISP_TRY(lifecycle_.UndoCreate(cc, container));
        return lifecycle_.Clean(cc, container);
      });
  return ended.ok() ? cleaned : ended;
}

Status Pods::ForEach(const CallContext& cc, const std::vector<ContainerId>& containers,
                     const std::function<Status(const ContainerId&)>& task) {
  std::vector<std::function<Status()>> tasks;
  tasks.reserve(containers.size());
  for (const ContainerId& container : containers) {
    tasks.emplace_back([&task, &container] { return task(container); });
  }
  return work::SideBySide(p_.pool, work::Lane::kClean, cc, std::move(tasks));
}

Status Pods::TakeDown(const CallContext& cc, const PodRecord& pod) {
  const work::Stage stage(cc, "take the pod's cgroup, namespaces and files down");
  const PodId id(pod.id());
  p_.supervisor->Forget(id);
  if (pod.has_pause()) {
    if (const auto pause = os::PidFd::Open(ProcessOf(pod.pause())); pause.ok()) {
      log::IfError("end crisp-pause", pause->Signal(SIGKILL));
      pollfd poller{.fd = pause->fd(), .events = POLLIN};
      poll(&poller, 1, 2000);
    }
  }
  if (!pod.cgroup_parent().empty()) {
    if (SharesPids(pod.config())) {
      CRISP_TRY(p_.cgroup_driver.RemovePause(cc, pod.cgroup_parent(), id));
    }
    if (pod.cgroup_is_ours()) CRISP_TRY(p_.cgroup_driver.RemovePod(cc, pod.cgroup_parent()));
  }
  return RemovePodFiles(p_.config.layout, id);
}

Result<std::uint64_t> Pods::Stop(const CallContext& cc, const PodId& id) {
  {
    auto held = CRISP_TRY(p_.locks.Lock(cc, LockKey(id)));
    const PodRef pod = p_.state.FindPod(id);
    if (!pod || pod->torn_down()) return p_.state.seq();
    if (!pod->stopping()) {
      CRISP_TRY(p_.state.ChangePod(id, [](PodRecord& record) {
        record.set_stopping(true);
        return Status::Ok();
      }));
    }
  }
  // Nothing new begins in it from here on: its containers' ends need no lock.
  const CallContext own = cc.Detached(p_.config.runtime_timeout);
  CRISP_TRY(EndContainers(own, id));
  auto held = CRISP_TRY(p_.locks.Lock(own, LockKey(id)));
  const PodRef pod = p_.state.FindPod(id);
  // Somebody else was faster.
  if (!pod || pod->torn_down()) return p_.state.seq();
  Status down = TakeDown(own, *pod);
  if (!down.ok()) {
    p_.metrics.CleanupFailed();
    return std::move(down).While("stop pod {}", id);
  }
  const auto seq = p_.state.ChangePod(id, [](PodRecord& record) {
    if (record.phase() != v1::REMOVING) record.set_phase(v1::STOPPED);
    record.set_torn_down(true);
    record.clear_pause();
    return Status::Ok();
  });
  if (seq.ok()) log::Info("pod stopped", {{"pod", id}});
  return seq;
}

bool IsHalfMade(const PodRecord& pod) {
  return pod.phase() == v1::RESERVED || pod.phase() == v1::PREPARED;
}

Result<v1::RemovePodResponse> Pods::RemoveIf(const CallContext& cc, const PodId& id,
                                             const std::function<bool(const PodRecord&)>& still) {
  v1::RemovePodResponse response;
  response.set_seq(p_.state.seq());
  {
    auto held = CRISP_TRY(p_.locks.Lock(cc, LockKey(id)));
    if (!p_.state.FindPod(id)) return response;
    CRISP_TRY(p_.state.ChangePod(id, [&still](PodRecord& record) {
      if (still && !still(record)) return Aborted("it is wanted again");
      record.set_phase(v1::REMOVING);
      record.set_stopping(true);
      return Status::Ok();
    }));
  }
  const CallContext own = cc.Detached(p_.config.runtime_timeout);
  const std::vector<ContainerId> containers = IdsOf(p_.state.ContainersOf(id));
  CRISP_TRY(lifecycle_.End(own, containers));
  CRISP_TRY(ForEach(own, containers, [this, &own](const ContainerId& container) {
    return containers_.Remove(own, container).status();
  }));
  for (const ContainerId& container : containers) response.add_container_ids(container.str());
  auto held = CRISP_TRY(p_.locks.Lock(own, LockKey(id)));
  const PodRef pod = p_.state.FindPod(id);
  if (!pod) {
    // Somebody else was faster: whoever waits for this number sees that.
    response.set_seq(p_.state.seq());
    return response;
  }
  if (!pod->torn_down()) {
    Status down = TakeDown(own, *pod);
    if (!down.ok()) {
      p_.metrics.CleanupFailed();
      return std::move(down).While("remove pod {}", id);
    }
  }
  response.set_seq(CRISP_TRY(p_.state.ErasePod(id)));
  log::Info("pod removed", {{"pod", id}});
  return response;
}

Result<cri::PodSandboxStatusResponse> Pods::GetStatus(const PodId& id, bool verbose) const {
  const auto [pod, containers] = p_.state.FindAllOf(id);
  if (!pod || !IsListed(*pod)) return NotFound("no pod sandbox {}", id);
  cri::PodSandboxStatusResponse response;
  *response.mutable_status() = StatusOf(*pod);
  for (const ContainerRef& container : containers) {
    if (IsListed(*container)) *response.add_containers_statuses() = StatusOf(*container);
  }
  response.set_timestamp(p_.clock.Wall().time_since_epoch().count());
  if (!verbose) return response;
  nlohmann::json info;
  info["hostname"] = pod->hostname();
  info["cgroupParent"] = pod->cgroup_parent();
  info["netNamespace"] = pod->netns_path();
  info["pid"] = PidIn(*pod, containers);
  info["runtimeHandler"] = pod->runtime_handler();
  info["phase"] = v1::Phase_Name(pod->phase());
  info["runtimeSpec"] = SandboxSpecOf(p_.config.layout, *pod);
  if (auto result = json::Parse(pod->cni_result()); result.ok()) {
    info["cniResult"] = *std::move(result);
  }
  (*response.mutable_info())["info"] = json::Dump(info);
  return response;
}

void Pods::RemoveAbandoned(const CallContext& cc) {
  const auto is_older = [this](std::int64_t touched, seconds grace) {
    const std::int64_t now = p_.clock.Wall().time_since_epoch().count();
    return now - touched > std::chrono::nanoseconds(grace).count();
  };
  const seconds grace = p_.config.abandoned_grace;
  const auto is_abandoned_pod = [is_older, grace](const PodRecord& pod) {
    if (!IsHalfMade(pod)) return false;
    const bool waits = pod.phase() == v1::PREPARED;
    return is_older(pod.touched_at(), waits ? grace + kNetworkPatience : grace);
  };
  const auto is_abandoned = [is_older, grace](const ContainerRecord& container) {
    return container.phase() == v1::RESERVED && is_older(container.touched_at(), grace);
  };
  // Looked at again under the lock: what is being made right now may be alive by then.
  const auto note = [this](const char* what, const std::string& id, const Status& removed) {
    if (removed.code() == Code::kAborted) return;
    if (!removed.ok()) return log::IfError("remove what was abandoned", removed);
    p_.metrics.AbandonedRemoved();
    log::Warn("removed what was reserved and never used", {{what, id}});
  };
  for (const PodRef& pod : p_.state.Pods()) {
    if (!is_abandoned_pod(*pod)) continue;
    const auto removed = RemoveIf(cc, PodId(pod->id()), is_abandoned_pod);
    note("pod", pod->id(), removed.ok() ? Status::Ok() : removed.status());
  }
  for (const ContainerRef& container : p_.state.Containers()) {
    const ContainerId id(container->id());
    // One that is being created holds its lock, which is not worth waiting for.
    if (!is_abandoned(*container) || !p_.locks.TryLock(LockKey(id)).ok()) continue;
    const auto removed = containers_.RemoveIf(cc, id, is_abandoned);
    note("container", container->id(), removed.ok() ? Status::Ok() : removed.status());
  }
}

}  // namespace crisp::rund
