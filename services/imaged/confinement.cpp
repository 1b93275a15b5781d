#include "services/imaged/confinement.h"

#include <cstdlib>

#include "libs/base/try.h"
#include "libs/os/files.h"
#include "services/imaged/store/layout.h"

namespace crisp::imaged {

Result<std::optional<os::ConfinePlan>> PlanConfinement(const settings::Settings& settings,
                                                       const daemon::Options& options) {
  if (!settings.imaged.confine) return std::optional<os::ConfinePlan>();
  os::ConfinePlan plan = daemon::BasePlan(settings, options);
  plan.capabilities = {
      "CHOWN",         // the owners that a layer's files have
      "DAC_OVERRIDE",  // new files in directories that are, by then, somebody else's
      "FOWNER",        // modes, times and attributes of somebody else's files
      "FSETID",        // setuid and setgid bits of them
      "MKNOD",         // null, zero … of an image; seccomp sees to it that no others are made
      "SETFCAP",       // file capabilities (ping)
  };
  const Layout layout(settings.state_root);
  CRISP_TRY(os::MakeDirs(layout.root(), 0700));
  plan.write.push_back(layout.root());

  // How registries are reached, and what they and their signatures are trusted for.
  for (const char* path :
       {"/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/etc/containers", "/etc/docker",
        "/etc/containerd", "/run/containers", "/var/lib/kubelet/config.json", "/root/.docker",
        "/root/.config/containers"})
    plan.read.emplace_back(path);
  for (const char* variable : {"SSL_CERT_FILE", "SSL_CERT_DIR", "REGISTRY_AUTH_FILE"})
    if (const char* path = std::getenv(variable); path != nullptr && *path == '/')
      plan.read.emplace_back(path);
  plan.connect_tcp = true;
  // Credential helpers and gpg. They run as confined as imaged itself.
  plan.programs = true;
  for (const char* path : {"/usr/bin", "/usr/local/bin", "/bin", "/usr/lib", "/usr/libexec", "/lib",
                           "/lib64", "/usr/lib64"})
    plan.execute.emplace_back(path);
  return std::optional<os::ConfinePlan>(std::move(plan));
}

}  // namespace crisp::imaged
