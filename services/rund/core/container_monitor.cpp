// Containers: the monitor of one, with its first process or with those of a checkpoint.
#include <utility>

#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/os/files.h"
#include "services/rund/core/containers.h"
#include "services/rund/core/pod_files.h"
#include "services/rund/core/status.h"
#include "services/rund/runtime/checkpoint_archive.h"
#include "services/rund/runtime/conmon.h"
#include "services/rund/runtime/criu.h"

namespace crisp::rund {
namespace {

namespace cri = runtime::v1;

/// As log collectors know it from other runtimes.
std::string JournalName(const PodRecord& pod, const cri::ContainerConfig& config) {
  const cri::PodSandboxMetadata& of_pod = pod.metadata();
  return fmt::format("k8s_{}_{}_{}_{}_{}", config.metadata().name(), of_pod.name(),
                     of_pod.namespace_(), of_pod.uid(), config.metadata().attempt());
}

}  // namespace

Result<Monitored> Containers::Monitor(const CallContext& cc, const PodRecord& pod,
                                      const ContainerId& id, const OciRuntime& runtime,
                                      bool restore) {
  const Layout& layout = p_.config.layout;
  const ContainerRef container = p_.state.FindContainer(id);
  const cri::ContainerConfig& config = container->config();
  const Logs::Place log = CRISP_TRY(lifecycle_.logs().Prepare(cc, pod, *container));
  MonitorArgs args{
      .conmon = p_.config.conmon,
      .id = id,
      .bundle = layout.Bundle(id),
      .exit_dir = layout.ExitsDir(),
      .log_path = log.path,
      .journal_name = p_.config.log_to_journal ? JournalName(pod, config) : "",
      .tty = config.tty(),
      .stdin_open = config.stdin(),
      .stdin_once = config.stdin_once(),
      .systemd_cgroup = CgroupDriver::ContainerPlace(pod.cgroup_parent(), id).by_systemd};
  if (restore) {
    const SelinuxLabels labels = CRISP_TRY(ContainerLabels(
        p_.spec_defaults.selinux, config, pod.config(), PodFilesOf(layout, pod).selinux_level));
    args.restore_images = CheckpointDir{layout.RestoreOf(id)}.Images();
    args.restore_options = RestoreOptions(labels.process, labels.mount);
  }
  return CreateMonitored(cc, runtime, args);
}

Result<Monitored> Containers::Restore(const CallContext& cc, const ContainerId& id,
                                      const OciRuntime& runtime) {
  const std::string bundle = p_.config.layout.Bundle(id);
  // Of an attempt that was cut short: nobody is to take it for this one's.
  CRISP_TRY(os::RemoveFile(bundle + "/pid"));
  const PodRef pod = p_.state.FindPod(PodId(p_.state.FindContainer(id)->pod_id()));
  CRISP_TRY(CheckTakesContainers(pod.get(), pod ? pod->id() : ""));
  auto restored = Monitor(cc, *pod, id, runtime, /*restore=*/true);
  if (restored.ok() || restored.code() != Code::kInternal) return restored;
  return Internal("{} restore: {}", runtime.info().name,
                  CriuWordsIn(bundle, "restore.log", restored.status().message()));
}

Result<std::uint64_t> Containers::DoRestore(const CallContext& cc, const ContainerId& id,
                                            const OciRuntime& runtime) {
  const auto monitored = Restore(cc, id, runtime);
  if (!monitored.ok()) return FailStart(cc, id, monitored.status());
  const auto seq = p_.state.ChangeContainer(id, [&](ContainerRecord& record) {
    Lifecycle::Restored(*monitored, record);
    record.set_starting_at(0);
    record.set_started_at(p_.state.NextTimestamp());
    return Status::Ok();
  });
  // Not stored: whoever comes next takes it over.
  if (!seq.ok()) return seq;
  log::Info("container restored", {{"container", id}, {"pid", monitored->init.pid}});
  p_.supervisor->WatchMonitor(id, monitored->monitor);
  log::IfError("a checkpoint's files", os::RemoveTree(p_.config.layout.RestoreOf(id)));
  const ContainerRef container = p_.state.FindContainer(id);
  // Asked for while there was nothing to kill.
  if (container && container->stop_asked_at() != 0) lifecycle_.KillInit(*container);
  lifecycle_.CheckExit(id);
  return seq;
}

}  // namespace crisp::rund
