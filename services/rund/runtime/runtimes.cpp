#include "services/rund/runtime/runtimes.h"

#include <fmt/ranges.h>

#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/os/mount.h"
#include "services/rund/spec/base_spec.h"

namespace crisp::rund {
namespace {

Status NoShimYet(const std::string& name) {
  return Unimplemented(
      "rund.runtimes.{}.type is vm (containerd's shim v2), which crisp does not speak yet; use an "
      "OCI runtime with type: oci",
      name);
}

Result<RuntimeInfo> WithBaseSpec(RuntimeInfo info, const std::string& path) {
  info.base_spec = CRISP_TRY(LoadBaseSpec(path).While("rund.runtimes.{}", info.name));
  return info;
}

}  // namespace

Runtimes::Table Runtimes::Ask(const CallContext& cc, const Config& config,
                              const os::Cgroups& cgroups) {
  Table table;
  table.default_name = config.default_runtime;
  // A runtime tells what it knows; the kernel below may be older.
  const Status recursive_read_only = os::ProbeRecursiveReadOnly(config.layout.run_dir);
  if (!recursive_read_only.ok()) {
    log::Info("no handler has recursive read-only mounts", {{"reason", recursive_read_only}});
  }
  for (const auto& [name, runtime] : config.runtimes) {
    if (runtime.vm) {
      // Nothing ever ran under it, so there is nothing to take down by it either.
      table.missing.push_back({name, NoShimYet(name)});
      log::Info("runtime handler is not offered",
                {{"handler", name}, {"reason", table.missing.back().why}});
      continue;
    }
    auto info = ProbeRuntime(cc.Within(std::chrono::seconds(10)), name, runtime.path, cgroups);
    if (info.ok() && !runtime.base_spec.empty()) info = WithBaseSpec(*info, runtime.base_spec);
    if (info.ok()) {
      if (!recursive_read_only.ok()) info->recursive_read_only = false;
      info->allowed_annotations = runtime.allowed_annotations;
      info->privileged_without_host_devices = runtime.privileged_without_host_devices;
      table.working.emplace(name, OciRuntime(*std::move(info), runtime));
      continue;
    }
    // The other handlers' absence is usual; whoever wants it finds the reason in the status.
    log::Info("runtime handler is not offered", {{"handler", name}, {"reason", info.status()}});
    RuntimeInfo known;
    known.name = name;
    known.path = runtime.path;
    known.state_in_root = KeepsStateInRoot(runtime.path);
    table.broken.emplace(name, OciRuntime(std::move(known), runtime));
    table.missing.push_back({name, std::move(info).status()});
  }
  return table;
}

Runtimes Runtimes::Probe(const CallContext& cc, const Config& config, const os::Cgroups& cgroups) {
  Runtimes runtimes;
  runtimes.tables_->lock()->push_back(Ask(cc, config, cgroups));
  return runtimes;
}

void Runtimes::Reload(const CallContext& cc, const Config& config, const os::Cgroups& cgroups) {
  Table next = Ask(cc, config, cgroups);
  auto tables = tables_->lock();
  for (const auto* known : {&tables->back().working, &tables->back().broken}) {
    for (const auto& [name, runtime] : *known) {
      if (!next.working.contains(name)) next.broken.emplace(name, runtime);
    }
  }
  tables->push_back(std::move(next));
}

const Runtimes::Table& Runtimes::Now() const { return tables_->lock()->back(); }

Result<const OciRuntime*> Runtimes::Find(const std::string& handler) const {
  const Table& now = Now();
  const std::string& name = handler.empty() ? now.default_name : handler;
  const auto found = now.working.find(name);
  if (found != now.working.end()) return &found->second;
  for (const Missing& missing : now.missing) {
    if (missing.name == name) {
      return InvalidArgument("runtime handler '{}' is not available: {}", name,
                             missing.why.message());
    }
  }
  return InvalidArgument("runtime handler '{}' is not known; there are: {}", name,
                         fmt::join(Names(), ", "));
}

const OciRuntime* Runtimes::Recorded(const std::string& name) const {
  const Table& now = Now();
  if (const auto found = now.working.find(name); found != now.working.end()) return &found->second;
  if (const auto found = now.broken.find(name); found != now.broken.end()) return &found->second;
  return nullptr;
}

std::vector<std::string> Runtimes::Names() const {
  std::vector<std::string> names;
  for (const auto& [name, runtime] : Now().working) names.push_back(name);
  return names;
}

}  // namespace crisp::rund
