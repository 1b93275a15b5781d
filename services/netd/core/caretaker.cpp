#include "services/netd/core/caretaker.h"

#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "libs/base/cleanup.h"
#include "libs/base/try.h"
#include "libs/log/log.h"
#include "services/netd/core/conf_dirs.h"

namespace crisp::netd {
namespace {

constexpr std::chrono::seconds kBeat(1);
/// An installer writes several files: one look for all of them.
constexpr std::chrono::milliseconds kDebounce(100);
constexpr std::chrono::seconds kLookTimeout(30);
/// Between checks of the host ports' table, which a reload of the firewall may have taken away.
constexpr std::chrono::seconds kSync(30);
constexpr std::chrono::seconds kSyncTimeout(30);
constexpr std::chrono::seconds kGcTimeout(60);

SteadyTime Now() { return std::chrono::steady_clock::now(); }

}  // namespace

Caretaker::Caretaker(const Config& config, loop::Loop& loop, work::Pool& pool, Readiness& readiness,
                     Networks& networks)
    : config_(config), loop_(loop), pool_(pool), readiness_(readiness), networks_(networks) {}

void Caretaker::Start() {
  const auto beat = [weak = weak_from_this()] {
    if (const std::shared_ptr<Caretaker> self = weak.lock()) self->OnBeat();
  };
  loop_.Post(beat);
  const std::scoped_lock lock(timers_mutex_);
  beat_ = loop_.Every(kBeat, beat);
}

void Caretaker::Stop() {
  stop_.request_stop();
  const std::scoped_lock lock(timers_mutex_);
  beat_.Cancel();
  debounce_.Cancel();
}

CallContext Caretaker::Call(std::chrono::nanoseconds timeout) const {
  return CallContext(SteadyTime::max(), stop_.get_token(), "caretaker").Within(timeout);
}

void Caretaker::Submit(work::Lane lane, std::atomic<bool>& running, void (Caretaker::*task)()) {
  if (stop_.stop_requested() || running.exchange(true)) return;
  const auto run = [self = shared_from_this(), &running, task] {
    const Cleanup ended([&running] { running = false; });
    (self.get()->*task)();
  };
  const auto dropped = [self = shared_from_this(), &running](const Status&) { running = false; };
  if (!pool_.Submit(lane, CallContext(), run, dropped).ok()) running = false;
}

void Caretaker::OnBeat() { Submit(work::Lane::kWait, beating_, &Caretaker::Beat); }

void Caretaker::OnChange() {
  if (change_pending_.exchange(true)) return;
  const std::scoped_lock lock(timers_mutex_);
  debounce_ = loop_.After(kDebounce, [weak = weak_from_this()] {
    const std::shared_ptr<Caretaker> self = weak.lock();
    if (self == nullptr) return;
    self->change_pending_ = false;
    self->readiness_.Wake();
    self->next_look_ = SteadyTime();
    self->Submit(work::Lane::kWait, self->looking_, &Caretaker::Look);
  });
}

void Caretaker::Beat() {
  WatchDirectories();
  UndoOwed();
  // While it is not ready, often: a STATUS that becomes well again tells nobody.
  const NetworkState state = readiness_.State(Call(kLookTimeout));
  if (!state.ready || state.in_grace || Now() >= next_look_.load()) {
    Submit(work::Lane::kWait, looking_, &Caretaker::Look);
  }
  if (Now() >= next_sync_) {
    next_sync_ = Now() + kSync;
    Submit(work::Lane::kBulk, syncing_, &Caretaker::SyncHostPorts);
  }
  if (networks_.WantsCheckpoint()) {
    Submit(work::Lane::kBulk, checkpointing_, &Caretaker::Checkpoint);
  }
  if (networks_.Reconciled() && Now() >= next_gc_.load()) {
    Submit(work::Lane::kBulk, collecting_, &Caretaker::CollectGarbage);
  }
}

void Caretaker::Look() {
  next_look_ = Now() + config_.status_interval;
  static_cast<void>(readiness_.Look(Call(kLookTimeout)).ok());  // it is remembered and logged there
}

void Caretaker::CollectGarbage() {
  next_gc_ = Now() + config_.gc_interval;
  const Status done = networks_.CollectGarbage(Call(kGcTimeout));
  log::IfError("collect the networks' garbage", done);
  if (!done.ok()) next_gc_ = Now() + std::min(config_.gc_interval, config_.gc_retry);
}

void Caretaker::SyncHostPorts() {
  log::IfError("host ports", networks_.SyncHostPorts(Call(kSyncTimeout)));
}

void Caretaker::Checkpoint() { log::IfError("move on the records' log", networks_.Checkpoint()); }

/// Also those that appear later, or are made anew.
void Caretaker::WatchDirectories() {
  std::vector<std::string> directories = PluginFolders(config_.conf_dirs);
  // Those that are gone are not watched for: the directory above tells when they come back.
  std::erase_if(watched_, [this, &directories](const auto& known) {
    const auto has = [&known](const std::vector<std::string>& list) {
      return std::find(list.begin(), list.end(), known.first) != list.end();
    };
    return !has(directories) && !has(config_.conf_dirs) && !has(config_.bin_dirs);
  });
  for (const auto* more : {&config_.conf_dirs, &config_.bin_dirs}) {
    directories.insert(directories.end(), more->begin(), more->end());
  }
  for (const std::string& directory : directories) {
    struct stat info = {};
    const bool exists = ::stat(directory.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
    const Which which = exists ? Which(info.st_dev, info.st_ino) : Which();
    Watched& watched = watched_[directory];
    // Lost and yet the same: another one that was given the number of the old one.
    const bool lost = watched.lost != nullptr && watched.lost->load();
    if (watched.which == which && !lost) continue;
    const bool failed_before = watched.failed;
    watched = {};
    if (const Status status = exists ? Watch(directory, watched) : Status::Ok(); !status.ok()) {
      watched.failed = true;
      if (!failed_before) log::IfError("watch a directory of the network", status);
      continue;
    }
    watched.which = which;
    OnChange();  // what came before the watch, or went with the directory
  }
}

Status Caretaker::Watch(const std::string& directory, Watched& watched) {
  watched.lost = std::make_shared<std::atomic<bool>>(false);
  const auto on_event = [weak = weak_from_this(), lost = watched.lost](const std::string& name,
                                                                       loop::DirEvent event) {
    if (name.empty() && event == loop::DirEvent::kGone) *lost = true;
    if (const std::shared_ptr<Caretaker> self = weak.lock()) self->OnChange();
  };
  watched.watch = CRISP_TRY(loop_.WatchDirectory(directory, on_event));
  return Status::Ok();
}

void Caretaker::UndoOwed() {
  for (const PodId& pod : networks_.TakeDue()) {
    const auto undo = [self = shared_from_this(), pod] {
      log::IfError("undo an attachment",
                   self->networks_.RollBack(self->Call(self->config_.detach_timeout), pod));
    };
    const auto later = [self = shared_from_this(), pod](const Status&) {
      self->networks_.PutBack(pod);
    };
    // In a lane of their own: those that hang hold up neither the reconcile nor the garbage.
    if (!pool_.Submit(work::Lane::kEndFlight, CallContext(), undo, later).ok()) {
      networks_.PutBack(pod);
    }
  }
}

}  // namespace crisp::netd
