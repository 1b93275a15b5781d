#include "libs/daemon/daemon.h"

#include <grpcpp/grpcpp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <mutex>

#include "crisp/daemon/v1/daemon.grpc.pb.h"
#include "libs/base/try.h"
#include "libs/daemon/activation.h"
#include "libs/daemon/memory.h"
#include "libs/daemon/notify.h"
#include "libs/daemon/operations.h"
#include "libs/daemon/otlp.h"
#include "libs/daemon/pool_metrics.h"
#include "libs/daemon/reload_node.h"
#include "libs/daemon/rpc_metrics.h"
#include "libs/http/server.h"
#include "libs/log/log.h"
#include "libs/os/file_lock.h"
#include "libs/os/files.h"
#include "libs/rpc/server.h"
#include "libs/rpc/unary.h"
#include "libs/work/pause.h"

namespace crisp::daemon {
namespace {

constexpr std::chrono::seconds kDrain{10};
/// For work that outlives its caller; what it does not finish, the next start does.
constexpr std::chrono::seconds kLastWork{5};
constexpr std::chrono::seconds kReload{120};  // of all daemons
constexpr std::chrono::seconds kRender{5};
/// After so long without a call, memory goes back to the system.
constexpr std::chrono::seconds kIdle{5};

/// What the daemon answers about itself; read from gRPC's threads.
struct About {
  Options options;
  std::string config = {};  // the settings file's absolute path
  std::int64_t started_at = 0;
  std::atomic<bool> draining{false};
  std::mutex mutex = {};
  std::function<std::vector<Problem>()> problems = nullptr;
};

/// daemon.v1.Daemon.
class AboutService final : public v1::Daemon::CallbackService {
 public:
  AboutService(About& about, work::Pool& pool, std::optional<Reloader>& reloader)
      : about_(about), pool_(pool), reloader_(reloader) {}

  grpc::ServerUnaryReactor* Info(grpc::CallbackServerContext* context, const v1::InfoRequest*,
                                 v1::InfoResponse* response) override {
    response->set_service(about_.options.service);
    response->set_instance(about_.options.instance);
    response->set_version(std::string(Version()));
    response->set_pid(getpid());
    response->set_started_at(about_.started_at);
    response->set_draining(about_.draining);
    response->set_config(about_.config);
    response->set_commit(std::string(Commit()));
    std::function<std::vector<Problem>()> problems;
    {
      std::lock_guard lock(about_.mutex);
      problems = about_.problems;
    }
    if (problems) {
      for (Problem& problem : problems()) {
        v1::Problem* out = response->add_problems();
        out->set_what(std::move(problem.what));
        out->set_hint(std::move(problem.hint));
      }
    }
    return rpc::Finish(context, Status::Ok());
  }

  grpc::ServerUnaryReactor* Settings(grpc::CallbackServerContext* context,
                                     const v1::SettingsRequest*,
                                     v1::SettingsResponse* response) override {
    response->set_in_force(settings::DumpWhole(reloader_->InForce()));
    return rpc::Finish(context, Status::Ok());
  }

  grpc::ServerUnaryReactor* Reload(grpc::CallbackServerContext* context,
                                   const v1::ReloadRequest* request,
                                   v1::ReloadResponse* response) override {
    return rpc::Unary(pool_, work::Lane::kMutate, context, request, response,
                      [this](const CallContext& /*cc*/, const v1::ReloadRequest& asked,
                             v1::ReloadResponse& answer) { return Step(asked, answer); });
  }

  grpc::ServerUnaryReactor* Operations(grpc::CallbackServerContext* context,
                                       const v1::OperationsRequest* request,
                                       v1::OperationsResponse* response) override {
    TellOperations(pool_.operations(), *request, *response);
    return rpc::Finish(context, Status::Ok());
  }

 private:
  Status Step(const v1::ReloadRequest& asked, v1::ReloadResponse& answer) {
    switch (asked.step()) {
      case v1::ReloadRequest::CHECK: {
        const Reloader::Outcome outcome = CRISP_TRY(reloader_->Check());
        answer.set_fingerprint(outcome.fingerprint);
        for (const std::string& key : outcome.changed) answer.add_changed(key);
        for (const std::string& key : outcome.needs_restart) answer.add_needs_restart(key);
        return Status::Ok();
      }
      case v1::ReloadRequest::APPLY: return reloader_->Apply(asked.fingerprint());
      case v1::ReloadRequest::UNDO: return reloader_->Undo(asked.fingerprint());
      default: return InvalidArgument("step: {} is none", static_cast<int>(asked.step()));
    }
  }

  About& about_;
  work::Pool& pool_;
  std::optional<Reloader>& reloader_;
};

Status InitLog(const Options& options, const settings::Settings& settings) {
  log::Options log_options;
  log_options.level = CRISP_TRY(log::ParseLevel(options.log_level.value_or(settings.log.level)));
  log_options.format = CRISP_TRY(log::ParseFormat(settings.log.format));
  log_options.service = options.service;
  log_options.instance = options.instance;
  log::Init(log_options);
  return Status::Ok();
}

/// One process for each instance. A run that was killed may have left a child on its way to
/// exec(2), which has the lock until it is there: that is waited for.
Result<os::FileLock> LockInstance(const std::string& path) {
  constexpr std::chrono::seconds kPatience(2);
  constexpr std::chrono::milliseconds kRound(5);
  const CallContext cc = CallContext::Background(kPatience);
  while (true) {
    Result<os::FileLock> lock = os::FileLock::TryLock(path);
    if (lock.code() != Code::kUnavailable || !cc.Check().ok()) return lock;
    static_cast<void>(work::Pause(cc, kRound).ok());
  }
}

Status TakeLogLevel(const settings::Settings& settings) {
  log::SetLevel(CRISP_TRY(log::ParseLevel(settings.log.level)));
  return Status::Ok();
}

}  // namespace

/// Members in the order in which they come up; they go down in reverse.
struct Daemon::Impl {
  explicit Impl(const Options& options) : about{.options = options} {}

  About about;
  settings::Settings settings;
  std::optional<os::FileLock> lock;
  std::optional<os::Confined> confined;
  metrics::Registry metrics;
  std::unique_ptr<OtlpExporter> traces;  // null: off
  std::optional<RpcMetrics> rpc_metrics;
  loop::Loop loop;
  PoolMetrics pool_metrics{metrics, about.options.service};
  work::Pool pool{
      work::PoolOptions{.on_wait = [this](work::Lane lane, std::chrono::nanoseconds waited) {
        pool_metrics.OnWait(lane, waited);
      }}};
  std::optional<Reloader> reloader;
  AboutService own_service{about, pool, reloader};
  std::vector<grpc::Service*> services;
  std::vector<std::string> sockets;
  std::vector<rpc::Listener> listeners;  // handed over by who started us; until Serve
  std::vector<std::function<void()>> on_drain;
  std::function<bool()> has_records;
  bool leads_reloads = false;
  loop::SignalWatch signals;
  loop::Timer idle;
  loop::Timer watchdog;
  std::uint64_t calls_seen = 0;  // on the loop
  bool released = false;         // on the loop
  std::unique_ptr<http::Server> metrics_server;
  std::optional<Status> quiesced;  // what Quiesce has come to; the main thread's

  std::mutex mutex;
  std::condition_variable changed;
  bool stop = false;

  void RequestStop() {
    std::lock_guard guard(mutex);
    stop = true;
    changed.notify_all();
  }

  void OnSignal(int signal) {
    if (signal == SIGHUP) {
      log::IfError(
          "reload refused",
          pool.Submit(work::Lane::kBulk, CallContext::Background(kReload), [this] { Reload(); }));
      return;
    }
    if (about.draining) {
      log::Warn("told twice to stop: leaving at once");
      _exit(0);
    }
    log::Info("told to stop", {{"signal", signal}});
    RequestStop();
  }

  /// Once in each quiet time, and after the start.
  void OnIdleCheck() {
    const std::uint64_t calls = rpc_metrics->calls();
    const bool quiet = std::exchange(calls_seen, calls) == calls;
    if (quiet && !released) ReleaseIdleMemory();
    released = quiet;
  }

  void Reload() {
    const CallContext cc = CallContext::Background(kReload, "reload");
    const Status done = leads_reloads ? ReloadNode(cc, settings.run_root).status() : ReloadAlone();
    if (!done.ok()) log::Error("settings not reloaded, the old ones hold", {{"error", done}});
  }

  Status ReloadAlone() {
    const Reloader::Outcome outcome = CRISP_TRY(reloader->Check());
    return reloader->Apply(outcome.fingerprint);
  }

  Status ServeMetrics() {
    const std::string path = settings.MetricsSocket(about.options.service, about.options.instance);
    metrics_server = CRISP_TRY(http::Server::ListenUnix(
        loop, path, 0660, [this](const http::ServerRequest& request, const http::Respond& respond) {
          if (request.target != "/metrics") return respond({.status = 404, .body = "not found\n"});
          RenderMetrics([respond](Result<std::string> page) {
            if (!page.ok()) {
              return respond({.status = 503, .body = page.status().message() + "\n"});
            }
            respond({.content_type = "text/plain; version=0.0.4; charset=utf-8",
                     .body = *std::move(page)});
          });
        }));
    return Status::Ok();
  }

  void RenderMetrics(const std::function<void(Result<std::string>)>& done) {
    const Status submitted = pool.Submit(
        work::Lane::kFast, CallContext::Background(kRender, "metrics"),
        [this, done] { done(metrics.Render()); }, [done](const Status& why) { done(why); });
    if (!submitted.ok()) done(submitted);
  }

  std::string RecordsMark() const {
    return fmt::format("{}/{}/{}.records", settings.run_root, about.options.service,
                       about.options.instance);
  }

  Status Serve();

  Status Quiesce() {
    if (quiesced) return *quiesced;
    pool.Stop();
    const bool ended = pool.WaitEnded(kLastWork);
    metrics_server.reset();
    if (ended) loop.Stop();
    quiesced = ended ? Status::Ok() : DeadlineExceeded("work is still under way");
    return *quiesced;
  }
};

Daemon::Daemon(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Daemon::~Daemon() {
  impl_->metrics_server.reset();
  impl_->pool.Stop();
  impl_->loop.Stop();
}

Result<std::unique_ptr<Daemon>> Daemon::Create(const Options& options,
                                               const MakeConfinePlan& confine) {
  LimitMemory();
  umask(0022);
  // A write to a child or a client that is gone is an error, not an end.
  CRISP_CHECK(std::signal(SIGPIPE, SIG_IGN) != SIG_ERR);

  auto impl = std::make_unique<Impl>(options);
  impl->about.started_at = std::chrono::duration_cast<std::chrono::nanoseconds>(
                               std::chrono::system_clock::now().time_since_epoch())
                               .count();
  std::error_code no_directory;  // we are in one that is gone: then nobody knows
  impl->about.config =
      std::filesystem::absolute(options.config, no_directory).lexically_normal().string();
  impl->listeners = CRISP_TRY(TakeListeners());
  impl->settings = CRISP_TRY(settings::Load(options.config));
  CRISP_TRY(InitLog(options, impl->settings));
  impl->reloader.emplace(options.service, options.config, impl->settings);
  if (!options.log_level.has_value())
    impl->reloader->Add({.check = nullptr, .apply = TakeLogLevel});

  const std::string socket = impl->settings.Socket(options.service, options.instance);
  const std::string directory = std::filesystem::path(socket).parent_path();
  // Others may pass through: to the CRI socket, and containers with a user namespace to their root
  // file systems. The daemons' own sockets are root's.
  CRISP_TRY(os::MakeDirs(impl->settings.run_root, 0711));
  CRISP_TRY(os::MakeDirs(directory, 0711));
  impl->lock =
      CRISP_TRY(LockInstance(fmt::format("{}/{}.lock", directory, options.instance))
                    .While("instance {} of {} runs already", options.instance, options.service));
  impl->sockets.push_back(socket);
  impl->confined = CRISP_TRY(ConfineBy(confine, impl->settings, options));
  if (const settings::Tracing& tracing = impl->settings.tracing; !tracing.endpoint.empty()) {
    impl->traces = std::make_unique<OtlpExporter>(
        tracing.endpoint, tracing.sampling_per_million,
        TraceSource{options.service, options.instance, std::string(Version())}, impl->metrics);
  }

  impl->rpc_metrics.emplace(impl->metrics, options.service);
  metrics::AddProcessMetrics(impl->metrics);
  impl->pool_metrics.Watch(impl->pool);
  impl->metrics
      .AddGauge(fmt::format("crisp_{}_build_info", options.service),
                "1, with the version and the commit that it was built from",
                {{"version", std::string(Version())}, {"commit", std::string(Commit())}})
      .Set(1);

  Impl* raw = impl.get();
  impl->signals =
      impl->loop.OnSignals({SIGTERM, SIGINT, SIGHUP}, [raw](int signal) { raw->OnSignal(signal); });
  impl->idle = impl->loop.Every(kIdle, [raw] { raw->OnIdleCheck(); });
  // From the loop: whatever blocks that is a bug, which a restart ends.
  if (const auto period = WatchdogPeriod()) {
    impl->watchdog = impl->loop.Every(
        *period, [] { log::IfError("systemd was not told", Notify("WATCHDOG=1")); });
  }
  impl->loop.Start();
  return std::unique_ptr<Daemon>(new Daemon(std::move(impl)));
}

const Options& Daemon::options() const { return impl_->about.options; }
const settings::Settings& Daemon::settings() const { return impl_->settings; }
const std::string& Daemon::instance() const { return impl_->about.options.instance; }
loop::Loop& Daemon::loop() { return impl_->loop; }
work::Pool& Daemon::pool() { return impl_->pool; }
metrics::Registry& Daemon::metrics() { return impl_->metrics; }
const std::optional<os::Confined>& Daemon::confined() const { return impl_->confined; }

void Daemon::AddService(grpc::Service* service) { impl_->services.push_back(service); }
void Daemon::AddSocket(const std::string& path) { impl_->sockets.push_back(path); }
void Daemon::SetProblems(std::function<std::vector<Problem>()> problems) {
  std::lock_guard lock(impl_->about.mutex);
  impl_->about.problems = std::move(problems);
}
void Daemon::OnDrain(std::function<void()> fn) { impl_->on_drain.push_back(std::move(fn)); }
void Daemon::OnReload(Reloader::Part part) { impl_->reloader->Add(std::move(part)); }
void Daemon::LeadReloads() { impl_->leads_reloads = true; }
Status Daemon::MarkRecords(std::function<bool()> has_records) {
  impl_->has_records = std::move(has_records);
  return os::WriteFile(impl_->RecordsMark(), "");
}
void Daemon::RenderMetrics(const std::function<void(Result<std::string>)>& done) {
  impl_->RenderMetrics(done);
}
void Daemon::RequestStop() { impl_->RequestStop(); }

Status Daemon::Quiesce() { return impl_->Quiesce(); }

Status Daemon::Run() {
  const Status served = impl_->Serve();
  const Status quiet = Quiesce();
  CRISP_TRY(served);
  CRISP_TRY(quiet);
  if (impl_->has_records && !impl_->has_records()) {
    log::IfError("take the mark of records away", os::RemoveFile(impl_->RecordsMark()));
  }
  log::Info("stopped");
  return Status::Ok();
}

Status Daemon::Impl::Serve() {
  CRISP_TRY(ServeMetrics());
  for (const std::string& path : sockets) {
    const std::string directory = std::filesystem::path(path).parent_path();
    if (!os::Exists(directory)) CRISP_TRY(os::MakeDirs(directory, 0711));
  }
  rpc::Server server({.sockets = sockets, .observer = &*rpc_metrics});
  for (rpc::Listener& listener : std::exchange(listeners, {})) {
    log::Info("a socket was handed over", {{"socket", listener.path()}});
    server.AddListener(std::move(listener));
  }
  server.AddService(&own_service);
  for (grpc::Service* service : services) server.AddService(service);
  CRISP_TRY(server.Start());
  server.SetServing(true);
  log::IfError("systemd was not told", Notify("READY=1"));
  log::Info("serving", {{"socket", sockets.back()}, {"version", Version()}});

  {
    std::unique_lock guard(mutex);
    changed.wait(guard, [this] { return stop; });
  }
  about.draining = true;
  log::IfError("systemd was not told", Notify("STOPPING=1"));
  server.SetServing(false);
  server.Close();
  for (const auto& fn : on_drain) fn();
  server.Shutdown(kDrain);
  return Status::Ok();
}

namespace {

/// What --check-config does: says what is wrong, or nothing.
int CheckOnly(const Options& options, const CheckSettings& check) {
  const auto loaded = settings::LoadFingerprinted(options.config);
  Status status = loaded.status();
  if (loaded.ok() && check) status = loaded->Located(check(loaded->settings, options));
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", status.message().c_str());
  return kWrongSettings;
}

}  // namespace

int Main(int argc, const char* const* argv, std::string_view service,
         const std::function<Result<std::unique_ptr<App>>(Daemon&)>& make,
         const MakeConfinePlan& confine, const CheckSettings& check) {
  const ParsedFlags flags = ParseFlags(argc, argv, service);
  if (!flags.options.has_value()) return flags.exit_code;
  if (flags.check_only) return CheckOnly(*flags.options, check);

  const Status ran = [&]() -> Status {
    const std::unique_ptr<Daemon> frame = CRISP_TRY(Daemon::Create(*flags.options, confine));
    if (check) {
      frame->OnReload({.check =
                           [&check, &flags](const settings::Settings& settings) {
                             return check(settings, *flags.options);
                           },
                       .apply = nullptr});
    }
    const std::unique_ptr<App> app = CRISP_TRY(make(*frame));
    const Status served = frame->Run();
    if (const Status quiet = frame->Quiesce(); !quiet.ok()) {
      // Nothing may be taken down under work that still runs. The records know how far it came.
      log::Warn("leaving in the midst of work", {{"error", served}});
      const bool told_to = served.code() == quiet.code();
      _exit(told_to ? 0 : 1);
    }
    return served;
  }();
  if (!ran.ok()) {
    const auto loaded = settings::LoadFingerprinted(flags.options->config);
    log::Fatal("cannot run", {{"error", loaded.ok() ? loaded->Located(ran) : ran}});
    // Not what is only known later, or a file that is not there yet: that may come right by itself.
    return loaded.code() == Code::kInvalidArgument ? kWrongSettings : 1;
  }
  return 0;
}

}  // namespace crisp::daemon
