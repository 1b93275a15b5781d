#include "services/rund/runtime/runtimes.h"

#include <fmt/ranges.h>

#include "libs/base/try.h"
#include "libs/log/log.h"
#include "services/rund/spec/base_spec.h"

namespace crisp::rund {
namespace {

Result<RuntimeInfo> WithBaseSpec(RuntimeInfo info, const std::string& path) {
  info.base_spec = CRISP_TRY(LoadBaseSpec(path).While("rund.runtimes.{}", info.name));
  return info;
}

}  // namespace

Runtimes Runtimes::Probe(const CallContext& cc, const Config& config, const os::Cgroups& cgroups) {
  Runtimes runtimes;
  runtimes.default_name_ = config.default_runtime;
  for (const auto& [name, runtime] : config.runtimes) {
    auto info = ProbeRuntime(cc.Within(std::chrono::seconds(10)), name, runtime.path, cgroups);
    if (info.ok() && !runtime.base_spec.empty()) info = WithBaseSpec(*info, runtime.base_spec);
    if (info.ok()) {
      runtimes.working_.emplace(name, OciRuntime(*std::move(info), runtime.root));
      continue;
    }
    // The other handlers' absence is usual; whoever wants it finds the reason in the status.
    log::Info("runtime handler is not offered", {{"handler", name}, {"reason", info.status()}});
    RuntimeInfo known;
    known.name = name;
    known.path = runtime.path;
    runtimes.broken_.emplace(name, OciRuntime(std::move(known), runtime.root));
    runtimes.missing_.push_back({name, std::move(info).status()});
  }
  return runtimes;
}

Result<const OciRuntime*> Runtimes::Find(const std::string& handler) const {
  const std::string& name = handler.empty() ? default_name_ : handler;
  const auto found = working_.find(name);
  if (found != working_.end()) return &found->second;
  for (const Missing& missing : missing_) {
    if (missing.name == name) {
      return InvalidArgument("runtime handler '{}' is not available: {}", name,
                             missing.why.message());
    }
  }
  return InvalidArgument("runtime handler '{}' is not known; there are: {}", name,
                         fmt::join(Names(), ", "));
}

const OciRuntime* Runtimes::Recorded(const std::string& name) const {
  if (const auto found = working_.find(name); found != working_.end()) return &found->second;
  if (const auto found = broken_.find(name); found != broken_.end()) return &found->second;
  return nullptr;
}

std::vector<std::string> Runtimes::Names() const {
  std::vector<std::string> names;
  for (const auto& [name, runtime] : working_) names.push_back(name);
  return names;
}

}  // namespace crisp::rund
