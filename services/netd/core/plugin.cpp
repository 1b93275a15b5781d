#include "services/netd/core/plugin.h"

#include <algorithm>
#include <utility>

#include "libs/base/check.h"
#include "libs/base/try.h"
#include "libs/json/json.h"
#include "services/netd/core/result.h"

namespace crisp::netd {
namespace {

constexpr std::size_t kMaxQuote = 200;  // of output that is no result, in an error

/// The plugin's object, completed by what the runtime knows.
nlohmann::json InputFor(const ConfList& list, const ConfList::Plugin& plugin) {
  nlohmann::json conf = plugin.conf;
  conf["name"] = list.name;
  conf["cniVersion"] = list.cni_version;
  return conf;
}

std::string InputFor(const ConfList& list, const ConfList::Plugin& plugin, const PluginArgs& args,
                     const std::optional<nlohmann::json>& previous) {
  nlohmann::json conf = InputFor(list, plugin);
  nlohmann::json runtime_config = nlohmann::json::object();
  for (const auto& [capability, value] : args.capability_args.items()) {
    if (plugin.Can(capability)) runtime_config[capability] = value;
  }
  conf.erase("capabilities");
  if (!runtime_config.empty()) conf["runtimeConfig"] = std::move(runtime_config);
  if (previous) conf["prevResult"] = *previous;
  return json::Dump(conf);
}

PluginCall CallFor(std::string_view verb, const PluginArgs& args, std::string input) {
  return {.verb = verb,
          .container_id = args.container_id,
          .netns = args.netns,
          .interface = args.interface,
          .cni_args = args.cni_args,
          .input = std::move(input)};
}

/// What plugin `type` printed for ADD, in the list's version.
Result<nlohmann::json> ResultOf(const std::string& out, const ConfList& list,
                                const std::string& type) {
  Result<nlohmann::json> parsed = json::Parse(out);
  if (!parsed.ok() || !parsed->is_object()) {
    return Internal("plugin {}: ADD printed no CNI result: '{}'", type, out.substr(0, kMaxQuote));
  }
  Result<nlohmann::json> result = ResultAs(*std::move(parsed), list.cni_version);
  if (!result.ok()) return Internal("plugin {}: ADD: {}", type, result.status().message());
  return result;
}

}  // namespace

Result<nlohmann::json> PluginRunner::Add(const CallContext& cc, const ConfList& list,
                                         const PluginArgs& args, const OnStep& on_step,
                                         Started started) const {
  started.resize(list.plugins.size());
  std::optional<nlohmann::json> result;
  for (std::size_t i = 0; i < list.plugins.size(); ++i) {
    const ConfList::Plugin& plugin = list.plugins[i];
    if (result && on_step) CRISP_TRY(on_step(*result));
    const PluginCall call = CallFor("ADD", args, InputFor(list, plugin, args, result));
    const std::string out = CRISP_TRY(programs_.Run(cc, plugin.type, call, std::move(started[i]))
                                          .While("network '{}'", list.name));
    result = CRISP_TRY(ResultOf(out, list, plugin.type).While("network '{}'", list.name));
  }
  CRISP_CHECK(result.has_value());
  return *std::move(result);
}

PluginRunner::Started PluginRunner::StartAhead(const CallContext& cc, const ConfList& list,
                                               const PluginArgs& args) const {
  Started started;
  for (const ConfList::Plugin& plugin : list.plugins) {
    started.push_back(programs_.StartAhead(cc, plugin.type, CallFor("ADD", args, "")));
  }
  return started;
}

Status PluginRunner::Del(const CallContext& cc, const ConfList& list, const PluginArgs& args,
                         const std::optional<nlohmann::json>& result) const {
  // Before 0.4.0 DEL knew no prevResult.
  const bool knows_result = IsAtLeast(list.cni_version, "0.4.0");
  const std::optional<nlohmann::json> previous = knows_result ? result : std::nullopt;
  Status failed;
  for (auto plugin = list.plugins.rbegin(); plugin != list.plugins.rend(); ++plugin) {
    const PluginCall call = CallFor("DEL", args, InputFor(list, *plugin, args, previous));
    const Result<std::string> done = programs_.Run(cc, plugin->type, call);
    if (done.ok()) continue;
    // A missing program is the lesser failure.
    if (failed.ok() || (failed.code() == Code::kUnavailable && done.code() != Code::kUnavailable)) {
      failed = done.status().While("network '{}'", list.name);
    }
  }
  return failed;
}

bool PluginRunner::CanCheck(const ConfList& list) {
  return !list.disable_check && IsAtLeast(list.cni_version, "0.4.0");
}

Status PluginRunner::Check(const CallContext& cc, const ConfList& list, const PluginArgs& args,
                           const nlohmann::json& result) const {
  for (const ConfList::Plugin& plugin : list.plugins) {
    const PluginCall call = CallFor("CHECK", args, InputFor(list, plugin, args, result));
    CRISP_TRY(programs_.Run(cc, plugin.type, call).While("network '{}'", list.name));
  }
  return Status::Ok();
}

bool PluginRunner::CanGc(const ConfList& list) {
  return !list.disable_gc && IsAtLeast(list.cni_version, "1.1.0");
}

Status PluginRunner::Gc(const CallContext& cc, const ConfList& list,
                        const std::vector<std::string>& pods, const std::string& mark,
                        int lock_fd) const {
  nlohmann::json valid = nlohmann::json::array();
  for (const std::string& pod : pods) {
    valid.push_back({{"containerID", pod}, {"ifname", PluginArgs().interface}});
  }
  Status first;
  for (const ConfList::Plugin& plugin : list.plugins) {
    nlohmann::json conf = InputFor(list, plugin);
    // The specification first called it by the second name; plugins of both times are there.
    conf["cni.dev/valid-attachments"] = valid;
    conf["cni.dev/attachments"] = valid;
    const PluginCall call = {.verb = "GC",
                             .input = json::Dump(conf),
                             .for_container = false,
                             .mark = mark,
                             .lock_fd = lock_fd};
    const Result<std::string> done = programs_.Run(cc, plugin.type, call);
    if (!done.ok() && first.ok()) first = done.status().While("network '{}'", list.name);
  }
  return first;
}

Result<ConfList> PluginRunner::Negotiate(const CallContext& cc, const ConfList& list) const {
  std::vector<std::string> left = list.offered;
  for (const ConfList::Plugin& plugin : list.plugins) {
    const std::vector<std::string> spoken = CRISP_TRY(programs_.Versions(cc, plugin.type));
    if (spoken.empty()) continue;  // it does not say: its ADD will
    std::erase_if(left, [&spoken](const std::string& version) {
      return std::find(spoken.begin(), spoken.end(), version) == spoken.end();
    });
    if (left.empty()) {
      return Unavailable("plugin {} speaks CNI {}, the configuration offers {}", plugin.type,
                         fmt::join(spoken, ", "), fmt::join(list.offered, ", "));
    }
  }
  ConfList negotiated = list;
  negotiated.cni_version = left.front();
  return negotiated;
}

Result<ConfList> PluginRunner::Ready(const CallContext& cc, const ConfList& list) const {
  ConfList ready = CRISP_TRY(Negotiate(cc, list).While("network '{}'", list.name));
  if (!IsAtLeast(ready.cni_version, "1.1.0")) return ready;
  for (const ConfList::Plugin& plugin : ready.plugins) {
    const PluginCall call = {
        .verb = "STATUS", .input = json::Dump(InputFor(ready, plugin)), .for_container = false};
    CRISP_TRY(programs_.Run(cc, plugin.type, call).While("network '{}'", list.name));
  }
  return ready;
}

}  // namespace crisp::netd
