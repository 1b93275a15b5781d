#include "libs/daemon/confinement.h"

#include <fmt/ranges.h>

#include <filesystem>

#include "libs/base/try.h"
#include "libs/daemon/daemon.h"
#include "libs/log/log.h"

namespace crisp::daemon {
namespace {

/// Programs that a sanitizer watches need ptrace and paths of its own.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

}  // namespace

os::ConfinePlan BasePlan(const settings::Settings& settings, const Options& options) {
  os::ConfinePlan plan;
  plan.read = {
      // Libraries that are loaded late (name services, character sets), time zones, certificates.
      "/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share", "/etc/ld.so.cache",
      "/etc/localtime",
      // Host names. resolv.conf and hosts get replaced: Confined::Outdated tells.
      "/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf",
      "/etc/services",
      // Itself, and what a kernel interface shows to whoever may see it: not other processes'
      // memory.
      "/proc", "/sys/devices/system/cpu", "/dev/urandom", "/dev/random"};
  const std::filesystem::path config(options.config);
  const std::string directory = config.parent_path();
  if (directory == "/" || directory == "/etc") {
    plan.read.push_back(options.config);
    plan.read.push_back(options.config + ".d");
  } else {
    plan.read.push_back(directory);
  }
  plan.write = {settings.run_root + "/" + options.service, "/dev/null"};
  return plan;
}

Result<std::optional<os::Confined>> ConfineBy(const MakeConfinePlan& make,
                                              const settings::Settings& settings,
                                              const Options& options) {
  if (!make) return std::optional<os::Confined>();
  const std::optional<os::ConfinePlan> plan = CRISP_TRY(make(settings, options));
  if (!plan || kSanitized) {
    log::Warn("this process keeps all its privileges",
              {{"why", plan ? "a sanitizer is built in" : "the settings say so"}});
    return std::optional<os::Confined>();
  }
  std::optional<os::Confined> confined = CRISP_TRY(os::Confine(*plan).While("confine"));
  if (confined->landlock_abi() == 0)
    log::Warn("this kernel has no Landlock: paths and ports are not limited, the rest is");
  log::Info("confined", {{"landlock", confined->landlock_abi()},
                         {"capabilities", fmt::format("{}", fmt::join(plan->capabilities, " "))}});
  return confined;
}

}  // namespace crisp::daemon
