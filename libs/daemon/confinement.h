#pragma once

#include <functional>
#include <optional>

#include "libs/base/result.h"
#include "libs/os/confine.h"
#include "libs/settings/settings.h"

namespace crisp::daemon {

struct Options;

/// What a daemon keeps of its privileges (nothing: all of them, the settings turn it off). May make
/// the directories that it names.
using MakeConfinePlan = std::function<Result<std::optional<os::ConfinePlan>>(
    const settings::Settings& settings, const Options& options)>;

/// What every daemon needs, whatever else it does: its libraries, its settings (they are read again
/// at SIGHUP), host names, its own directory below run_root.
os::ConfinePlan BasePlan(const settings::Settings& settings, const Options& options);

/// Confines this process as `make` says, and says in the log how far. On the main thread, before
/// any other is made.
Result<std::optional<os::Confined>> ConfineBy(const MakeConfinePlan& make,
                                              const settings::Settings& settings,
                                              const Options& options);

}  // namespace crisp::daemon
