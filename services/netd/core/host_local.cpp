#include "services/netd/core/host_local.h"

#include <arpa/inet.h>
#include <sys/stat.h>

#include <algorithm>

#include "libs/base/try.h"
#include "libs/json/json.h"
#include "libs/log/log.h"
#include "libs/os/file_lock.h"
#include "libs/os/files.h"
#include "services/netd/core/lock_wait.h"

namespace crisp::netd {
namespace {

constexpr std::string_view kDefault = "/var/lib/cni/networks";
constexpr std::string_view kLock = "/lock";  // flock(2) on it: an address is being taken or freed

bool IsAddress(const std::string& name) {
  in6_addr address = {};
  return ::inet_pton(AF_INET, name.c_str(), &address) == 1 ||
         ::inet_pton(AF_INET6, name.c_str(), &address) == 1;
}

bool IsEmptyFile(const std::string& path) {
  struct stat found = {};
  return ::lstat(path.c_str(), &found) == 0 && S_ISREG(found.st_mode) && found.st_size == 0;
}

Result<std::size_t> FreeNobodysIn(const CallContext& cc, const std::string& dir) {
  constexpr std::chrono::seconds kPatience(2);
  const os::FileLock lock = CRISP_TRY(WaitForLock(cc.Within(kPatience), "host-local", [&dir] {
    return os::FileLock::TryLock(dir + std::string(kLock));
  }));
  std::size_t freed = 0;
  for (const std::string& name : CRISP_TRY(os::ListDir(dir))) {
    const std::string path = dir + "/" + name;
    if (!IsAddress(name) || !IsEmptyFile(path)) continue;
    CRISP_TRY(os::RemoveFile(path));
    log::Warn("an address that was nobody's is free again", {{"address", name}, {"file", path}});
    ++freed;
  }
  return freed;
}

}  // namespace

std::vector<std::string> HostLocalDirs(const ConfList& list) {
  if (list.name.find('/') != std::string::npos) return {};
  // Of plugins that call others, too, whose configuration is not to be seen here.
  std::vector<std::string> dirs = {std::string(kDefault)};
  for (const ConfList::Plugin& plugin : list.plugins) {
    const auto ipam = plugin.conf.find("ipam");
    if (ipam == plugin.conf.end() || !ipam->is_object()) continue;
    if (json::OptString(*ipam, "type").value_or("") != "host-local") continue;
    const std::string dir = json::OptString(*ipam, "dataDir").value_or("");
    if (dir.starts_with('/') && std::find(dirs.begin(), dirs.end(), dir) == dirs.end())
      dirs.push_back(dir);
  }
  for (std::string& dir : dirs) dir += "/" + list.name;
  return dirs;
}

Result<std::size_t> FreeNobodys(const CallContext& cc, const ConfList& list) {
  std::size_t freed = 0;
  for (const std::string& dir : HostLocalDirs(list)) {
    // It has never been there, then.
    if (os::Exists(dir + std::string(kLock))) freed += CRISP_TRY(FreeNobodysIn(cc, dir));
  }
  return freed;
}

}  // namespace crisp::netd
