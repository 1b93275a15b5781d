#pragma once

#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "libs/base/guarded.h"
#include "libs/base/result.h"
#include "libs/base/status.h"
#include "libs/settings/settings.h"

namespace crisp::daemon {

/// One daemon's part in a reload: see daemon.v1.Daemon/Reload. Any thread; one step at a time.
class Reloader {
 public:
  struct Part {
    /// What the settings alone do not tell; changes nothing. May be null.
    std::function<Status(const settings::Settings&)> check;
    /// Takes the live keys; gets the old settings again when it has to be undone. May be null.
    std::function<Status(const settings::Settings&)> apply;
  };
  struct Outcome {
    std::string fingerprint;
    std::vector<std::string> changed;        // keys that Apply takes
    std::vector<std::string> needs_restart;  // keys that are other than at the start
  };

  /// `started`: what the daemon runs with.
  Reloader(std::string service, std::string path, settings::Settings started);

  void Add(Part part);
  /// Reads and checks the files. kInvalidArgument: "file:line: key: what".
  Result<Outcome> Check();
  /// Takes what Check has read last, all of it or nothing, and says in the log what is other now.
  /// kAborted: that is not `fingerprint`.
  Status Apply(const std::string& fingerprint);
  /// What the daemon runs with now. Waits for no step.
  settings::Settings InForce() const;
  /// Back to what was before Apply of `fingerprint`; Ok when that is not in force.
  Status Undo(const std::string& fingerprint);

 private:
  struct State {
    Outcome outcome;  // without a fingerprint: of the start
    settings::Settings settings;
  };
  Status Switch(const State& from, const State& to);

  const std::string service_;
  const std::string path_;
  const settings::Settings started_;
  Guarded<settings::Settings> in_force_;
  std::mutex mutex_;  // held over a whole step: they come one after the other
  std::vector<Part> parts_;
  State now_;
  State before_;
  std::optional<State> checked_;
};

}  // namespace crisp::daemon
