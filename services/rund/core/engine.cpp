#include "services/rund/core/engine.h"

#include <fmt/ranges.h>

#include <utility>

#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/os/files.h"
#include "services/rund/core/settings_files.h"
#include "services/rund/runtime/apparmor_load.h"
#include "services/rund/runtime/userns.h"
#include "services/rund/spec/cdi.h"
#include "services/rund/spec/hooks.h"

namespace crisp::rund {
namespace {

// Of all runtimes, which are asked at the same time and have less each.
constexpr std::chrono::seconds kProbesTime{20};

Status MakeDirectories(const Config& config) {
  const Layout& layout = config.layout;
  CRISP_TRY(os::MakeDirs(layout.state_dir, 0700));
  CRISP_TRY(os::MakeDirs(layout.VolumesDir(), 0711));
  for (const std::string& dir :
       {layout.run_dir, layout.ExitsDir(), layout.PodsDir(), layout.ContainersDir()}) {
    CRISP_TRY(os::MakeDirs(dir, 0711));
  }
  CRISP_TRY(os::MakeDirs(layout.SeccompDir(), 0700));
  for (const auto& [name, runtime] : config.runtimes) CRISP_TRY(os::MakeDirs(runtime.root, 0700));
  return Status::Ok();
}

/// Handlers of pods that the settings have no more.
std::map<std::string, RuntimeConfig> KeptBy(const State& state, const Config& config) {
  std::map<std::string, RuntimeConfig> kept;
  for (const PodRef& pod : state.Pods()) {
    if (!pod->has_program() || config.runtimes.contains(pod->runtime())) continue;
    const v1::RuntimeRecord& program = pod->program();
    kept[pod->runtime()] = {
        .path = program.path(),
        .root = program.root(),
        .args = {program.args().begin(), program.args().end()},
        .monitor_env = {program.monitor_env().begin(), program.monitor_env().end()}};
  }
  return kept;
}

CgroupDriverKind KindOf(const Config& config) {
  return config.systemd_cgroups ? CgroupDriverKind::kSystemd : CgroupDriverKind::kCgroupfs;
}

Result<SpecDefaults> MakeSpecDefaults(const Config& config) {
  SpecDefaults defaults;
  defaults.host = CRISP_TRY(DetectHost());
  defaults.capabilities = config.capabilities;
  defaults.ulimits = config.ulimits;
  defaults.seccomp_profile = config.seccomp_profile;
  defaults.seccomp_cache_dir = config.layout.SeccompDir();
  defaults.never_created_host_paths = config.never_created_host_paths;
  defaults.storage_roots = {config.layout.state_dir, config.layout.run_dir};
  defaults.env = config.env;
  defaults.umask = config.umask;
  defaults.devices = config.devices;
  defaults.annotation_devices = config.annotation_devices;
  defaults.device_ownership = config.device_ownership;
  defaults.apparmor_profile = config.apparmor_profile;
  if (config.selinux) {
    defaults.selinux = CRISP_TRY(DetectSelinux("/sys/fs/selinux", "/etc/selinux"));
  }
  defaults.blockio_config_file = config.blockio_config_file;
  defaults.cdi = std::make_shared<CdiDirs>(config.cdi_dirs);
  defaults.hooks = std::make_shared<HookDirs>(config.hooks_dirs);
  if (defaults.host.apparmor) {
    const Status loaded =
        LoadAppArmorProfile(CallContext::Background(std::chrono::seconds(20), "apparmor"),
                            defaults.host.apparmor_profiles, config.apparmor_profile);
    if (!loaded.ok()) {
      log::Error("the default AppArmor profile is not there; pods that ask for it will fail",
                 {{"profile", config.apparmor_profile}, {"error", loaded}});
    }
  }
  return defaults;
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::Open(Config config, work::Pool& pool, Clock& clock,
                                             metrics::Registry& metrics) {
  CRISP_TRY(CheckNeededFiles(config));
  CRISP_TRY(MakeDirectories(config));
  os::FileLock lock = CRISP_TRY(
      os::FileLock::TryLock(config.layout.LockPath()).While("the state directory is in use"));
  Records records = CRISP_TRY(Records::Open(config.layout.DatabasePath()));
  auto state = CRISP_TRY(State::Open(std::move(records), clock));
  os::Cgroups cgroups = CRISP_TRY(os::Cgroups::Detect());
  auto units = systemd::Units::Booted() ? std::make_unique<systemd::Units>() : nullptr;
  CRISP_TRY(CgroupDriver(cgroups, KindOf(config), units.get())
                .Check(CallContext::Background(std::chrono::seconds(20), "systemd")));
  Runtimes runtimes = Runtimes::Probe(CallContext::Background(kProbesTime), config, cgroups,
                                      KeptBy(*state, config));
  SpecDefaults defaults = CRISP_TRY(MakeSpecDefaults(config));
  Status userns =
      ProbeUserNamespaces(CallContext::Background(std::chrono::seconds(10)), config.pause,
                          config.layout.state_dir, config.layout.run_dir + "/probe");
  if (!userns.ok()) log::Info("pods have no user namespaces", {{"reason", userns}});
  const std::string boot_id = CRISP_TRY(os::BootId());
  std::unique_ptr<Engine> engine(new Engine(std::move(config), pool, clock, metrics,
                                            std::move(cgroups), std::move(units), std::move(lock),
                                            std::move(state), std::move(runtimes),
                                            std::move(defaults), std::move(userns)));
  engine->metrics_.RecordsUnreadable(engine->state_->unreadable());
  CRISP_TRY(engine->recovery_.Begin(boot_id));
  Lifecycle& lifecycle = engine->lifecycle_;
  Pods& pods = engine->pods_;
  engine->supervisor_ = CRISP_TRY(Supervisor::Start(
      engine->config_.layout.ExitsDir(),
      {.on_exit_file = [&lifecycle](const ContainerId& id) { lifecycle.OnExitFile(id); },
       .on_monitor_gone = [&lifecycle](const ContainerId& id) { lifecycle.OnMonitorGone(id); },
       .on_logger_gone = [&lifecycle](const ContainerId& id) { lifecycle.OnLoggerGone(id); },
       .on_pause_gone = [&pods](const PodId& id) { pods.OnPauseGone(id); }}));
  engine->parts_.supervisor = engine->supervisor_.get();
  return engine;
}

Engine::Engine(Config config, work::Pool& pool, Clock& clock, metrics::Registry& metrics,
               os::Cgroups cgroups, std::unique_ptr<systemd::Units> units, os::FileLock lock,
               std::unique_ptr<State> state, Runtimes runtimes, SpecDefaults spec_defaults,
               Status userns_support)
    : config_(std::move(config)),
      cgroups_(std::move(cgroups)),
      units_(std::move(units)),
      cgroup_driver_(cgroups_, KindOf(config_), units_.get()),
      lock_(std::move(lock)),
      state_(std::move(state)),
      runtimes_(std::move(runtimes)),
      spec_defaults_(std::move(spec_defaults)),
      userns_support_(std::move(userns_support)),
      metrics_(metrics),
      parts_{.config = config_,
             .state = *state_,
             .clock = clock,
             .cgroups = cgroups_,
             .cgroup_driver = cgroup_driver_,
             .runtimes = runtimes_,
             .spec_defaults = spec_defaults_,
             .userns_support = userns_support_,
             .locks = locks_,
             .pool = pool,
             .metrics = metrics_},
      lifecycle_(parts_),
      containers_(parts_, lifecycle_),
      pods_(parts_, containers_, lifecycle_),
      resources_(parts_),
      checkpoints_(parts_),
      recovery_(parts_, pods_, containers_, checkpoints_, lifecycle_) {}

Engine::~Engine() = default;

Config Engine::WithRootsInUse(Config fresh) const {
  // What runs is found in the old place only.
  for (const auto& [name, runtime] : config_.runtimes) {
    if (const auto found = fresh.runtimes.find(name); found != fresh.runtimes.end()) {
      found->second.root = runtime.root;
    }
  }
  return fresh;
}

Status Engine::CheckRuntimes(const Config& fresh) const {
  return runtimes_.CheckReload(CallContext::Background(kProbesTime, "runtimes"),
                               WithRootsInUse(fresh), cgroups_);
}

Status Engine::ReloadRuntimes(const Config& fresh) {
  const Config config = WithRootsInUse(fresh);
  for (const auto& [name, runtime] : config.runtimes) CRISP_TRY(os::MakeDirs(runtime.root, 0700));
  CRISP_TRY(runtimes_.Reload(CallContext::Background(kProbesTime, "runtimes"), config, cgroups_));
  log::Info("runtime handlers are as the settings have them now",
            {{"handlers", fmt::format("{}", fmt::join(runtimes_.Names(), ", "))},
             {"default", runtimes_.default_name()}});
  return Status::Ok();
}

void Engine::LookForRuntimes() {
  runtimes_.LookAgain(CallContext::Background(kProbesTime, "runtimes"), cgroups_);
}

void Engine::Continue() {
  recovery_.Continue(CallContext::Background(std::chrono::hours(24), "recovery"));
}

}  // namespace crisp::rund
