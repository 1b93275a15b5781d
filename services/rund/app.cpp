#include "services/rund/app.h"

#include <utility>

#include "libs/base/try.h"
#include "libs/log/log.h"
#include "services/rund/config.h"
#include "services/rund/core/engine.h"
#include "services/rund/core/node.h"
#include "services/rund/rpc/containers_service.h"
#include "services/rund/rpc/node_service.h"
#include "services/rund/rpc/pods_service.h"
#include "services/rund/rpc/records_service.h"

namespace crisp::rund {
namespace {

constexpr std::chrono::seconds kSweepPeriod{30};

class App final : public daemon::App {
 public:
  App(daemon::Daemon& daemon, std::unique_ptr<Engine> engine)
      : engine_(std::move(engine)),
        pods_(daemon.pool(), engine_->pods()),
        containers_(daemon.pool(), engine_->containers()),
        records_(engine_->state()),
        node_(daemon.pool(), engine_->parts()),
        pool_(daemon.pool()) {
    daemon.AddService(&pods_);
    daemon.AddService(&containers_);
    daemon.AddService(&records_);
    daemon.AddService(&node_);
    daemon.SetProblems([this] {
      std::vector<daemon::Problem> problems;
      for (NodeProblem& problem : NodeProblems(engine_->parts())) {
        problems.push_back({std::move(problem.what), std::move(problem.hint)});
      }
      return problems;
    });
    daemon.OnDrain([this] { records_.Close(); });
    AddGauges(daemon.metrics());
    engine_->Continue();
    sweep_ = daemon.loop().Every(kSweepPeriod, [this] { Sweep(); });
  }

 private:
  void AddGauges(metrics::Registry& metrics) {
    State& state = engine_->state();
    metrics.AddGauge("crisp_rund_pods", "Pods on record, whatever their state.", {},
                     [&state] { return static_cast<double>(state.Pods().size()); });
    metrics.AddGauge("crisp_rund_containers", "Containers on record, whatever their state.", {},
                     [&state] { return static_cast<double>(state.Containers().size()); });
  }

  void Sweep() {
    const CallContext cc = CallContext::Background(kSweepPeriod, "sweep");
    log::IfError("sweep", pool_.Submit(work::Lane::kBulk, cc,
                                       [this, cc] { engine_->pods().RemoveAbandoned(cc); }));
  }

  std::unique_ptr<Engine> engine_;
  PodsService pods_;
  ContainersService containers_;
  RecordsService records_;
  NodeService node_;
  work::Pool& pool_;
  loop::Timer sweep_;
};

}  // namespace

Result<std::unique_ptr<daemon::App>> MakeApp(daemon::Daemon& daemon) {
  Config config = CRISP_TRY(Config::From(daemon.settings(), daemon.instance()));
  auto engine =
      CRISP_TRY(Engine::Open(std::move(config), daemon.pool(), Clock::System(), daemon.metrics()));
  return std::unique_ptr<daemon::App>(std::make_unique<App>(daemon, std::move(engine)));
}

}  // namespace crisp::rund
