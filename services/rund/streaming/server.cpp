#include "services/rund/streaming/server.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <string_view>
#include <utility>

#include "libs/base/guarded.h"
#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/loop/loop.h"
#include "libs/os/file_stamp.h"
#include "services/rund/streaming/front.h"
#include "services/rund/streaming/tokens.h"

namespace crisp::rund::streaming {
namespace {

// For a certificate to be read.
constexpr std::chrono::seconds kReadTime{30};
constexpr std::size_t kMaxSessions = 1000;
// For clients to hear that we are going.
constexpr std::chrono::milliseconds kFarewell{1000};

/// To see that one of them was replaced.
std::string StampOf(const TlsFiles& files) {
  return os::FileStamp(files.certificate) + os::FileStamp(files.key);
}

std::string_view KindOf(const Request& request) {
  constexpr std::string_view kKinds[] = {"exec", "attach", "portforward"};
  return kKinds[request.index()];
}

}  // namespace

struct Server::Impl {
  Impl(ServerOptions opts, Backend back, work::Pool& work, Clock& time)
      : options(std::move(opts)),
        backend(std::move(back)),
        pool(work),
        clock(time),
        tokens(time),
        env(loop, work, backend) {
    env.execs.start_timeout = options.start_timeout;
  }

  struct Running {
    std::uint64_t traffic = 0;
    SteadyTime moved;
    bool stopped = false;
  };
  /// What other threads ask for.
  struct Shown {
    std::string url;
    Status problem;
  };

  bool wants_tls() const { return !options.tls.certificate.empty(); }
  void TryListen();
  void Failed(const Status& why);
  /// On a pool thread; ~Server waits for it.
  Status Submit(std::function<void()> job, std::function<void(const Status&)> dropped);
  void TryAgain();
  /// On a pool thread, or before the loop runs.
  void LoadCertificate();
  UpgradeAnswer OnRequest(const UpgradeRequest& request);
  void OnWire(const Request& request, const Agreed& agreed, std::shared_ptr<Wire> wire);
  void OnOver(const SessionPtr& session);
  void Check();
  void CheckTls();
  void OnRenewed(const std::string& stamp, const Result<std::shared_ptr<internal::Tls>>& loaded);

  const ServerOptions options;
  const Backend backend;
  work::Pool& pool;
  Clock& clock;
  Tokens tokens;
  loop::Loop loop;
  Env env;

  // On the loop.
  std::unique_ptr<Front> front;
  std::shared_ptr<internal::Tls> tls;
  std::string tls_stamp;
  std::map<SessionPtr, Running> running;
  loop::Timer retry, check, tls_check;
  // Requests that were told to go on, and are no sessions yet.
  const std::shared_ptr<std::size_t> upgrading = std::make_shared<std::size_t>(0);
  bool looking = false;  // at the certificate's files
  bool ending = false;

  Guarded<Shown> shown;
  std::mutex mutex;  // of what follows
  std::condition_variable changed;
  std::size_t count = 0;
  std::size_t jobs = 0;
};

void Server::Impl::TryListen() {
  if (ending || front) return;
  auto made = Front::Listen(loop, options.address, tls,
                            [this](const UpgradeRequest& request) { return OnRequest(request); });
  if (!made.ok()) return Failed(made.status());
  front = *std::move(made);
  auto now = shown.lock();
  now->url = front->url();
  now->problem = Status::Ok();
  log::Info("streaming listens", {{"url", front->url()}});
}

void Server::Impl::Failed(const Status& why) {
  auto now = shown.lock();
  if (now->problem.ok()) log::Error("streaming does not listen", {{"error", why}});
  now->problem = why;
  retry = loop.After(options.retry, [this] { TryAgain(); });
}

void Server::Impl::TryAgain() {
  if (ending) return;
  if (!wants_tls() || tls) return TryListen();
  const Status submitted =
      Submit([this] { LoadCertificate(); },
             [this](const Status& why) { loop.Post([this, why] { Failed(why); }); });
  if (!submitted.ok()) Failed(submitted);
}

Status Server::Impl::Submit(std::function<void()> job, std::function<void(const Status&)> dropped) {
  {
    const std::lock_guard lock(mutex);
    ++jobs;
  }
  const std::shared_ptr<void> done(nullptr, [this](void*) {
    const std::lock_guard lock(mutex);
    --jobs;
    changed.notify_all();
  });
  const auto cc = CallContext::Background(kReadTime, "streaming certificate");
  return pool.Submit(
      work::Lane::kBulk, cc, [done, job = std::move(job)] { job(); },
      [done, dropped = std::move(dropped)](const Status& why) { dropped(why); });
}

void Server::Impl::LoadCertificate() {
  const std::string stamp = StampOf(options.tls);
  auto loaded = LoadTls(options.tls);
  loop.Post([this, stamp, loaded = std::move(loaded)] {
    if (!loaded.ok()) return Failed(loaded.status());
    tls_stamp = stamp;
    tls = *loaded;
    TryListen();
  });
}

UpgradeAnswer Server::Impl::OnRequest(const UpgradeRequest& request) {
  const auto refuse = [](int status, std::string text) {
    return UpgradeAnswer{.status = status, .text = std::move(text), .protocol = "", .on_wire = {}};
  };
  const std::size_t slash = request.path.rfind('/');
  if (slash == 0 || slash == std::string::npos) return refuse(404, "there is nothing here");
  const std::string token = request.path.substr(slash + 1);
  const auto found = tokens.Peek(token);
  if (!found.ok() || request.path.substr(1, slash - 1) != KindOf(*found)) {
    return refuse(404, "the URL is unknown, was used already, or is too old");
  }
  if (!request.websocket && !request.spdy) {
    return refuse(400, "an upgrade to SPDY/3.1 or websocket is needed here");
  }
  const auto agreed = Agree(*found, request.websocket, request.protocols);
  if (!agreed.ok()) return refuse(403, agreed.status().message());
  if (ending) return refuse(503, "rund is stopping");
  if (running.size() + *upgrading >= kMaxSessions) return refuse(503, "too many sessions");
  // Here, not when the client has got our answer: it must not be good for two at the same time.
  tokens.Use(token);
  ++*upgrading;
  const std::shared_ptr<void> slot(nullptr, [count = upgrading](void*) { --*count; });
  return {.status = 101,
          .text = "",
          .protocol = agreed->name,
          .on_wire = [this, slot, wanted = *found, chosen = *agreed](std::shared_ptr<Wire> wire) {
            OnWire(wanted, chosen, std::move(wire));
          }};
}

void Server::Impl::OnWire(const Request& request, const Agreed& agreed,
                          std::shared_ptr<Wire> wire) {
  const SessionPtr session = MakeSession(env, request, agreed, std::move(wire));
  running[session] = {.traffic = 0, .moved = clock.Now()};
  {
    const std::lock_guard lock(mutex);
    count = running.size();
  }
  log::Debug("streaming session", {{"kind", KindOf(request)}, {"protocol", agreed.name}});
  session->Begin([this, weak = std::weak_ptr(session)] {
    if (const auto self = weak.lock()) OnOver(self);
  });
  if (ending) session->Stop(Unavailable("rund is stopping"));
}

void Server::Impl::OnOver(const SessionPtr& session) {
  running.erase(session);
  const std::lock_guard lock(mutex);
  count = running.size();
  changed.notify_all();
}

void Server::Impl::Check() {
  tokens.Sweep();
  const SteadyTime now = clock.Now();
  std::vector<SessionPtr> all;
  for (const auto& [session, state] : running) all.push_back(session);
  for (const SessionPtr& session : all) {
    const auto found = running.find(session);
    if (found == running.end()) continue;
    Running& state = found->second;
    const std::uint64_t traffic = session->connection().traffic();
    if (std::exchange(state.traffic, traffic) != traffic) state.moved = now;
    if (options.idle_timeout.count() > 0 && now - state.moved >= options.idle_timeout) {
      const Status why =
          DeadlineExceeded("no byte has moved for {} s", options.idle_timeout.count());
      // Whoever was told and is still there does not hear us.
      if (std::exchange(state.stopped, true)) {
        session->connection().Abort(why);
      } else {
        session->Stop(why);
      }
    } else {
      session->connection().Check(now);
    }
  }
}

void Server::Impl::CheckTls() {
  // Without any TryAgain is at it.
  if (!tls || std::exchange(looking, true)) return;
  const Status submitted = Submit(
      [this, before = tls_stamp] {
        const std::string stamp = StampOf(options.tls);
        if (stamp == before) return loop.Post([this] { looking = false; });
        auto loaded = LoadTls(options.tls);
        loop.Post([this, stamp, loaded = std::move(loaded)] { OnRenewed(stamp, loaded); });
      },
      [this](const Status&) { loop.Post([this] { looking = false; }); });
  if (!submitted.ok()) looking = false;
}

void Server::Impl::OnRenewed(const std::string& stamp,
                             const Result<std::shared_ptr<internal::Tls>>& loaded) {
  looking = false;
  tls_stamp = stamp;
  if (!loaded.ok()) {
    log::Warn("the streaming certificate was replaced and is not good; the old one stays in use",
              {{"error", loaded.status()}});
    return;
  }
  tls = *loaded;
  if (front) front->SetTls(tls);
  log::Info("streaming certificate renewed");
}

Result<std::unique_ptr<Server>> Server::Start(ServerOptions options, Backend backend,
                                              work::Pool& pool, Clock& clock) {
  auto impl = std::make_unique<Impl>(std::move(options), std::move(backend), pool, clock);
  Impl& self = *impl;
  CRISP_TRY(CheckAddress(self.options.address));
  // Nothing runs on the loop yet.
  if (self.wants_tls()) {
    self.tls_stamp = StampOf(self.options.tls);
    auto loaded = LoadTls(self.options.tls);
    if (loaded.ok()) self.tls = *std::move(loaded);
    if (!loaded.ok()) self.Failed(loaded.status());
    self.tls_check = self.loop.Every(self.options.tls_check, [&self] { self.CheckTls(); });
  }
  if (!self.wants_tls() || self.tls) self.TryListen();
  self.check = self.loop.Every(self.options.check, [&self] { self.Check(); });
  self.loop.Start();
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Server::~Server() {
  EndAll(Unavailable("rund is stopping"));
  impl_->loop.Stop();
  {
    std::unique_lock lock(impl_->mutex);
    impl_->changed.wait(lock, [this] { return impl_->jobs == 0; });
  }
  impl_->env.execs.leaving.clear();
  impl_->running.clear();
  impl_->env.attaches.hubs.clear();
}

Result<std::string> Server::UrlFor(Request request) {
  std::string url;
  {
    auto shown = impl_->shown.lock();
    if (!shown->problem.ok()) {
      return Unavailable("no exec, attach or port-forward now: {}", shown->problem.message());
    }
    url = shown->url;
  }
  if (std::holds_alternative<runtime::v1::ExecRequest>(request) &&
      left() >= impl_->options.max_left) {
    return ResourceExhausted(
        "{} commands of execs run on after their clients have gone: no more are started before "
        "some have ended",
        left());
  }
  const std::string kind(KindOf(request));
  return url + "/" + kind + "/" + CRISP_TRY(impl_->tokens.Put(std::move(request)));
}

void Server::EndAll(const Status& why) {
  Impl& self = *impl_;
  self.shown.lock()->problem = why;
  self.loop.Post([&self, why] {
    if (std::exchange(self.ending, true)) return;
    if (self.front) self.front->Close();
    std::vector<SessionPtr> all;
    for (const auto& [session, state] : self.running) all.push_back(session);
    for (const SessionPtr& session : all) session->Stop(why);
  });
  std::unique_lock lock(self.mutex);
  self.changed.wait_for(lock, kFarewell, [&self] { return self.count == 0; });
}

std::size_t Server::sessions() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->count;
}

std::size_t Server::left() const { return impl_->env.execs.leaving_count; }

Status Server::problem() const { return impl_->shown.lock()->problem; }

}  // namespace crisp::rund::streaming
