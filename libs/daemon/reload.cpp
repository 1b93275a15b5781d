#include "libs/daemon/reload.h"

#include <fmt/ranges.h>

#include <utility>

#include "libs/base/try.h"
#include "libs/log/log.h"

namespace crisp::daemon {

Reloader::Reloader(std::string service, std::string path, settings::Settings started)
    : service_(std::move(service)),
      path_(std::move(path)),
      started_(std::move(started)),
      in_force_(started_),
      now_{{}, started_},
      before_(now_) {}

void Reloader::Add(Part part) {
  std::lock_guard lock(mutex_);
  parts_.push_back(std::move(part));
}

Result<Reloader::Outcome> Reloader::Check() {
  std::lock_guard lock(mutex_);
  checked_.reset();
  settings::Loaded loaded = CRISP_TRY(settings::LoadFingerprinted(path_));
  for (const Part& part : parts_) {
    if (part.check) CRISP_TRY(loaded.Located(part.check(loaded.settings)));
  }
  Outcome outcome;
  outcome.fingerprint = loaded.fingerprint;
  for (settings::Change& change : settings::Changes(now_.settings, loaded.settings, service_)) {
    if (change.live) outcome.changed.push_back(std::move(change.key));
  }
  for (settings::Change& change : settings::Changes(started_, loaded.settings, service_)) {
    if (!change.live) outcome.needs_restart.push_back(std::move(change.key));
  }
  checked_ = State{outcome, std::move(loaded.settings)};
  return outcome;
}

Status Reloader::Apply(const std::string& fingerprint) {
  std::lock_guard lock(mutex_);
  if (!checked_ || checked_->outcome.fingerprint != fingerprint) {
    if (now_.outcome.fingerprint == fingerprint) return Status::Ok();  // asked twice
    return Aborted("the settings have changed since they were checked: try again");
  }
  if (Status taken = Switch(now_, *checked_); !taken.ok()) {
    before_ = now_;  // an Undo of it finds nothing to take back
    return taken;
  }
  before_ = std::exchange(now_, *std::exchange(checked_, std::nullopt));
  *in_force_.lock() = settings::InForce(started_, now_.settings);
  log::Info("settings reloaded",
            {{"changed", fmt::format("{}", fmt::join(now_.outcome.changed, " "))},
             {"needs_restart", fmt::format("{}", fmt::join(now_.outcome.needs_restart, " "))}});
  return Status::Ok();
}

settings::Settings Reloader::InForce() const { return *in_force_.lock(); }

Status Reloader::Undo(const std::string& fingerprint) {
  std::lock_guard lock(mutex_);
  if (now_.outcome.fingerprint != fingerprint) return Status::Ok();
  CRISP_TRY(Switch(now_, before_));
  now_ = before_;
  *in_force_.lock() = settings::InForce(started_, now_.settings);
  log::Warn("settings taken back, another daemon has refused them");
  return Status::Ok();
}

Status Reloader::Switch(const State& from, const State& to) {
  for (std::size_t done = 0; done < parts_.size(); ++done) {
    if (!parts_[done].apply) continue;
    const Status taken = parts_[done].apply(to.settings);
    if (taken.ok()) continue;
    for (std::size_t back = done + 1; back-- > 0;) {
      if (!parts_[back].apply) continue;
      log::IfError("take the old settings back", parts_[back].apply(from.settings));
    }
    return taken;
  }
  return Status::Ok();
}

}  // namespace crisp::daemon
