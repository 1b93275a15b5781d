#include "services/rund/spec/devices.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <filesystem>
#include <map>

#include "libs/base/try.h"
#include "services/rund/spec/text.h"

namespace crisp::rund {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr int kMaxDepth = 16;
constexpr std::size_t kMaxNodes = 8192;

struct Node {
  bool block = false;
  unsigned major = 0;
  unsigned minor = 0;
  unsigned mode = 0;
  unsigned uid = 0;
  unsigned gid = 0;
  std::string access;
};
using Nodes = std::map<std::string, Node>;  // by path in the container

Node FromStat(const struct stat& info, std::string access) {
  return {S_ISBLK(info.st_mode), major(info.st_rdev), minor(info.st_rdev), info.st_mode & 07777,
          info.st_uid,           info.st_gid,         std::move(access)};
}

/// Names below /dev that are mounts or things of each container's own.
bool IsContainersOwn(const std::string& name) {
  constexpr std::array<std::string_view, 8> kNames = {"pts",     "shm",  "fd",    "mqueue",
                                                      "console", ".lxc", ".udev", ".lxd-mounts"};
  return std::find(kNames.begin(), kNames.end(), name) != kNames.end();
}

/// All device nodes below a directory; symbolic links are not followed.
Status Collect(const fs::path& directory, const std::string& target, const std::string& access,
               bool top_of_dev, int depth, Nodes& nodes) {
  if (depth > kMaxDepth) return InvalidArgument("devices: {} is too deep", directory.string());
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (top_of_dev && IsContainersOwn(name)) continue;
    struct stat info {};
    if (lstat(it->path().c_str(), &info) != 0) {
      if (errno == ENOENT) continue;  // gone meanwhile
      return Status::Errno(errno, "devices: stat {}", it->path().string());
    }
    const std::string path = target == "/" ? "/" + name : target + "/" + name;
    if (S_ISDIR(info.st_mode)) {
      CRISP_TRY(Collect(it->path(), path, access, false, depth + 1, nodes));
    } else if (S_ISCHR(info.st_mode) || S_ISBLK(info.st_mode)) {
      if (nodes.size() >= kMaxNodes) return InvalidArgument("devices: more than {}", kMaxNodes);
      nodes.insert_or_assign(path, FromStat(info, access));
    }
  }
  if (error) return Status::Errno(error.value(), "devices: read {}", directory.string());
  return Status::Ok();
}

}  // namespace

runtime::v1::Device ParseDevice(std::string_view text) {
  runtime::v1::Device device;
  const auto first = text.find(':');
  device.set_host_path(std::string(text.substr(0, first)));
  if (first == text.npos) return device;
  const auto second = text.find(':', first + 1);
  device.set_container_path(std::string(text.substr(first + 1, second - first - 1)));
  if (second != text.npos) device.set_permissions(std::string(text.substr(second + 1)));
  return device;
}

Result<BuiltDevices> BuildDevices(
    const google::protobuf::RepeatedPtrField<runtime::v1::Device>& asked, bool privileged,
    const std::string& host_dev, const DeviceOwner& owner) {
  Nodes nodes;
  if (privileged) CRISP_TRY(Collect(host_dev, "/dev", "rwm", true, 0, nodes));
  for (const runtime::v1::Device& device : asked) {
    const std::string access = device.permissions().empty() ? "rwm" : device.permissions();
    if (access.find_first_not_of("rwm") != std::string::npos) {
      return InvalidArgument("devices: permissions \"{}\" of {} are not of r, w, m", access,
                             device.host_path());
    }
    if (!device.host_path().starts_with('/')) {
      return InvalidArgument("devices: host_path \"{}\" is not absolute", device.host_path());
    }
    const std::string target =
        CleanPath(device.container_path().empty() ? device.host_path() : device.container_path());
    struct stat info {};
    if (stat(device.host_path().c_str(), &info) != 0) {
      return Status::Errno(errno, "devices: {}", device.host_path());
    }
    if (S_ISDIR(info.st_mode)) {
      const bool top = CleanPath(device.host_path()) == CleanPath(host_dev);
      CRISP_TRY(Collect(device.host_path(), target, access, top, 0, nodes));
    } else if (S_ISCHR(info.st_mode) || S_ISBLK(info.st_mode)) {
      nodes.insert_or_assign(target, FromStat(info, access));
    } else {
      return InvalidArgument("devices: {} is not a device", device.host_path());
    }
  }

  BuiltDevices built;
  if (privileged) {
    built.rules.push_back({{"allow", true}, {"access", "rwm"}});
  } else {
    built.rules.push_back({{"allow", false}, {"access", "rwm"}});
  }
  for (const auto& [path, node] : nodes) {
    const char* type = node.block ? "b" : "c";
    built.nodes.push_back({{"path", path},
                           {"type", type},
                           {"major", node.major},
                           {"minor", node.minor},
                           {"fileMode", node.mode},
                           {"uid", owner.uid.value_or(node.uid)},
                           {"gid", owner.gid.value_or(node.gid)}});
    if (privileged) continue;
    built.rules.push_back({{"allow", true},
                           {"type", type},
                           {"major", node.major},
                           {"minor", node.minor},
                           {"access", node.access}});
  }
  return built;
}

}  // namespace crisp::rund
