#include "services/rund/spec/process.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <unordered_map>

#include "libs/base/text.h"
#include "libs/base/try.h"
#include "services/rund/spec/text.h"

namespace crisp::rund {
namespace {

constexpr std::string_view kDefaultPath =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables in the order of their first mention.
class Environment {
 public:
  void Set(std::string_view name, std::string_view value) {
    const auto [it, is_new] = index_.try_emplace(std::string(name), lines_.size());
    std::string line = fmt::format("{}={}", name, value);
    if (is_new) {
      lines_.push_back(std::move(line));
    } else {
      lines_[it->second] = std::move(line);
    }
  }
  bool Has(const std::string& name) const { return index_.contains(name); }
  std::vector<std::string> Take() && { return std::move(lines_); }

 private:
  std::vector<std::string> lines_;
  std::unordered_map<std::string, std::size_t> index_;
};

}  // namespace

Result<std::vector<std::string>> BuildArgs(const runtime::v1::ContainerConfig& config,
                                           const ImageConfig& image) {
  std::vector<std::string> args;
  if (config.command_size() > 0) {
    args.assign(config.command().begin(), config.command().end());
    args.insert(args.end(), config.args().begin(), config.args().end());
  } else {
    args = image.entrypoint;
    if (config.args_size() > 0) {
      args.insert(args.end(), config.args().begin(), config.args().end());
    } else {
      args.insert(args.end(), image.cmd.begin(), image.cmd.end());
    }
  }
  if (args.empty() || args.front().empty()) {
    return InvalidArgument("no command specified: neither the container nor its image has one");
  }
  for (const std::string& arg : args) {
    if (arg.find('\0') != std::string::npos) {
      return InvalidArgument("command or args: an argument holds a NUL byte");
    }
  }
  return args;
}

Result<std::vector<std::string>> BuildEnv(const runtime::v1::ContainerConfig& config,
                                          const ImageConfig& image, const std::string& hostname,
                                          const std::string& home,
                                          std::span<const std::string> node) {
  Environment env;
  env.Set("PATH", kDefaultPath);
  if (!hostname.empty()) env.Set("HOSTNAME", hostname);
  if (config.tty()) env.Set("TERM", "xterm");
  for (const std::string& line : node) {
    const std::size_t equals = line.find('=');
    env.Set(line.substr(0, equals), std::string_view(line).substr(equals + 1));
  }
  for (const std::string& line : image.env) {
    const std::size_t equals = line.find('=');
    if (equals == 0 || line.find('\0') != std::string::npos) {
      return InvalidArgument("image config: an entry of Env is not of the form NAME=value");
    }
    // "NAME" alone is what some builders write for an empty value.
    env.Set(line.substr(0, equals), equals == std::string::npos
                                        ? std::string_view()
                                        : std::string_view(line).substr(equals + 1));
  }
  for (const runtime::v1::KeyValue& pair : config.envs()) {
    if (pair.key().empty() || pair.key().find('=') != std::string::npos ||
        pair.key().find('\0') != std::string::npos) {
      return InvalidArgument("envs: \"{}\" is not a name for a variable", pair.key());
    }
    if (pair.value().find('\0') != std::string::npos) {
      return InvalidArgument("envs: the value of {} holds a NUL byte", pair.key());
    }
    if (!IsUtf8(pair.value())) {
      return InvalidArgument(
          "envs: the value of {} is not UTF-8, which a runtime spec cannot carry", pair.key());
    }
    env.Set(pair.key(), pair.value());
  }
  if (!env.Has("HOME")) env.Set("HOME", home);
  return std::move(env).Take();
}

std::string WorkingDir(const runtime::v1::ContainerConfig& config, const ImageConfig& image) {
  return CleanPath(config.working_dir().empty() ? image.working_dir : config.working_dir());
}

Status MakeWorkingDir(const os::Beneath& rootfs, const std::string& path,
                      const ResolvedUser& user) {
  if (path == "/") return Status::Ok();
  std::optional<os::Beneath> parent;
  std::string so_far;
  for (const std::filesystem::path& part : std::filesystem::path(path).relative_path()) {
    const std::string name = part.string();
    so_far += so_far.empty() ? name : "/" + name;
    Result<os::Beneath> here = rootfs.OpenDir(so_far);
    if (!here.ok() && here.code() == Code::kNotFound) {
      const int at = parent ? parent->fd() : rootfs.fd();
      if (mkdirat(at, name.c_str(), 0755) != 0) {
        // An ID-mapped mount takes nothing from an id that is not in the map, and ours is not: the
        // runtime makes it, from inside.
        if (errno == EOVERFLOW) return Status::Ok();
        if (errno == EEXIST) {
          return InvalidArgument("working_dir: /{} of the image is a link to nowhere", so_far);
        }
        return Status::Errno(errno, "working_dir: make /{} in the rootfs", so_far);
      }
      if (fchownat(at, name.c_str(), user.uid, user.gid, AT_SYMLINK_NOFOLLOW) != 0) {
        return Status::Errno(errno, "working_dir: chown /{} in the rootfs", so_far);
      }
      here = rootfs.OpenDir(so_far);
    }
    if (!here.ok()) return std::move(here).status().While("working_dir: /{} in the rootfs", so_far);
    parent = std::move(here).value();
  }
  return Status::Ok();
}

Result<int> StopSignal(const runtime::v1::ContainerConfig& config, const ImageConfig& image,
                       std::vector<std::string>& notes) {
  constexpr int kDefault = 15;
  if (config.stop_signal() != runtime::v1::SIGNAL_RUNTIME_DEFAULT) {
    // SIGNAL_SIGRTMINPLUS3 and so on; no name: a number that is not in the enum.
    std::string name = runtime::v1::Signal_Name(config.stop_signal());
    if (name.starts_with("SIGNAL_")) name.erase(0, 7);
    for (const auto& [word, sign] : {std::pair{"PLUS", "+"}, std::pair{"MINUS", "-"}}) {
      if (const std::size_t at = name.find(word); at != std::string::npos) {
        name.replace(at, std::string_view(word).size(), sign);
      }
    }
    const int number = SignalNumber(name);
    if (number == 0) {
      return InvalidArgument("stop_signal: unknown signal {}",
                             static_cast<int>(config.stop_signal()));
    }
    return number;
  }
  if (image.stop_signal.empty()) return kDefault;
  const int number = SignalNumber(image.stop_signal);
  if (number != 0) return number;
  notes.push_back(
      fmt::format("the image's stop signal \"{}\" is unknown; SIGTERM is used", image.stop_signal));
  return kDefault;
}

Result<nlohmann::json> BuildRlimits(const SpecDefaults& defaults, std::vector<std::string>& notes) {
  nlohmann::json limits = nlohmann::json::array();
  for (const os::Ulimit& ulimit : defaults.ulimits) {
    const os::ResourceLimit* known = os::FindResourceLimit(ulimit.name);
    if (known == nullptr) {
      return InvalidArgument("rund.default_ulimits: unknown limit \"{}\"", ulimit.name);
    }
    const std::string name(known->name);
    std::uint64_t hard = ulimit.hard;
    if (const auto own = defaults.host.hard_limits.find(name);
        own != defaults.host.hard_limits.end() && hard > own->second) {
      notes.push_back(fmt::format("{} of {} is more than this daemon may give; {} is used", name,
                                  hard, own->second));
      hard = own->second;
    }
    limits.push_back({{"type", name}, {"soft", std::min(ulimit.soft, hard)}, {"hard", hard}});
  }
  return limits;
}

int OomScoreAdj(std::int64_t asked, const HostFacts& host, std::vector<std::string>& notes) {
  const int wanted = static_cast<int>(std::clamp<std::int64_t>(asked, -1000, 1000));
  if (wanted >= host.lowest_oom_score_adj) return wanted;
  notes.push_back(
      fmt::format("oom_score_adj below {} cannot be given: this daemon lacks CAP_SYS_RESOURCE",
                  host.lowest_oom_score_adj));
  return host.lowest_oom_score_adj;
}

Result<nlohmann::json> BuildExecProcess(const nlohmann::json& spec,
                                        std::span<const std::string> command, bool tty) {
  if (command.empty() || command.front().empty()) {
    return InvalidArgument("cmd is empty: nothing to execute");
  }
  const auto found = spec.find("process");
  if (found == spec.end() || !found->is_object()) {
    return Internal("the container's spec has no process");
  }
  nlohmann::json process = *found;
  process["args"] = std::vector<std::string>(command.begin(), command.end());
  process["terminal"] = tty;
  process.erase("consoleSize");
  if (tty) {
    nlohmann::json& env = process["env"];
    const bool known = std::any_of(env.begin(), env.end(), [](const nlohmann::json& line) {
      return line.is_string() && line.get_ref<const std::string&>().starts_with("TERM=");
    });
    if (!known) env.push_back("TERM=xterm");
  }
  return process;
}

}  // namespace crisp::rund
