#include "services/imaged/app.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <set>

#include "libs/base/check.h"
#include "libs/base/cleanup.h"
#include "libs/base/guarded.h"
#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/os/btrfs.h"
#include "libs/os/file_lock.h"
#include "libs/os/files.h"
#include "libs/os/image_mount.h"
#include "libs/os/mount.h"
#include "services/imaged/config.h"
#include "services/imaged/confinement.h"
#include "services/imaged/core/archives.h"
#include "services/imaged/core/gc.h"
#include "services/imaged/core/images.h"
#include "services/imaged/core/policy.h"
#include "services/imaged/core/pull.h"
#include "services/imaged/core/snapshots.h"
#include "services/imaged/core/store_check.h"
#include "services/imaged/metrics.h"
#include "services/imaged/registry/registries_conf.h"
#include "services/imaged/rpc/archives_service.h"
#include "services/imaged/rpc/image_service.h"
#include "services/imaged/rpc/pulls_service.h"
#include "services/imaged/rpc/snapshots_service.h"

namespace crisp::imaged {
namespace {

constexpr auto kSyncDelay = std::chrono::milliseconds(200);  // after a pull
constexpr auto kGcDelay = std::chrono::seconds(2);           // after something became garbage
constexpr auto kGcRetry = std::chrono::seconds(5);           // while pulls go on
constexpr auto kVerifyTime = std::chrono::hours(1);
constexpr std::uint64_t kVerifyRate = std::uint64_t{20} << 20U;  // bytes a second
constexpr auto kNewCheck = std::chrono::minutes(1);              // for layers that were never read
constexpr auto kReachCheck = std::chrono::seconds(30);
constexpr auto kAbandoned = std::chrono::seconds(60);  // a pull whose caller went away
constexpr auto kAbandonedCheck = std::chrono::seconds(5);
constexpr auto kGcTime = std::chrono::minutes(10);  // of one round
constexpr auto kFreeTime = std::chrono::milliseconds(500);

/// Runs the garbage collector some time after it was asked for, never twice at once. Held by its
/// timer and its pool task only weakly.
class GcRunner : public std::enable_shared_from_this<GcRunner> {
 public:
  GcRunner(daemon::Daemon& daemon, Gc& gc) : daemon_(daemon), gc_(gc) {}

  void Wake(std::chrono::nanoseconds delay = kGcDelay) {
    const std::lock_guard lock(mutex_);
    if (stopped_) return;
    if (running_) {
      again_ = true;
      return;
    }
    const SteadyTime due = std::chrono::steady_clock::now() + delay;
    if (scheduled_ && due_ <= due) return;
    Schedule(delay);
  }
  /// After it nothing runs any more.
  void Stop() {
    stop_.request_stop();
    std::unique_lock lock(mutex_);
    stopped_ = true;
    timer_.Cancel();
    idle_.wait(lock, [this] { return !running_; });
  }

 private:
  void Schedule(std::chrono::nanoseconds delay) {
    scheduled_ = true;
    again_ = false;
    due_ = std::chrono::steady_clock::now() + delay;
    timer_ = daemon_.loop().After(delay, [weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->OnTimer();
    });
  }
  void OnTimer() {
    const std::lock_guard lock(mutex_);
    if (stopped_ || running_) return;
    running_ = true;
    const CallContext cc =
        CallContext(std::chrono::steady_clock::now() + kGcTime, stop_.get_token(), "gc");
    const Status submitted = daemon_.pool().Submit(
        work::Lane::kBulk, cc, [self = shared_from_this(), cc] { self->Run(cc); },
        [self = shared_from_this()](const Status&) { self->Done(true); });
    if (!submitted.ok()) running_ = scheduled_ = false;
  }
  void Run(const CallContext& cc) {
    log::IfError("sync fresh layers", gc_.SyncLayers());
    static_cast<void>(gc_.Collect().ok());  // it tells of its failures itself
    log::IfError("remove old homes of gpg", gc_.DiscardOldHomes());
    const Result<bool> empty = gc_.EmptyTrash(cc);
    // What cannot be deleted was told of, and is tried again with the next round.
    Done(!empty.ok() || *empty);
  }
  void Done(bool all) {
    const std::lock_guard lock(mutex_);
    running_ = scheduled_ = false;
    if (!stopped_ && (again_ || !all)) Schedule(all ? kGcDelay : kGcRetry);
    idle_.notify_all();
  }

  daemon::Daemon& daemon_;
  Gc& gc_;
  std::stop_source stop_;
  std::mutex mutex_;
  std::condition_variable idle_;
  loop::Timer timer_;
  SteadyTime due_;
  bool scheduled_ = false;
  bool running_ = false;
  bool again_ = false;
  bool stopped_ = false;
};

class ImagedApp final : public daemon::App {
 public:
  ImagedApp(daemon::Daemon& daemon, Config config, os::FileLock in_use, LayerStore store,
            std::unique_ptr<Catalogue> catalogue)
      : config_(std::move(config)),
        in_use_(std::move(in_use)),
        store_(std::move(store)),
        catalogue_(std::move(catalogue)),
        metrics_(daemon.metrics()),
        client_(config_.http),
        hosts_(client_, config_.hosts),
        trust_(config_.trust, client_, Clock::System()),
        puller_(config_.pull, daemon.pool(), client_, hosts_, *catalogue_, store_, trust_, metrics_,
                Clock::System(), [this] { gc_runner_->Wake(kSyncDelay); }),
        images_(*catalogue_, store_.layout(), config_.pinned_images, Clock::System(),
                [&daemon](const std::function<void()>& measure) {
                  log::IfError(
                      "measure the disk",
                      daemon.pool().Submit(work::Lane::kBulk,
                                           CallContext::Background(kGcTime, "disk"), measure));
                }),
        snapshots_(*catalogue_, store_, trust_, metrics_, Clock::System(), config_.driver,
                   config_.overlay_options),
        gc_(*catalogue_, store_, metrics_, Clock::System(), [this] { return puller_.Quiet(); }),
        gc_runner_(std::make_shared<GcRunner>(daemon, gc_)),
        image_service_(daemon.pool(), images_, puller_,
                       [this](const CallContext& cc, const std::vector<digest::Digest>& layers) {
                         FreeNow(cc, layers);
                       }),
        snapshots_service_(daemon.pool(), snapshots_, config_.orphan_grace,
                           [this] { gc_runner_->Wake(); }),
        pulls_service_(daemon.pool(), daemon.loop(), puller_),
        archives_(puller_, hosts_, *catalogue_, store_,
                  {config_.pull.max_layer_size, config_.pull.max_manifest_size}, images_.spooled()),
        archives_service_(daemon.pool(), archives_) {}
  ~ImagedApp() override {
    stop_.request_stop();
    gc_runner_->Stop();
  }

  Status Start(daemon::Daemon& daemon) {
    catalogue_->SetNames([this](std::string_view image) { return hosts_.NamesHere(image); });
    CRISP_TRY(gc_.Recover());
    images_.MeasureDisk();
    gc_runner_->Wake();
    // Layers of failed pulls come of age without anybody asking.
    timer_ =
        daemon.loop().Every(std::chrono::minutes(15), [runner = gc_runner_] { runner->Wake(); });
    abandoned_timer_ =
        daemon.loop().Every(kAbandonedCheck, [this] { puller_.StopAbandoned(kAbandoned); });
    if (daemon.confined())
      reach_timer_ = daemon.loop().Every(kReachCheck, [this, &daemon] { CheckReachSoon(daemon); });
    if (config_.verify.count() > 0) {
      verify_timer_ = daemon.loop().Every(config_.verify, [this, &daemon] {
        VerifySoon(daemon, [this](const CallContext& cc) { VerifyNext(cc); });
      });
      new_timer_ = daemon.loop().Every(kNewCheck, [this, &daemon] {
        VerifySoon(daemon, [this](const CallContext& cc) { VerifyNew(cc); });
      });
    }
    daemon.OnDrain([this] { stop_.request_stop(); });
    daemon.SetProblems([this] {
      std::vector<daemon::Problem> problems;
      const std::set<std::string> damages = *damages_.lock();
      for (const std::string& what : damages)
        problems.push_back({what, "stop crisp-imaged, then run: crispctl store check --repair"});
      return problems;
    });
    daemon.AddService(&image_service_);
    daemon.AddService(&snapshots_service_);
    daemon.AddService(&pulls_service_);
    daemon.AddService(&archives_service_);
    return Status::Ok();
  }

 private:
  /// Who removes an image waits a moment for its space; what takes longer goes on without it.
  void FreeNow(const CallContext& cc, const std::vector<digest::Digest>& layers) {
    const auto wait = std::min<std::chrono::nanoseconds>(cc.Remaining() / 2, kFreeTime);
    const Result<bool> freed = gc_.FreeNow(cc.Within(wait), layers);
    if (!freed.ok() || !*freed) gc_runner_->Wake();
  }

  /// Landlock opened files by their inode: one that was replaced (resolv.conf), is new
  /// (/etc/containers), or that a configuration file names only now (a key in policy.json) can be
  /// read after the next start only. Where systemd starts us again, that is now, or when the last
  /// pull has ended.
  void CheckReachSoon(daemon::Daemon& daemon) {
    const CallContext cc = CallContext::Background(kReachCheck, "reach");
    log::IfError("check what can be reached",
                 daemon.pool().Submit(work::Lane::kBulk, cc, [this, &daemon] {
                   const auto wanted = PlanConfinement(daemon.settings(), daemon.options());
                   if (!wanted.ok() || !*wanted)
                     return log::IfError("plan the confinement", wanted.status());
                   const std::vector<std::string> outdated = daemon.confined()->Outdated(**wanted);
                   if (outdated.empty()) return;
                   const bool restart = std::getenv("NOTIFY_SOCKET") != nullptr;
                   if (!told_.exchange(true))
                     log::Warn(
                         "a file was replaced, made or named that this confined process can only "
                         "read after a restart",
                         {{"path", outdated.front()}, {"restarts by itself", restart}});
                   if (restart && puller_.Quiet()) daemon.RequestStop();
                 }));
  }

  /// The layer that was not looked at for longest, or never; tells of its damage.
  void VerifyNext(const CallContext& cc) {
    const Result<std::string> damage =
        VerifyOne(cc, *catalogue_, store_, Clock::System(), kVerifyRate);
    if (!damage.ok()) return log::IfError("verify a layer", damage.status());
    if (damage->empty()) return;
    log::Error("the image store is damaged", {{"what", *damage}});
    damages_.lock()->insert(*damage);
  }

  void VerifySoon(daemon::Daemon& daemon, const std::function<void(const CallContext&)>& verify) {
    const CallContext cc(std::chrono::steady_clock::now() + kVerifyTime, stop_.get_token(),
                         "verify");
    log::IfError("verify a layer", daemon.pool().Submit(work::Lane::kBulk, cc, [this, cc, verify] {
      if (puller_.Quiet()) verify(cc);
    }));
  }

  /// What is known of a layer's files is what they were when it was read first: so soon after it
  /// has come, in a quiet time.
  void VerifyNew(const CallContext& cc) {
    const Result<std::vector<CatalogueLayer>> layers = catalogue_->AllLayers();
    if (!layers.ok() || reading_new_.exchange(true)) return;
    const Cleanup done([this] { reading_new_ = false; });
    const auto unread =
        std::count_if(layers->begin(), layers->end(),
                      [](const CatalogueLayer& each) { return each.checked == WallTime(); });
    for (std::ptrdiff_t i = 0; i < unread && puller_.Quiet() && cc.Check().ok(); ++i)
      VerifyNext(cc);
  }

  const Config config_;
  const os::FileLock in_use_;  // against who repairs the store
  LayerStore store_;
  std::unique_ptr<Catalogue> catalogue_;
  Metrics metrics_;
  http::Client client_;
  Hosts hosts_;
  Trust trust_;
  Puller puller_;
  Images images_;
  Snapshots snapshots_;
  Gc gc_;
  std::shared_ptr<GcRunner> gc_runner_;
  ImageService image_service_;
  SnapshotsService snapshots_service_;
  PullsService pulls_service_;
  Archives archives_;
  ArchivesService archives_service_;
  Guarded<std::set<std::string>> damages_;
  std::atomic<bool> told_ = false;
  std::atomic<bool> reading_new_ = false;
  std::stop_source stop_;  // of the verification
  loop::Timer timer_;
  loop::Timer abandoned_timer_;
  loop::Timer reach_timer_;
  loop::Timer verify_timer_;
  loop::Timer new_timer_;
};

}  // namespace

Status CheckSettings(const settings::Settings& settings, const daemon::Options& /*options*/) {
  const settings::Imaged& own = settings.imaged;
  const Result<std::string> policy = os::ReadFile(own.policy);
  const bool may_be_absent = own.policy == settings::Imaged().policy;
  if (policy.ok()) {
    CRISP_TRY(Policy::Parse(*policy).While("imaged.policy: {}", own.policy));
  } else if (!(policy.code() == Code::kNotFound && may_be_absent) &&
             policy.code() != Code::kPermissionDenied) {
    return policy.status().While("imaged.policy");
  }
  if (own.registries_conf.empty()) return Status::Ok();
  const auto registries = RegistriesConf::Load(own.registries_conf);
  if (registries.code() == Code::kPermissionDenied) return Status::Ok();
  return registries.status().While("imaged.registries_conf");
}

Result<std::unique_ptr<daemon::App>> MakeApp(daemon::Daemon& daemon) {
  Config config = Config::From(daemon.settings(), daemon::Version());
  config.http.proxy = CRISP_TRY(http::ProxyConfig::FromEnvironment());
  if (config.pull.erofs) CRISP_TRY(os::CheckImageLayers().While("imaged.driver: erofs"));
  if (config.driver == Snapshots::Driver::kOverlay && !os::KernelHasFilesystem("overlay")) {
    log::Warn("this kernel has no overlayfs: each container gets a full copy of its image",
              {{"imaged.driver", "vfs"}});
    config.driver = Snapshots::Driver::kVfs;
  }
  const Layout layout = config.layout;
  LayerStore store = CRISP_TRY(LayerStore::Open(layout));
  if (config.driver == Snapshots::Driver::kBtrfs) {
    const bool there = CRISP_TRY(os::IsOnBtrfs(layout.snapshots_root()));
    if (!there)
      return FailedPrecondition("imaged.driver: btrfs: {} is not on a btrfs file system",
                                layout.snapshots_root());
  }
  os::FileLock in_use = CRISP_TRY(
      os::FileLock::TryLockShared(layout.InUse()).While("the image store is being repaired"));
  const std::string boot_id = CRISP_TRY(os::BootId());
  std::unique_ptr<Catalogue> catalogue = CRISP_TRY(Catalogue::Open(layout.Catalogue(), boot_id));
  auto app = std::make_unique<ImagedApp>(daemon, std::move(config), std::move(in_use),
                                         std::move(store), std::move(catalogue));
  if (Status started = app->Start(daemon); !started.ok()) {
    CRISP_CHECK(daemon.Quiesce().ok());
    return started;
  }
  return std::unique_ptr<daemon::App>(std::move(app));
}

}  // namespace crisp::imaged
