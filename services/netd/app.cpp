#include "services/netd/app.h"

#include <fmt/format.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "libs/base/check.h"
#include "libs/base/try.h"
#include "libs/os/files.h"
#include "services/netd/config.h"
#include "services/netd/core/attach.h"
#include "services/netd/core/caretaker.h"
#include "services/netd/core/conf_dirs.h"
#include "services/netd/core/plugin.h"
#include "services/netd/core/readiness.h"
#include "services/netd/metrics.h"
#include "services/netd/rpc/network_service.h"
#include "services/netd/store/attachments.h"

namespace crisp::netd {
namespace {

class NetdApp final : public daemon::App {
 public:
  NetdApp(daemon::Daemon& daemon, const Config& config, std::string boot_id,
          std::unique_ptr<Attachments> store)
      : daemon_(daemon),
        metrics_(daemon.metrics()),
        conf_(config.conf_dirs, config.default_network),
        plugins_(
            config.bin_dirs,
            [this](const std::string& type, std::string_view verb, Code code,
                   std::chrono::nanoseconds took) { metrics_.PluginDone(type, verb, code, took); }),
        readiness_(conf_, plugins_, Clock::System(), {.grace = config.status_grace}),
        store_(std::move(store)),
        networks_(config, std::move(boot_id), readiness_, plugins_, *store_, metrics_,
                  Clock::System()),
        service_(networks_, readiness_, daemon.pool()),
        caretaker_(std::make_shared<Caretaker>(config, daemon.loop(), daemon.pool(), readiness_,
                                               networks_)) {}

  NetdApp(const NetdApp&) = delete;
  NetdApp& operator=(const NetdApp&) = delete;
  /// The pool has ended: nothing of the caretaker's runs any more.
  ~NetdApp() override { caretaker_->Stop(); }

  Status Start() {
    constexpr std::chrono::seconds kRecover(10);
    CRISP_TRY(networks_.Recover(CallContext::Background(kRecover, "recover")));
    daemon_.AddService(&service_);
    metrics_.Watch([this] { return networks_.Owed(); });
    daemon_.OnDrain([this] { caretaker_->Stop(); });
    daemon_.SetProblems([this] { return Problems(); });
    caretaker_->Start();
    return Status::Ok();
  }

 private:
  std::vector<daemon::Problem> Problems() const {
    constexpr std::size_t kShown = 3;
    std::vector<daemon::Problem> problems;
    const std::vector<Retries::Owed> owed = networks_.OwedForLong();
    for (const Retries::Owed& one : owed) {
      if (problems.size() == kShown) {
        problems.back().what += fmt::format(" (and {} more)", owed.size() - kShown);
        break;
      }
      problems.push_back(
          {fmt::format("the network of pod {} cannot be taken down after {} attempts: {}",
                       one.pod.Short(), one.failures, one.why.message()),
           "its address stays taken until a CNI DEL succeeds, which is tried again every 5 minutes "
           "at most: mend the plugin, or install it again (netd.bin_dirs)"});
    }
    return problems;
  }

  daemon::Daemon& daemon_;
  Metrics metrics_;
  ConfSource conf_;
  PluginRunner plugins_;
  Readiness readiness_;
  std::unique_ptr<Attachments> store_;
  Networks networks_;
  NetworkService service_;
  std::shared_ptr<Caretaker> caretaker_;
};

}  // namespace

Status CheckSettings(const settings::Settings& settings, const daemon::Options& options) {
  const Config config = ConfigFrom(settings, options.instance);
  if (!config.builtin_hostports || os::Exists(config.nft)) return Status::Ok();
  return NotFound("netd.nft: there is no program {}, and netd.hostports is builtin", config.nft);
}

Result<std::unique_ptr<daemon::App>> MakeApp(daemon::Daemon& daemon) {
  const Config config = ConfigFrom(daemon.settings(), daemon.instance());
  constexpr mode_t kPrivate = 0700;
  CRISP_TRY(os::MakeDirs(config.layout.StateDir(), kPrivate));
  CRISP_TRY(os::MakeDirs(config.layout.NetnsDir()));
  std::string boot_id = CRISP_TRY(os::BootId());
  std::unique_ptr<Attachments> store = CRISP_TRY(Attachments::Open(config.layout.Database()));
  auto app = std::make_unique<NetdApp>(daemon, config, std::move(boot_id), std::move(store));
  if (Status started = app->Start(); !started.ok()) {
    CRISP_CHECK(daemon.Quiesce().ok());
    return started;
  }
  return std::unique_ptr<daemon::App>(std::move(app));
}

}  // namespace crisp::netd
