#include "services/rund/runtime/runc.h"

#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "libs/base/text.h"
#include "libs/base/try.h"
#include "libs/json/json.h"
#include "libs/os/files.h"
#include "libs/os/mount.h"
#include "libs/process/command.h"
#include "libs/work/operations.h"

namespace crisp::rund {
namespace {

constexpr std::size_t kMaxWords = 4096;
// Above: no answer of its own. A wrapper's for a program that it cannot start, or ended by a
// signal.
constexpr int kLastExit = 125;

Result<process::Output> RunRuntime(const CallContext& cc, const OciRuntime& runtime,
                                   std::vector<std::string> args) {
  const work::Stage stage(cc, fmt::format("runtime {}: {}", runtime.info().name, args.front()));
  process::Command command;
  command.program = runtime.info().path;
  command.args = runtime.options();
  std::move(args.begin(), args.end(), std::back_inserter(command.args));
  command.env = process::PlainEnvironment();
  process::RunOptions options;
  options.max_output = KiB(64);
  // `start` hands nothing on, but hooks may keep its pipes: whoever has ended has ended.
  options.drain = std::chrono::milliseconds(20);
  auto output = process::Run(cc, command, options);
  // Nor is a program that is away a container that is not there.
  if (output.code() == Code::kNotFound) return Unavailable("{}", output.status().message());
  return output;
}

// "a \"b\"" → a "b"; `quoted` begins after the opening quote.
std::string Unquote(std::string_view quoted) {
  std::string out;
  for (std::size_t i = 0; i < quoted.size() && quoted[i] != '"'; ++i) {
    if (quoted[i] == '\\' && i + 1 < quoted.size()) {
      ++i;
      out += quoted[i] == 'n' ? ' ' : quoted[i];
    } else {
      out += quoted[i];
    }
  }
  return out;
}

// containerd's shims answer --version as well, and take the OCI's commands for something else.
bool IsShim(std::string_view path, std::string_view version) {
  path.remove_prefix(path.rfind('/') == path.npos ? 0 : path.rfind('/') + 1);
  return path.starts_with("containerd-shim") || version.starts_with("containerd-shim") ||
         version.find("containerd shim") != version.npos;
}

// What the v2 tree beside v1 hierarchies carries: "hugetlb"; "" when it has none, as it should.
std::string UnifiedControllers() {
  const auto mounts = os::ReadMounts();
  if (!mounts.ok()) return "";
  for (const os::MountEntry& mount : *mounts) {
    if (mount.type != "cgroup2") continue;
    const auto controllers = os::ReadFile(mount.mount_point + "/cgroup.controllers");
    if (!controllers.ok()) continue;
    const auto end = controllers->find_last_not_of(" \n");
    return end == std::string::npos ? "" : controllers->substr(0, end + 1);
  }
  return "";
}

/// An older program does not know the command; one that does not answer in time has not said so.
Result<RuntimeAbilities> AbilitiesOf(const CallContext& cc, const RuntimeInfo& info) {
  process::Command command;
  command.program = info.path;
  command.args = {"features"};
  command.env = process::PlainEnvironment();
  const auto out = process::Run(cc, command);
  if (out.code() == Code::kDeadlineExceeded) return out.status();
  if (out.ok() && out->exit_code == 0) {
    if (const auto abilities = ParseFeatures(out->out)) return *abilities;
  }
  // crun knew all of it before it had the command.
  const bool all = info.is_crun;
  return RuntimeAbilities{
      .recursive_read_only = all, .user_namespaces = all, .idmapped_mounts = all};
}

}  // namespace

std::string RuntimeWords(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.remove_suffix(1);
  const auto newline = text.rfind('\n');
  std::string_view line = newline == text.npos ? text : text.substr(newline + 1);
  constexpr std::string_view kMessage = " msg=\"";
  const auto message = line.find(kMessage);
  std::string words =
      message == line.npos ? std::string(line) : Unquote(line.substr(message + kMessage.size()));
  words = ToUtf8(words, kMaxWords);
  return words.empty() ? "it gave no reason" : words;
}

Status OciRuntime::Start(const CallContext& cc, const ContainerId& id) const {
  const process::Output out = CRISP_TRY(RunRuntime(cc, *this, {"start", id.str()}));
  if (out.exit_code != 0) return Internal("{} start: {}", info_.name, RuntimeWords(out.err));
  return Status::Ok();
}

Status OciRuntime::Delete(const CallContext& cc, const ContainerId& id) const {
  const bool may_know =
      os::Exists(StateDir(id)) || (!info_.state_in_root && os::Exists(info_.path));
  if (!may_know) return Status::Ok();
  const process::Output out = CRISP_TRY(
      RunRuntime(cc, *this, {"delete", "--force", id.str()}).While("{} delete", info_.name));
  if (out.exit_code == 0) return Status::Ok();
  // What it does not know needs no deleting; it may have gone just now.
  if (info_.state_in_root) {
    if (!os::Exists(StateDir(id))) return Status::Ok();
  } else {
    const auto state = AskState(cc, id);
    if (state.code() == Code::kNotFound) return Status::Ok();
    CRISP_TRY(state);
  }
  return Internal("{} delete: {}", info_.name, RuntimeWords(out.err));
}

Result<bool> OciRuntime::AwaitsStart(const CallContext& cc, const ContainerId& id) const {
  if (info_.state_in_root) return os::Exists(StateDir(id) + "/exec.fifo");
  return CRISP_TRY(AskState(cc, id)) == "created";
}

Result<std::string> OciRuntime::AskState(const CallContext& cc, const ContainerId& id) const {
  const process::Output out =
      CRISP_TRY(RunRuntime(cc, *this, {"state", id.str()}).While("{} state", info_.name));
  if (out.exit_code > kLastExit) return Internal("{} state: it did not answer", info_.name);
  if (out.exit_code != 0) return NotFound("{} state: {}", info_.name, RuntimeWords(out.err));
  const nlohmann::json state = CRISP_TRY(json::Parse(out.out).While("{} state", info_.name));
  return CRISP_TRY(json::GetString(state, "status").While("{} state", info_.name));
}

bool KeepsStateInRoot(std::string_view program) {
  const auto slash = program.rfind('/');
  if (slash != program.npos) program.remove_prefix(slash + 1);
  return program == "runc" || program == "crun";
}

std::optional<RuntimeAbilities> ParseFeatures(std::string_view text) {
  const auto parsed = json::Parse(text);
  if (!parsed.ok()) return std::nullopt;
  const auto holds = [&](const char* path, std::string_view word) {
    const nlohmann::json* list = json::Find(*parsed, path);
    return list != nullptr && list->is_array() &&
           std::any_of(list->begin(), list->end(),
                       [word](const nlohmann::json& item) { return item == word; });
  };
  if (!holds("linux.namespaces", "mount")) return std::nullopt;
  RuntimeAbilities abilities;
  abilities.recursive_read_only = holds("mountOptions", "rro");
  abilities.user_namespaces = holds("linux.namespaces", "user");
  const nlohmann::json* idmap = json::Find(*parsed, "linux.mountExtensions.idmap.enabled");
  abilities.idmapped_mounts = idmap != nullptr && idmap->is_boolean() && idmap->get<bool>();
  return abilities;
}

Result<RuntimeInfo> ProbeRuntime(const CallContext& cc, const std::string& name,
                                 const std::string& path, const os::Cgroups& cgroups) {
  if (!os::Exists(path)) return NotFound("runtime {}: there is no program {}", name, path);
  process::Command command;
  command.program = path;
  command.args = {"--version"};
  command.env = process::PlainEnvironment();
  const process::Output out = CRISP_TRY(process::Run(cc, command).While("runtime {}", name));
  if (out.exit_code != 0) {
    return Unavailable("runtime {}: {} --version fails: {}", name, path, RuntimeWords(out.err));
  }
  if (IsShim(path, out.out)) {
    return Unimplemented(
        "runtime {}: {} is a shim of containerd, not an OCI runtime; crisp does not speak shim v2 "
        "yet (rund.runtimes.{}.type)",
        name, path, name);
  }
  RuntimeInfo info;
  info.name = name;
  info.path = path;
  // "runc version 1.1.5+ds1", "crun version 1.8.1"
  const std::string_view first = std::string_view(out.out).substr(0, out.out.find('\n'));
  const auto version = first.find(" version ");
  if (version != first.npos) {
    std::string_view rest = first.substr(version + 9);
    info.version = std::string(rest.substr(0, rest.find_first_of(" +-~")));
  }
  info.is_crun = first.starts_with("crun");
  info.state_in_root = KeepsStateInRoot(first.substr(0, first.find(' ')));
  const RuntimeAbilities abilities = CRISP_TRY(AbilitiesOf(cc, info).While("runtime {}", name));
  info.recursive_read_only = abilities.recursive_read_only;
  info.user_namespaces = abilities.user_namespaces;
  info.idmapped_mounts = abilities.idmapped_mounts;
  if (info.is_crun && cgroups.mode() == os::CgroupMode::kHybrid) {
    const std::string controllers = UnifiedControllers();
    if (!controllers.empty()) {
      return Unavailable(
          "runtime {}: crun does not run with hybrid cgroups whose unified tree has controllers "
          "({}); boot with one cgroup v2 tree, or use runc",
          name, controllers);
    }
  }
  return info;
}

}  // namespace crisp::rund
