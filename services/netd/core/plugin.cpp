#include "services/netd/core/plugin.h"

#include <unistd.h>

#include <algorithm>

#include "libs/base/try.h"
#include "libs/json/json.h"
#include "libs/process/command.h"

namespace crisp::netd {
namespace {

constexpr std::size_t kMaxWords = 4096;  // of a plugin, in an error

std::string Trimmed(std::string_view text) {
  const std::size_t start = text.find_first_not_of(" \t\r\n");
  if (start == std::string_view::npos) return {};
  text = text.substr(start, text.find_last_not_of(" \t\r\n") + 1 - start);
  if (text.size() > kMaxWords) text = text.substr(text.size() - kMaxWords);
  return std::string(text);
}

/// The plugin's own reason: the error object of its stdout, else what it said at all.
std::string WordsOf(const process::Output& output) {
  const Result<nlohmann::json> error = json::Parse(output.out);
  if (error.ok() && error->is_object()) {
    std::string words = json::OptString(*error, "msg").value_or("");
    const std::string details = json::OptString(*error, "details").value_or("");
    if (!details.empty()) words += words.empty() ? details : "; " + details;
    if (!words.empty()) return Trimmed(words);
  }
  std::string words = Trimmed(output.err);
  const std::string out = Trimmed(output.out);
  if (!out.empty()) words += words.empty() ? out : "; " + out;
  return words.empty() ? "it said nothing" : words;
}

/// The plugin's stdin: its object, completed by what the runtime knows.
std::string StdinFor(const ConfList& list, const ConfList::Plugin& plugin, const PluginArgs& args,
                     const std::optional<nlohmann::json>& previous) {
  nlohmann::json conf = plugin.conf;
  conf["name"] = list.name;
  conf["cniVersion"] = list.cni_version;
  nlohmann::json runtime_config = nlohmann::json::object();
  for (const auto& [capability, value] : args.capability_args.items()) {
    if (plugin.Can(capability)) runtime_config[capability] = value;
  }
  conf.erase("capabilities");
  if (!runtime_config.empty()) conf["runtimeConfig"] = std::move(runtime_config);
  if (previous) conf["prevResult"] = *previous;
  return json::Dump(conf);
}

}  // namespace

PluginRunner::PluginRunner(std::vector<std::string> bin_dirs) : bin_dirs_(std::move(bin_dirs)) {
  for (const std::string& dir : bin_dirs_) {
    if (!cni_path_.empty()) cni_path_.push_back(':');
    cni_path_ += dir;
  }
}

Result<std::string> PluginRunner::Find(const std::string& type) const {
  for (const std::string& dir : bin_dirs_) {
    std::string path = dir + "/" + type;
    if (::access(path.c_str(), X_OK) == 0) return path;
  }
  return Unavailable("network plugin '{}' is not in {}", type, cni_path_);
}

Status PluginRunner::CheckPrograms(const ConfList& list) const {
  for (const ConfList::Plugin& plugin : list.plugins) CRISP_TRY(Find(plugin.type));
  return Status::Ok();
}

Result<std::string> PluginRunner::Exec(const CallContext& cc, std::string_view verb,
                                       const ConfList& list, const ConfList::Plugin& plugin,
                                       const PluginArgs& args,
                                       const std::optional<nlohmann::json>& previous) const {
  process::Command command;
  command.program = CRISP_TRY(Find(plugin.type));
  command.stdin_data = StdinFor(list, plugin, args, previous);
  command.env = {fmt::format("CNI_COMMAND={}", verb),
                 "CNI_CONTAINERID=" + args.container_id,
                 "CNI_NETNS=" + args.netns,
                 "CNI_IFNAME=" + args.interface,
                 "CNI_ARGS=" + args.cni_args,
                 "CNI_PATH=" + cni_path_,
                 "GOMAXPROCS=1",  // a plugin is short: one thread costs it less CPU
                 "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:" + cni_path_};
  const Result<process::Output> output = process::Run(cc, command);
  if (!output.ok()) {
    return output.status().While("network '{}': plugin {}: {}", list.name, plugin.type, verb);
  }
  if (output->exit_code != 0) {
    return Internal("network '{}': plugin {}: {} failed: {}", list.name, plugin.type, verb,
                    WordsOf(*output));
  }
  return output->out;
}

Result<nlohmann::json> PluginRunner::Add(const CallContext& cc, const ConfList& list,
                                         const PluginArgs& args) const {
  std::optional<nlohmann::json> result;
  for (const ConfList::Plugin& plugin : list.plugins) {
    const std::string out = CRISP_TRY(Exec(cc, "ADD", list, plugin, args, result));
    Result<nlohmann::json> parsed = json::Parse(out);
    if (!parsed.ok() || !parsed->is_object()) {
      return Internal("network '{}': plugin {}: ADD printed no CNI result: '{}'", list.name,
                      plugin.type, Trimmed(out.substr(0, 200)));
    }
    result = std::move(parsed).value();
  }
  CRISP_CHECK(result.has_value());
  return *std::move(result);
}

Status PluginRunner::Del(const CallContext& cc, const ConfList& list, const PluginArgs& args,
                         const std::optional<nlohmann::json>& result) const {
  // Before 0.4.0 DEL knew no prevResult.
  const bool knows_result = list.cni_version != "0.3.0" && list.cni_version != "0.3.1";
  const std::optional<nlohmann::json> previous = knows_result ? result : std::nullopt;
  Status first;
  for (auto plugin = list.plugins.rbegin(); plugin != list.plugins.rend(); ++plugin) {
    const Result<std::string> done = Exec(cc, "DEL", list, *plugin, args, previous);
    if (!done.ok() && first.ok()) first = done.status();
  }
  return first;
}

}  // namespace crisp::netd
