#include "services/rund/runtime/runtimes.h"

#include <fmt/ranges.h>

#include <future>
#include <utility>

#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/os/file_stamp.h"
#include "libs/os/mount.h"
#include "services/rund/spec/base_spec.h"

namespace crisp::rund {
namespace {

using Configs = std::map<std::string, RuntimeConfig>;
using Infos = std::map<std::string, Result<RuntimeInfo>>;

Status NoShimYet(const std::string& name) {
  return Unimplemented(
      "rund.runtimes.{}.type is vm (containerd's shim v2), which crisp does not speak yet; use an "
      "OCI runtime with type: oci",
      name);
}

/// A runtime tells what it knows; the kernel below may be older.
Status KernelHasRecursiveReadOnly(const std::string& run_dir) {
  Status probed = os::ProbeRecursiveReadOnly(run_dir);
  if (!probed.ok()) log::Info("no handler has recursive read-only mounts", {{"reason", probed}});
  return probed;
}

/// What the settings and the kernel have to say to what the program told.
Result<RuntimeInfo> WithSettings(RuntimeInfo info, const RuntimeConfig& config,
                                 bool recursive_read_only) {
  info.base_spec = {};
  if (!config.base_spec.empty()) {
    info.base_spec = CRISP_TRY(LoadBaseSpec(config.base_spec).While("rund.runtimes.{}", info.name));
  }
  info.recursive_read_only = info.recursive_read_only && recursive_read_only;
  info.allowed_annotations = config.allowed_annotations;
  info.privileged_without_host_devices = config.privileged_without_host_devices;
  return info;
}

/// All at the same time: one that hangs takes nothing from the others' time.
Infos AskAll(const CallContext& cc, const Configs& configs, const std::string& run_dir,
             const os::Cgroups& cgroups) {
  if (configs.empty()) return {};
  const bool recursive_read_only = KernelHasRecursiveReadOnly(run_dir).ok();
  std::map<std::string, std::future<Result<RuntimeInfo>>> asked;
  for (const auto& entry : configs) {
    asked[entry.first] =
        std::async(std::launch::async, [&cc, &cgroups, &entry, recursive_read_only] {
          const auto& [name, config] = entry;
          auto info = ProbeRuntime(cc.Within(Runtimes::kProbeTime), name, config.path, cgroups);
          return info.ok() ? WithSettings(*std::move(info), config, recursive_read_only) : info;
        });
  }
  Infos infos;
  for (auto& [name, answer] : asked) infos.emplace(name, answer.get());
  return infos;
}

/// Of one that does not say who it is.
RuntimeInfo InfoByPath(const std::string& name, const std::string& path) {
  RuntimeInfo info;
  info.name = name;
  info.path = path;
  info.state_in_root = KeepsStateInRoot(path);
  return info;
}

bool IsSameProgram(const OciRuntime& one, const OciRuntime& other) {
  return one.info().path == other.info().path && one.options() == other.options();
}

}  // namespace

void Runtimes::Table::Add(const std::string& name, const RuntimeConfig& config,
                          Result<RuntimeInfo> info) {
  if (info.ok()) {
    working.emplace(name, OciRuntime(*std::move(info), config));
    return;
  }
  // The other handlers' absence is usual; whoever wants it finds the reason in the status.
  log::Info("runtime handler is not offered", {{"handler", name}, {"reason", info.status()}});
  broken.emplace(name, OciRuntime(InfoByPath(name, config.path), config));
  awaited.emplace(name, config);
  missing.push_back({name, std::move(info).status()});
}

Status Runtimes::Table::WhyMissing(const std::string& name) const {
  for (const Missing& one : missing) {
    if (one.name == name) return one.why;
  }
  return Status::Ok();
}

void Runtimes::Table::Forget(const std::string& name) {
  broken.erase(name);
  awaited.erase(name);
  std::erase_if(missing, [&name](const Missing& one) { return one.name == name; });
}

Runtimes::Table Runtimes::Ask(const CallContext& cc, const Config& config,
                              const os::Cgroups& cgroups, const Configs& kept) {
  Table table;
  table.default_name = config.default_runtime;
  table.run_dir = config.layout.run_dir;
  Configs programs = kept;
  for (const auto& [name, runtime] : config.runtimes) {
    if (!runtime.vm) {
      programs.emplace(name, runtime);
      continue;
    }
    // Nothing ever ran under it, so there is nothing to take down by it either.
    table.missing.push_back({name, NoShimYet(name)});
    log::Info("runtime handler is not offered",
              {{"handler", name}, {"reason", table.missing.back().why}});
  }
  for (auto& [name, info] : AskAll(cc, programs, table.run_dir, cgroups)) {
    const RuntimeConfig& runtime = programs.at(name);
    if (!kept.contains(name)) {
      table.Add(name, runtime, std::move(info));
      continue;
    }
    log::Info("runtime handler is there for its pods only", {{"handler", name}});
    table.broken.emplace(
        name, OciRuntime(std::move(info).value_or(InfoByPath(name, runtime.path)), runtime));
  }
  return table;
}

Runtimes Runtimes::Probe(const CallContext& cc, const Config& config, const os::Cgroups& cgroups,
                         const Configs& kept) {
  Runtimes runtimes;
  runtimes.shared_->tables.lock()->push_back(Ask(cc, config, cgroups, kept));
  return runtimes;
}

Status Runtimes::Table::CheckDefault(const Table& before) const {
  const std::string& name = default_name;
  if (working.contains(name)) return Status::Ok();
  // A reload that leaves what is broken as it is makes nothing worse.
  const auto now = broken.find(name);
  const auto was = before.broken.find(name);
  if (before.default_name == name && now != broken.end() && was != before.broken.end() &&
      !before.working.contains(name) && IsSameProgram(was->second, now->second)) {
    return Status::Ok();
  }
  return FailedPrecondition("rund.default_runtime: '{}' does not work: {}", name,
                            WhyMissing(name).message());
}

/// Programs that did not answer in time are what they were before.
void Runtimes::Table::KeepSilent(const Table& before, const Config& config) {
  const std::vector<Missing> all = missing;
  for (const auto& [name, why] : all) {
    const auto known = before.working.find(name);
    if (why.code() != Code::kDeadlineExceeded || known == before.working.end()) continue;
    if (!IsSameProgram(known->second, broken.at(name))) continue;
    const RuntimeConfig& fresh = config.runtimes.at(name);
    const RuntimeInfo& info = known->second.info();
    auto same = WithSettings(info, fresh, info.recursive_read_only);
    if (!same.ok()) continue;
    log::Warn("a runtime did not answer; it is taken for what it was", {{"handler", name}});
    Forget(name);
    Add(name, fresh, std::move(same));
  }
}

/// Handlers that are configured no more, or do not work any more, are there for their pods.
void Runtimes::Table::KeepGone(const Table& before) {
  for (const auto* known : {&before.working, &before.broken}) {
    for (const auto& [name, runtime] : *known) {
      if (working.contains(name)) continue;
      const auto [same, added] = broken.emplace(name, runtime);
      // More is known of it than of one that has never worked.
      if (!added && IsSameProgram(runtime, same->second)) same->second = runtime;
    }
  }
}

Result<Runtimes::Table> Runtimes::Next(const CallContext& cc, const Config& config,
                                       const os::Cgroups& cgroups) const {
  Table next = Ask(cc, config, cgroups, {});
  const Table& before = Now();
  next.KeepSilent(before, config);
  CRISP_TRY(next.CheckDefault(before));
  next.KeepGone(before);
  return next;
}

Status Runtimes::Reload(const CallContext& cc, const Config& config, const os::Cgroups& cgroups) {
  Table next = CRISP_TRY(Next(cc, config, cgroups));
  shared_->tables.lock()->push_back(std::move(next));
  return Status::Ok();
}

Status Runtimes::CheckReload(const CallContext& cc, const Config& config,
                             const os::Cgroups& cgroups) const {
  return Next(cc, config, cgroups).status();
}

void Runtimes::LookAgain(const CallContext& cc, const os::Cgroups& cgroups) {
  const std::unique_lock looking(shared_->looking, std::try_to_lock);
  if (!looking.owns_lock()) return;
  const Table& now = Now();
  Configs programs;
  for (const auto& [name, why] : now.missing) {
    const auto awaited = now.awaited.find(name);
    if (awaited == now.awaited.end()) continue;
    const std::string stamp = os::FileStamp(awaited->second.path);
    const auto [seen, first] = shared_->seen.try_emplace(name, stamp);
    // Of one that has not been looked at yet it is known only whether it was there.
    const bool changed = first ? !stamp.empty() == (why.code() == Code::kNotFound)
                               : std::exchange(seen->second, stamp) != stamp;
    if (changed || why.code() == Code::kDeadlineExceeded) programs.emplace(*awaited);
  }
  Infos infos = AskAll(cc, programs, now.run_dir, cgroups);
  std::erase_if(infos, [&now](const auto& one) {
    const auto& [name, info] = one;
    return !info.ok() && now.WhyMissing(name).message() == info.status().message();
  });
  if (infos.empty()) return;
  Table next = now;
  for (auto& [name, info] : infos) {
    if (info.ok()) log::Info("runtime handler is offered from now on", {{"handler", name}});
    next.Forget(name);
    next.Add(name, programs.at(name), std::move(info));
  }
  auto tables = shared_->tables.lock();
  // A reload meanwhile has asked all of them itself.
  if (&tables->back() == &now) tables->push_back(std::move(next));
}

const Runtimes::Table& Runtimes::Now() const { return shared_->tables.lock()->back(); }

Result<const OciRuntime*> Runtimes::Find(const std::string& handler) const {
  const Table& now = Now();
  const std::string& name = handler.empty() ? now.default_name : handler;
  const auto found = now.working.find(name);
  if (found != now.working.end()) return &found->second;
  if (const Status why = now.WhyMissing(name); !why.ok()) {
    // It is asked again: so may whoever wants it.
    if (why.code() == Code::kDeadlineExceeded)
      return Unavailable("runtime handler '{}' does not answer yet: {}", name, why.message());
    return InvalidArgument("runtime handler '{}' is not available: {}", name, why.message());
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

Result<const OciRuntime*> Runtimes::Kept(const std::string& name) const {
  if (const OciRuntime* runtime = Recorded(name)) return runtime;
  return FailedPrecondition(
      "runtime handler '{}' is not in the settings any more: put it back for what was made under "
      "it",
      name);
}

std::vector<std::string> Runtimes::Names() const {
  std::vector<std::string> names;
  for (const auto& [name, runtime] : Now().working) names.push_back(name);
  return names;
}

}  // namespace crisp::rund
