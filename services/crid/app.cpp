#include "services/crid/app.h"

#include <atomic>
#include <mutex>
#include <stop_token>
#include <utility>

#include "libs/base/check.h"
#include "libs/base/ids.h"
#include "libs/base/try.h"
#include "libs/http/server.h"
#include "libs/log/log.h"
#include "services/crid/core/reconcile.h"
#include "services/crid/metrics.h"
#include "services/crid/metrics_http.h"
#include "services/crid/rpc/image_service.h"
#include "services/crid/rpc/peers.h"
#include "services/crid/rpc/runtime_service.h"

namespace crisp::crid {
namespace {

constexpr std::chrono::seconds kListenAgain{10};
constexpr std::chrono::seconds kRetryPatience{60};

FlowOptions FlowsOf(const settings::Settings& settings) {
  FlowOptions options;
  options.run_pod_timeout = settings.crid.run_pod_timeout;
  options.create_timeout = settings.crid.create_timeout;
  return options;
}

PeersOptions PeersOf(const settings::Settings& settings) {
  PeersOptions options;
  options.run_root = settings.run_root;
  options.peer_wait = settings.crid.peer_wait;
  return options;
}

class CridApp final : public daemon::App {
 public:
  explicit CridApp(daemon::Daemon& daemon)
      : daemon_(daemon),
        metrics_(daemon.metrics()),
        view_(std::make_shared<View>(daemon.settings().crid.peer_wait)),
        peers_(PeersOf(daemon.settings()), *view_, daemon.loop(), [this] { ReconcileSoon(); }),
        pods_(*view_, peers_, daemon.pool(), ids_, metrics_, FlowsOf(daemon.settings())),
        containers_(*view_, peers_, daemon.pool(), ids_, metrics_, FlowsOf(daemon.settings())),
        runtime_(view_, peers_, pods_, containers_, daemon.pool(), daemon.settings(),
                 std::string(daemon::Version())),
        images_(peers_, daemon.pool()) {}

  ~CridApp() override { daemon_.pool().operations().ExplainPeersBy(nullptr); }

  Status Start() {
    CRISP_TRY(peers_.Start());
    daemon_.pool().operations().ExplainPeersBy(
        [this](const std::string& peer, const std::string& request) {
          return peers_.WordsOf(peer, request);
        });
    daemon_.AddService(&runtime_);
    daemon_.AddService(&images_);
    daemon_.AddSocket(daemon_.settings().crid.socket);
    daemon_.LeadReloads();
    daemon_.SetProblems([this] { return Problems(); });
    daemon_.OnDrain([this] {
      // Nobody waits any more: for a daemon that is away, for a change, for events.
      stop_.request_stop();
      peers_.Close();
      view_->Close();
      runtime_.observer().Close();
    });
    AddViewMetrics();
    reconcile_timer_ =
        daemon_.loop().Every(daemon_.settings().crid.reconcile, [this] { ReconcileSoon(); });
    ListenForMetrics();
    return Status::Ok();
  }

 private:
  /// Who has the address may leave; the CRI does not wait for that. Here, then on the loop.
  void ListenForMetrics() {
    const std::string& address = daemon_.settings().crid.metrics_address;
    if (address.empty()) return;
    auto server = http::Server::ListenTcp(daemon_.loop(), address, MetricsHandler(daemon_));
    std::lock_guard lock(metrics_mutex_);
    if (server.ok()) {
      metrics_server_ = *std::move(server);
      metrics_problem_ = Status::Ok();
      return;
    }
    if (metrics_problem_.ok()) log::Warn("no metrics on TCP", {{"error", server.status()}});
    metrics_problem_ = server.status();
    metrics_retry_ = daemon_.loop().After(kListenAgain, [this] { ListenForMetrics(); });
  }

  void ReconcileSoon() {
    // One waits at most: it will see what this one would.
    if (reconcile_waits_.exchange(true)) return;
    log::IfError(
        "plan the reconcile",
        daemon_.pool().Submit(
            work::Lane::kBulk, CallContext::Background(std::chrono::seconds(60), "reconcile"),
            [this] {
              reconcile_waits_ = false;
              ReconcileNow();
            },
            [this](const Status& /*why*/) { reconcile_waits_ = false; }));
  }

  void ReconcileNow() {
    const CallContext cc = CallContext(SteadyTime::max(), stop_.get_token(), "reconcile")
                               .Within(std::chrono::seconds(60));
    // A kubelet's retry comes sooner.
    if (std::chrono::steady_clock::now() - began_ >= kRetryPatience) pods_.UndoAbandoned(cc);
    const Status done = Reconcile(cc, *view_, peers_, metrics_);
    if (cc.stop().stop_requested()) return;
    if (!done.ok()) metrics_.ReconcileFailed();
    if (reconciles_.Done(done)) {
      log::Warn("what belongs to nobody is not freed: the reconcile fails again and again",
                {{"error", done}});
    } else if (!done.ok()) {
      log::Debug("reconcile not done", {{"why", done}});
    }
  }

  std::vector<daemon::Problem> Problems() {
    std::vector<daemon::Problem> problems;
    auto away = [&problems](const std::string& name) {
      problems.push_back({name + " is not running", "start it: systemctl start crisp-" +
                                                        name.substr(0, name.find('/')) + "@" +
                                                        name.substr(name.find('/') + 1)});
    };
    const auto instances = view_->Instances();
    if (instances.empty()) away("rund/1");
    for (const auto& instance : instances) {
      if (!instance.fresh) away("rund/" + instance.name);
    }
    if (!peers_.ImagedReady()) away("imaged/1");
    if (!peers_.NetdReady()) away("netd/1");
    // That somebody is away has been said, and explains it.
    const Status error = reconciles_.trouble();
    if (!error.ok() && (problems.empty() || error.code() != Code::kUnavailable)) {
      problems.push_back({"what belongs to nobody is not freed: " + error.message(),
                          "snapshots, addresses and disk space of pods that are gone stay taken "
                          "until this succeeds: journalctl -u 'crisp-*' has more of it"});
    }
    std::lock_guard lock(metrics_mutex_);
    if (!metrics_problem_.ok()) {
      problems.push_back({"no metrics on TCP: " + metrics_problem_.message(),
                          "free the address, or change crid.metrics_address"});
    }
    return problems;
  }

  void AddViewMetrics() {
    auto sum = [view = view_](std::size_t View::InstanceInfo::*member) {
      std::size_t total = 0;
      for (const auto& instance : view->Instances()) total += instance.*member;
      return static_cast<double>(total);
    };
    auto& registry = daemon_.metrics();
    registry.AddGauge("crisp_crid_pods", "Pods that rund tells of, half-made ones too.", {},
                      [sum] { return sum(&View::InstanceInfo::pods); });
    registry.AddGauge("crisp_crid_containers", "Containers that rund tells of, half-made ones too.",
                      {}, [sum] { return sum(&View::InstanceInfo::containers); });
    registry.AddGauge("crisp_crid_event_readers", "Clients that follow GetContainerEvents.", {},
                      [this] { return static_cast<double>(runtime_.observer().event_readers()); });
    registry.AddGauge("crisp_crid_peer_up", "1 when a daemon of the service answers.",
                      {{"service", "rund"}}, [view = view_] { return view->Fresh() ? 1.0 : 0.0; });
    registry.AddGauge("crisp_crid_peer_up", "1 when a daemon of the service answers.",
                      {{"service", "imaged"}}, [this] { return peers_.ImagedReady() ? 1.0 : 0.0; });
    registry.AddGauge("crisp_crid_peer_up", "1 when a daemon of the service answers.",
                      {{"service", "netd"}}, [this] { return peers_.NetdReady() ? 1.0 : 0.0; });
  }

  daemon::Daemon& daemon_;
  Metrics metrics_;
  RandomIds ids_;
  const SteadyTime began_ = std::chrono::steady_clock::now();
  std::atomic<bool> reconcile_waits_{false};
  ReconcileStreak reconciles_;
  std::stop_source stop_;
  const std::shared_ptr<View> view_;
  Peers peers_;
  PodFlow pods_;
  ContainerFlow containers_;
  RuntimeService runtime_;
  ImageService images_;
  std::mutex metrics_mutex_;
  std::unique_ptr<http::Server> metrics_server_;
  Status metrics_problem_;
  loop::Timer metrics_retry_;
  loop::Timer reconcile_timer_;
};

}  // namespace

Result<std::unique_ptr<daemon::App>> MakeApp(daemon::Daemon& daemon) {
  auto app = std::make_unique<CridApp>(daemon);
  if (Status started = app->Start(); !started.ok()) {
    CRISP_CHECK(daemon.Quiesce().ok());
    return started;
  }
  return std::unique_ptr<daemon::App>(std::move(app));
}

}  // namespace crisp::crid
