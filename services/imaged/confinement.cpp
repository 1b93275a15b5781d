#include "services/imaged/confinement.h"

#include <cstdlib>
#include <filesystem>

#include "libs/base/try.h"
#include "libs/os/files.h"
#include "services/imaged/core/policy.h"
#include "services/imaged/registry/hosts_toml.h"
#include "services/imaged/store/layout.h"
#include "services/imaged/trust/signature.h"

namespace crisp::imaged {
namespace {

/// The directory of a file, so that the file may be replaced or come later; of one that lies in a
/// directory that is everybody's the file alone.
std::string Around(const std::string& path) {
  const std::string directory = std::filesystem::path(path).parent_path();
  return directory == "/etc" || directory == "/" ? path : directory;
}

/// The policy, the keys that it names now, and signatures that lie on this machine.
Status AllowTrust(const settings::Imaged& imaged, os::ConfinePlan& plan) {
  plan.read.push_back(Around(imaged.policy));
  plan.read.push_back(imaged.registries_d);
  plan.read.emplace_back("/var/lib/containers/sigstore");
  const Result<std::string> text = os::ReadFile(imaged.policy);
  if (!text.ok()) return Status::Ok();  // told of by whoever asks for it
  const Result<Policy> policy = Policy::Parse(*text);
  if (policy.ok())
    for (const std::string& path : policy->KeyPaths()) plan.read.push_back(path);
  const Result<Lookaside> places = Lookaside::Load(imaged.registries_d);
  if (places.ok())
    for (const std::string& path : places->LocalPaths()) plan.read.push_back(path);
  return Status::Ok();
}

/// Where the settings say that mirrors, certificates and credentials are told of.
void AllowRegistries(const settings::Imaged& imaged, os::ConfinePlan& plan) {
  const std::string& conf = imaged.registries_conf;
  if (!conf.empty()) {
    plan.read.push_back(Around(conf));
    plan.read.push_back(conf + ".d");
  }
  if (!imaged.short_name_aliases.empty()) plan.read.push_back(Around(imaged.short_name_aliases));
  if (!imaged.hosts_dir.empty()) {
    plan.read.push_back(imaged.hosts_dir);
    // What its files name may lie anywhere.
    for (std::string& path : HostsToml::TlsFiles(imaged.hosts_dir))
      plan.read.push_back(std::move(path));
  }
  for (const std::string& path : imaged.certs_dirs) plan.read.push_back(path);
  for (const std::string& path : imaged.auth_files) plan.read.push_back(Around(path));
}

}  // namespace

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
  const Layout layout(settings);
  for (const std::string& root : {layout.root(), layout.snapshots_root()}) {
    CRISP_TRY(os::MakeDirs(root, 0700));
    plan.write.push_back(root);
  }

  // How registries are reached, and what they and their signatures are trusted for.
  for (const char* path :
       {"/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/etc/containers", "/etc/docker",
        "/etc/containerd", "/run/containers", "/var/lib/kubelet/config.json", "/root/.docker",
        "/root/.config/containers"})
    plan.read.emplace_back(path);
  for (const char* variable : {"SSL_CERT_FILE", "SSL_CERT_DIR", "REGISTRY_AUTH_FILE"})
    if (const char* path = std::getenv(variable); path != nullptr && *path == '/')
      plan.read.emplace_back(path);
  AllowRegistries(settings.imaged, plan);
  CRISP_TRY(AllowTrust(settings.imaged, plan));
  plan.connect_tcp = true;
  // Credential helpers and gpg. They run as confined as imaged itself.
  plan.programs = true;
  for (const char* path : {"/usr/bin", "/usr/local/bin", "/bin", "/usr/lib", "/usr/libexec", "/lib",
                           "/lib64", "/usr/lib64"})
    plan.execute.emplace_back(path);
  for (const std::string& path : settings.imaged.credential_helper_dirs)
    plan.execute.push_back(path);
  return std::optional<os::ConfinePlan>(std::move(plan));
}

}  // namespace crisp::imaged
