#include "services/rund/app.h"

#include <sys/resource.h>

#include <functional>
#include <utility>

#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/work/side_by_side.h"
#include "services/rund/config.h"
#include "services/rund/core/engine.h"
#include "services/rund/core/node.h"
#include "services/rund/core/settings_files.h"
#include "services/rund/core/streams.h"
#include "services/rund/rpc/containers_service.h"
#include "services/rund/rpc/node_service.h"
#include "services/rund/rpc/pods_service.h"
#include "services/rund/rpc/records_service.h"
#include "services/rund/rpc/stats_service.h"
#include "services/rund/rpc/streaming_service.h"
#include "services/rund/stats/collector.h"
#include "services/rund/stats/stats.h"
#include "services/rund/streaming/front.h"

namespace crisp::rund {
namespace {

constexpr std::chrono::seconds kSweepPeriod{30};
constexpr std::chrono::seconds kStatsPeriod{10};

// A pool apart: nothing that waits for a container, a runtime or a file system holds its threads.
work::PoolOptions StatsThreads() {
  work::PoolOptions options;
  options.bulk = {.cap = 4, .queue = 1024};
  return options;
}

CollectorOptions CollectorOf(const settings::Settings& settings) {
  CollectorOptions options;
  options.storage_root = settings.state_root + "/imaged";  // where imaged has its snapshots
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) options.max_descriptors = limit.rlim_cur / 2;
  return options;
}

class App final : public daemon::App {
 public:
  App(daemon::Daemon& daemon, std::unique_ptr<Engine> engine, std::unique_ptr<Streams> streams)
      : engine_(std::move(engine)),
        streams_(std::move(streams)),
        pods_(daemon.pool(), engine_->pods(), engine_->resources()),
        containers_(daemon.pool(), engine_->containers(), engine_->resources(),
                    engine_->checkpoints()),
        records_(engine_->state()),
        node_(daemon.pool(), engine_->parts()),
        collector_(engine_->state(), engine_->parts().cgroups, engine_->parts().clock,
                   WithThreads(CollectorOf(daemon.settings()))),
        stats_(engine_->state(), collector_),
        stats_pool_(StatsThreads()),
        stats_service_(stats_pool_, stats_),
        streaming_(daemon.pool(), *streams_),
        pool_(daemon.pool()) {
    daemon.AddService(&pods_);
    daemon.AddService(&containers_);
    daemon.AddService(&records_);
    daemon.AddService(&node_);
    daemon.AddService(&stats_service_);
    daemon.AddService(&streaming_);
    daemon.SetProblems([this] {
      std::vector<daemon::Problem> problems;
      const Parts& parts = engine_->parts();
      for (auto& all : {NodeProblems(parts), PodProblems(parts, engine_->lifecycle().stops())}) {
        for (const NodeProblem& problem : all) problems.push_back({problem.what, problem.hint});
      }
      if (const Status problem = streams_->server().problem(); !problem.ok()) {
        problems.push_back({"exec, attach and port-forward do not work: " + problem.message(),
                            "free the address, or change rund.streaming_address"});
      }
      return problems;
    });
    daemon.OnDrain([this] {
      records_.Close();
      streams_->server().EndAll(Unavailable("rund is stopping; try again"));
      engine_->lifecycle().stops().Close();
    });
    daemon.OnReload(
        {.check = [this,
                   instance = daemon.instance()](const settings::Settings& settings) -> Status {
           return engine_->CheckRuntimes(CRISP_TRY(Config::From(settings, instance)));
         },
         .apply = [this, instance = daemon.instance()](
                      const settings::Settings& settings) { return Reload(settings, instance); }});
    AddGauges(daemon.metrics());
    engine_->Continue();
    sweep_ = daemon.loop().Every(kSweepPeriod, [this] { Sweep(); });
    stats_tick_ = daemon.loop().Every(kStatsPeriod, [this] { StatsTick(); });
  }

 private:
  /// Those of the pool that is made after the collector.
  CollectorOptions WithThreads(CollectorOptions options) {
    options.count_soon = [this] { CountDisksSoon(); };
    options.side_by_side = [this](std::vector<std::function<Status()>> tasks) {
      log::IfError("read statistics", work::SideBySide(stats_pool_, work::Lane::kBulk,
                                                       CallContext(), std::move(tasks)));
    };
    return options;
  }

  Status Reload(const settings::Settings& settings, const std::string& instance) {
    return engine_->ReloadRuntimes(CRISP_TRY(Config::From(settings, instance)));
  }

  void AddGauges(metrics::Registry& metrics) {
    State& state = engine_->state();
    metrics.AddGauge("crisp_rund_pods", "Pods on record, whatever their state.", {},
                     [&state] { return static_cast<double>(state.Pods().size()); });
    metrics.AddGauge("crisp_rund_containers", "Containers on record, whatever their state.", {},
                     [&state] { return static_cast<double>(state.Containers().size()); });
    streaming::Server& streams = streams_->server();
    metrics.AddGauge("crisp_rund_streaming_sessions", "Execs, attaches and port-forwards open.", {},
                     [&streams] { return static_cast<double>(streams.sessions()); });
    metrics.AddGauge("crisp_rund_streaming_execs_left",
                     "Commands of execs that run on after their clients have gone.", {},
                     [&streams] { return static_cast<double>(streams.left()); });
    const Stops& stops = engine_->lifecycle().stops();
    metrics.AddGauge("crisp_rund_containers_stopping",
                     "Containers between the stop signal and their end.", {},
                     [&stops] { return static_cast<double>(stops.counts().stopping); });
    metrics.AddGauge("crisp_rund_containers_stuck",
                     "Containers that outlive SIGKILL (uninterruptible sleep).", {},
                     [&stops] { return static_cast<double>(stops.counts().stuck); });
  }

  void Sweep() {
    const CallContext cc = CallContext::Background(kSweepPeriod, "sweep");
    log::IfError("sweep", pool_.Submit(work::Lane::kBulk, cc,
                                       [this, cc] { engine_->lifecycle().CheckAll(cc); }));
    // Waits for runtimes.
    log::IfError("remove what was abandoned", pool_.Submit(work::Lane::kClean, cc, [this, cc] {
      engine_->pods().RemoveAbandoned(cc);
    }));
    log::IfError("look for runtimes",
                 pool_.Submit(work::Lane::kBulk, cc, [this] { engine_->LookForRuntimes(); }));
  }

  void CountDisksSoon() {
    const CallContext cc = CallContext::Background(kStatsPeriod, "stats");
    log::IfError("count writable layers", stats_pool_.Submit(work::Lane::kBulk, cc, [this, cc] {
      collector_.CountDisks(cc);
    }));
  }

  void StatsTick() {
    const CallContext cc = CallContext::Background(kStatsPeriod, "stats");
    log::IfError("read statistics",
                 stats_pool_.Submit(work::Lane::kBulk, cc, [this, cc] { collector_.Tick(cc); }));
  }

  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Streams> streams_;
  PodsService pods_;
  ContainersService containers_;
  RecordsService records_;
  NodeService node_;
  Collector collector_;
  Stats stats_;
  work::Pool stats_pool_;
  StatsService stats_service_;
  StreamingService streaming_;
  work::Pool& pool_;
  loop::Timer sweep_;
  loop::Timer stats_tick_;
};

}  // namespace

Status CheckSettings(const settings::Settings& settings, const daemon::Options& options) {
  const Config config = CRISP_TRY(Config::From(settings, options.instance));
  CRISP_TRY(streaming::CheckAddress(config.streaming.address));
  return CheckFiles(config);
}

Result<std::unique_ptr<daemon::App>> MakeApp(daemon::Daemon& daemon) {
  Config config = CRISP_TRY(Config::From(daemon.settings(), daemon.instance()));
  auto engine =
      CRISP_TRY(Engine::Open(std::move(config), daemon.pool(), Clock::System(), daemon.metrics()));
  CRISP_TRY(daemon.MarkRecords(
      [&state = engine->state()] { return !state.Pods().empty() || !state.Containers().empty(); }));
  auto streams = CRISP_TRY(Streams::Start(engine->parts()));
  return std::unique_ptr<daemon::App>(
      std::make_unique<App>(daemon, std::move(engine), std::move(streams)));
}

}  // namespace crisp::rund
