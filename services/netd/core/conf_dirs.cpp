#include "services/netd/core/conf_dirs.h"

#include <sys/stat.h>

#include <chrono>
#include <string_view>
#include <utility>

#include "libs/base/try.h"
#include "libs/json/json.h"
#include "libs/log/log.h"
#include "libs/os/file_stamp.h"
#include "libs/os/files.h"

namespace crisp::netd {
namespace {

constexpr std::string_view kPluginFile = ".conf";

bool IsConfFile(std::string_view name) {
  return name.ends_with(".conflist") || name.ends_with(kPluginFile) || name.ends_with(".json");
}

/// What tells one state of the directories from another.
std::string Signature(const std::vector<std::string>& directories) {
  std::string signature;
  const auto add = [&signature](const std::string& path) {
    signature += path + " " + os::FileStamp(path) + "\n";
  };
  const auto list = [&signature](const std::string& directory) {
    Result<std::vector<std::string>> names = os::ListDir(directory);
    if (!names.ok()) signature += names.status().ToString() + "\n";
    return names.ok() ? *std::move(names) : std::vector<std::string>();
  };
  for (const std::string& directory : directories) {
    for (const std::string& name : list(directory)) {
      const std::string path = directory + "/" + name;
      if (IsConfFile(name)) {
        add(path);
      } else if (os::IsDirectory(path)) {
        for (const std::string& file : list(path)) {
          if (file.ends_with(kPluginFile)) add(path + "/" + file);
        }
      }
    }
  }
  return signature;
}

/// The file, or the link to it (which may lead nowhere). By the ctime, which nobody sets.
bool HasJustChanged(const std::string& path, WallTime now) {
  struct stat link = {};
  if (::lstat(path.c_str(), &link) != 0) return true;  // this very moment
  struct stat file = {};
  if (::stat(path.c_str(), &file) != 0) file = link;
  const auto is_just = [now](const timespec& time) {
    const WallTime changed(std::chrono::seconds(time.tv_sec) +
                           std::chrono::nanoseconds(time.tv_nsec));
    return changed <= now && now - changed < kHalfWritten;
  };
  return is_just(link.st_ctim) || is_just(file.st_ctim);
}

/// One file of a directory, with the plugins that lie in the folder of its name; `blamed` is the
/// file that an error is about.
Result<ConfList> ReadConf(const std::string& directory, const std::string& name,
                          std::string& blamed) {
  const std::string path = directory + "/" + name;
  const FolderReader read_folder =
      [&directory, &blamed](const std::string& network) -> Result<std::vector<ConfList::Plugin>> {
    std::vector<ConfList::Plugin> plugins;
    const std::string folder = directory + "/" + network;
    if (!os::IsDirectory(folder)) return plugins;
    for (const std::string& file : CRISP_TRY(os::ListDir(folder))) {
      const std::string plugin_path = folder + "/" + file;
      if (!file.ends_with(kPluginFile) || os::IsDirectory(plugin_path)) continue;
      const std::string before = std::exchange(blamed, plugin_path);
      const std::string text = CRISP_TRY(os::ReadFile(plugin_path));
      nlohmann::json conf = CRISP_TRY(json::Parse(text));
      plugins.push_back(CRISP_TRY(ParsePlugin(std::move(conf))));
      blamed = before;
    }
    return plugins;
  };
  blamed = path;
  const std::string text = CRISP_TRY(os::ReadFile(path));
  return ParseConfList(text, path, read_folder);
}

struct Found {
  Result<ConfList> list;
  bool is_settled = true;  // no broken file in the way that may be half written
};

/// `is_patient`: a broken file that may be half written is waited for.
Found FindConf(const std::vector<std::string>& directories, const std::string& network,
               WallTime now, bool is_patient) {
  Status problem;  // the first
  bool is_settled = true;
  const auto note = [&problem](const Status& status) {
    if (problem.ok()) problem = status;
  };
  for (const std::string& directory : directories) {
    const Result<std::vector<std::string>> names = os::ListDir(directory);
    if (!names.ok() && names.code() != Code::kNotFound) note(names.status());
    if (!names.ok()) continue;
    for (const std::string& name : *names) {
      if (!IsConfFile(name)) continue;
      std::string blamed;
      Result<ConfList> list = ReadConf(directory, name, blamed);
      if (list.ok() && (network.empty() || list->name == network)) {
        return {std::move(list), is_settled};
      }
      if (list.ok()) continue;
      const Status broken = list.status().While("{}", blamed);
      is_settled = is_settled && !HasJustChanged(blamed, now);
      if (!is_settled && is_patient) {
        return {Unavailable("no usable network configuration: {}", broken.message()), false};
      }
      note(broken);
    }
  }
  const std::string where = fmt::format("{}", fmt::join(directories, ", "));
  Status none = Unavailable("no network configuration in {}", where);
  if (!network.empty()) {
    none = Unavailable("no network configuration called '{}' in {}", network, where);
  }
  if (!problem.ok()) none = Unavailable("no usable network configuration: {}", problem.message());
  return {std::move(none), is_settled};
}

}  // namespace

std::vector<std::string> PluginFolders(const std::vector<std::string>& directories) {
  std::vector<std::string> folders;
  for (const std::string& directory : directories) {
    for (const std::string& name : os::ListDir(directory).value_or(std::vector<std::string>())) {
      std::string path = directory + "/" + name;
      if (!IsConfFile(name) && os::IsDirectory(path)) folders.push_back(std::move(path));
    }
  }
  return folders;
}

Result<std::shared_ptr<const ConfList>> ConfSource::Current() {
  std::string signature = Signature(directories_);
  const WallTime now = clock_.Wall();
  bool is_patient = true;
  {
    const std::scoped_lock lock(mutex_);
    if (loaded_ && signature == signature_) {
      if (current_) return current_;
      return problem_;
    }
    // After a while without such a file the next one has the whole patience again.
    if (now - unsettled_until_ >= patience_ + kHalfWritten) unsettled_since_.reset();
    is_patient = !unsettled_since_ || now - *unsettled_since_ < patience_;
  }
  auto [list, is_settled] = FindConf(directories_, network_, now, is_patient);
  if (list.ok()) {
    log::Info("network configuration read", {{"network", list->name}, {"file", list->file}});
  } else {
    log::Warn("no network configuration", {{"error", list.status()}});
  }
  const std::scoped_lock lock(mutex_);
  if (!is_settled) {
    if (!unsettled_since_) unsettled_since_ = now;
    unsettled_until_ = now;
  }
  signature_ = std::move(signature);
  loaded_ = is_settled || !is_patient;
  problem_ = list.status();
  current_ = list.ok() ? std::make_shared<const ConfList>(std::move(list).value()) : nullptr;
  if (current_) return current_;
  return problem_;
}

}  // namespace crisp::netd
