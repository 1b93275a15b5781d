#include "services/netd/app.h"

#include <latch>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/loop/loop.h"
#include "libs/os/files.h"
#include "services/netd/config.h"
#include "services/netd/core/attach.h"
#include "services/netd/core/conf_list.h"
#include "services/netd/metrics.h"
#include "services/netd/rpc/network_service.h"
#include "services/netd/store/attachments.h"

namespace crisp::netd {
namespace {

class NetdApp final : public daemon::App {
 public:
  NetdApp(daemon::Daemon& daemon, Config config, std::string boot_id,
          std::unique_ptr<Attachments> store)
      : daemon_(daemon),
        metrics_(daemon.metrics()),
        conf_(std::make_shared<ConfSource>(config.conf_dir, config.default_network)),
        store_(std::move(store)),
        networks_(config, std::move(boot_id), *conf_, *store_, metrics_, Clock::System()),
        service_(networks_, daemon.pool()),
        detach_timeout_(config.detach_timeout) {}

  NetdApp(const NetdApp&) = delete;
  NetdApp& operator=(const NetdApp&) = delete;
  /// The roll back ends within a plugin's kill grace; what it did not finish stays recorded.
  ~NetdApp() override {
    rollback_stop_.request_stop();
    if (rollback_running_) rollback_done_.wait();
  }

  Status Start() {
    daemon_.AddService(&service_);
    WatchConf();
    return RollBackUnfinished();
  }

 private:
  /// The watch only wakes who waits for a configuration: each look at it stats the directory.
  void WatchConf() {
    const std::weak_ptr<ConfSource> weak = conf_;
    Result<loop::DirWatch> watch = daemon_.loop().WatchDirectory(
        conf_->directory(), [weak](const std::string&, loop::DirEvent) {
          if (const std::shared_ptr<ConfSource> conf = weak.lock()) conf->OnDirectoryChanged();
        });
    if (watch.ok()) {
      watch_ = std::move(watch).value();
    } else {
      log::Info("the network configuration's directory is not watched yet",
                {{"directory", conf_->directory()}, {"error", watch.status()}});
    }
  }

  /// In the background: pods can be attached meanwhile, those very ones as well.
  Status RollBackUnfinished() {
    const std::vector<PodId> pods = CRISP_TRY(networks_.Unfinished());
    if (pods.empty()) return Status::Ok();
    log::Info("rolling back attachments", {{"count", pods.size()}});
    // One after the other; a failure is tried again by Reconcile.
    const CallContext cc(SteadyTime::max(), rollback_stop_.get_token(), "rollback");
    CRISP_TRY(daemon_.pool().Submit(
        work::Lane::kBulk, cc,
        [this, cc, pods] {
          for (const PodId& pod : pods) {
            if (!cc.Check().ok()) break;
            log::IfError("roll back an attachment",
                         networks_.RollBack(cc.Within(detach_timeout_), pod));
          }
          rollback_done_.count_down();
        },
        [this](const Status&) { rollback_done_.count_down(); }));
    rollback_running_ = true;
    return Status::Ok();
  }

  daemon::Daemon& daemon_;
  Metrics metrics_;
  std::shared_ptr<ConfSource> conf_;
  std::unique_ptr<Attachments> store_;
  Networks networks_;
  NetworkService service_;
  std::chrono::nanoseconds detach_timeout_;
  loop::DirWatch watch_;
  std::stop_source rollback_stop_;
  std::latch rollback_done_{1};
  bool rollback_running_ = false;
};

}  // namespace

Result<std::unique_ptr<daemon::App>> MakeApp(daemon::Daemon& daemon) {
  Config config = ConfigFrom(daemon.settings(), daemon.instance());
  constexpr mode_t kPrivate = 0700;
  CRISP_TRY(os::MakeDirs(config.layout.StateDir(), kPrivate));
  CRISP_TRY(os::MakeDirs(config.layout.NetnsDir()));
  std::string boot_id = CRISP_TRY(os::BootId());
  std::unique_ptr<Attachments> store = CRISP_TRY(Attachments::Open(config.layout.Database()));
  auto app =
      std::make_unique<NetdApp>(daemon, std::move(config), std::move(boot_id), std::move(store));
  CRISP_TRY(app->Start());
  return std::unique_ptr<daemon::App>(std::move(app));
}

}  // namespace crisp::netd
