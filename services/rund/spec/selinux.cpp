#include "services/rund/spec/selinux.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <vector>

#include "libs/base/try.h"
#include "libs/os/files.h"
#include "services/rund/spec/namespaces.h"
#include "services/rund/spec/text.h"

namespace crisp::rund {
namespace {

constexpr unsigned kCategories = 1024;
constexpr int kMaxDepth = 256;
constexpr std::string_view kField = "linux.security_context.selinux_options";

std::string_view Trim(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t\"");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\"\r") + 1 - begin);
}

/// The value of "key = value" in a text of such lines; empty without one.
std::string Value(std::string_view text, std::string_view key) {
  while (!text.empty()) {
    const std::size_t newline = text.find('\n');
    const std::string_view line = text.substr(0, newline);
    text.remove_prefix(newline == std::string_view::npos ? text.size() : newline + 1);
    const std::size_t equals = line.find('=');
    if (equals == std::string_view::npos || Trim(line.substr(0, equals)) != key) continue;
    return std::string(Trim(line.substr(equals + 1)));
  }
  return {};
}

/// user:role:type:level; the level may have colons.
std::array<std::string, 4> PartsOf(std::string_view label) {
  std::array<std::string, 4> parts;
  for (std::size_t i = 0; i < 3; ++i) {
    const std::size_t colon = label.find(':');
    parts.at(i) = label.substr(0, colon);
    if (colon == std::string_view::npos) return parts;
    label.remove_prefix(colon + 1);
  }
  parts[3] = label;
  return parts;
}

std::string Join(const std::array<std::string, 4>& parts) {
  return fmt::format("{}:{}:{}:{}", parts[0], parts[1], parts[2], parts[3]);
}

Status CheckPart(std::string_view name, const std::string& part, bool level) {
  const bool plain = std::all_of(part.begin(), part.end(), [level](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.' || c == '-' || (level && (c == ':' || c == ','));
  });
  if (plain) return Status::Ok();
  return InvalidArgument("{}.{}: \"{}\" cannot be part of a label", kField, name, part);
}

/// The policy knows it.
Status CheckLabel(const SelinuxNode& node, const std::string& label) {
  Status known = os::WriteExisting(node.root + "/context", label);
  if (known.ok()) return known;
  if (known.code() != Code::kInvalidArgument) return std::move(known).While("check a label");
  return InvalidArgument("{}: the node's policy does not know the label {}", kField, label);
}

std::string LabelOf(const SelinuxNode& node, const std::string& path) {
  std::array<char, 4096> text{};
  const ssize_t length = lgetxattr(path.c_str(), node.xattr.c_str(), text.data(), text.size());
  if (length <= 0) return {};
  std::string label(text.data(), static_cast<std::size_t>(length));
  while (!label.empty() && label.back() == '\0') label.pop_back();
  return label;
}

/// Through a descriptor of the thing itself: nobody exchanges it for a link meanwhile.
Status SetLabel(const SelinuxNode& node, int directory, const char* name,
                const std::string& label) {
  const os::UniqueFd fd(openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid()) {
    if (errno == ENOENT) return Status::Ok();  // gone meanwhile
    return Status::Errno(errno, "open {}", name);
  }
  const std::string path = fmt::format("/proc/self/fd/{}", fd.get());
  struct stat info {};
  if (fstat(fd.get(), &info) != 0) return Status::Errno(errno, "stat {}", name);
  // A link is not reached through its descriptor; by name the worst is another link's label.
  const int done =
      S_ISLNK(info.st_mode)
          ? lsetxattr(fmt::format("/proc/self/fd/{}/{}", directory, name).c_str(),
                      node.xattr.c_str(), label.c_str(), label.size() + 1, 0)
          : setxattr(path.c_str(), node.xattr.c_str(), label.c_str(), label.size() + 1, 0);
  if (done == 0) return Status::Ok();
  // File systems without labels are labelled as a whole, by their mount.
  if (errno == ENOTSUP || errno == EROFS) return Status::Ok();
  if (errno == EPERM && S_ISLNK(info.st_mode)) return Status::Ok();
  return Status::Errno(errno, "label {}", name);
}

Status LabelTree(const SelinuxNode& node, int directory, dev_t device, const std::string& label,
                 int depth) {
  if (depth > kMaxDepth) return InvalidArgument("more than {} directories deep", kMaxDepth);
  const int listing_fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (listing_fd < 0) return Status::Errno(errno, "open a directory");
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(fdopendir(listing_fd), &closedir);
  if (listing == nullptr) {
    close(listing_fd);
    return Status::Errno(errno, "read a directory");
  }
  while (true) {
    errno = 0;
    const dirent* entry = readdir(listing.get());
    if (entry == nullptr && errno != 0) return Status::Errno(errno, "read a directory");
    if (entry == nullptr) break;
    const char* name = static_cast<const char*>(entry->d_name);
    if (std::string_view(name) == "." || std::string_view(name) == "..") continue;
    CRISP_TRY(SetLabel(node, directory, name, label));
    struct stat info {};
    if (fstatat(directory, name, &info, AT_SYMLINK_NOFOLLOW) != 0) continue;
    if (!S_ISDIR(info.st_mode) || info.st_dev != device) continue;
    const os::UniqueFd below(
        openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!below.valid()) continue;
    CRISP_TRY(LabelTree(node, below.get(), device, label, depth + 1).While("{}", name));
  }
  return Status::Ok();
}

}  // namespace

Result<SelinuxNode> DetectSelinux(const std::string& root, const std::string& etc) {
  SelinuxNode node;
  node.root = root;
  if (!os::Exists(root + "/enforce")) return node;
  const std::string config = CRISP_TRY(os::ReadFile(etc + "/config").While("SELinux"));
  const std::string policy = Value(config, "SELINUXTYPE");
  const std::string contexts = fmt::format("{}/{}/contexts/lxc_contexts", etc, policy);
  const std::string text = CRISP_TRY(os::ReadFile(contexts).While("SELinux"));
  node.process = Value(text, "process");
  node.file = Value(text, "file");
  if (node.process.empty() || node.file.empty()) {
    return FailedPrecondition("SELinux: {} has no labels for containers (process, file)", contexts);
  }
  return node;
}

Result<std::string> PickLevel(const std::set<std::string>& taken, std::string_view seed,
                              unsigned owner) {
  constexpr std::size_t kOwners = 64;
  constexpr std::size_t kPairs = std::size_t{kCategories} * (kCategories - 1) / 2 / kOwners;
  const std::size_t first = owner % kOwners * kPairs;
  const std::size_t begin = std::hash<std::string_view>()(seed) % kPairs;
  for (std::size_t tries = 0; tries < kPairs; ++tries) {
    // Of the pairs (low, high) with 0 <= low < high < kCategories, counted by `high`.
    std::size_t high = 1;
    std::size_t rest = first + (begin + tries) % kPairs;
    while (rest >= high) rest -= high++;
    std::string level = fmt::format("s0:c{},c{}", rest, high);
    if (!taken.contains(level)) return level;
  }
  return ResourceExhausted("SELinux: all pairs of categories are taken");
}

runtime::v1::SELinuxOption MergeSelinux(const runtime::v1::SELinuxOption& base,
                                        const runtime::v1::SELinuxOption& own) {
  runtime::v1::SELinuxOption merged = base;
  merged.MergeFrom(own);
  return merged;
}

runtime::v1::SELinuxOption SelinuxOptionsOf(const runtime::v1::ContainerConfig& config,
                                            const runtime::v1::PodSandboxConfig& sandbox) {
  return MergeSelinux(sandbox.linux().security_context().selinux_options(),
                      config.linux().security_context().selinux_options());
}

bool IsEmpty(const runtime::v1::SELinuxOption& options) {
  return options.user().empty() && options.role().empty() && options.type().empty() &&
         options.level().empty();
}

Result<SelinuxLabels> LabelsOf(const SelinuxNode& node, const runtime::v1::SELinuxOption& options,
                               const std::string& level, bool unconfined) {
  SelinuxLabels labels;
  if (!node.on()) return labels;
  CRISP_TRY(CheckPart("user", options.user(), false));
  CRISP_TRY(CheckPart("role", options.role(), false));
  CRISP_TRY(CheckPart("type", options.type(), false));
  CRISP_TRY(CheckPart("level", options.level(), true));
  std::array<std::string, 4> process = PartsOf(node.process);
  std::array<std::string, 4> file = PartsOf(node.file);
  if (unconfined) process[2] = "spc_t";
  if (!level.empty() && !unconfined) process[3] = file[3] = level;
  if (!options.user().empty()) process[0] = options.user();
  if (!options.role().empty()) process[1] = options.role();
  if (!options.type().empty()) process[2] = options.type();
  if (!options.level().empty()) process[3] = file[3] = options.level();
  labels.process = Join(process);
  CRISP_TRY(CheckLabel(node, labels.process));
  if (unconfined) return labels;
  labels.mount = Join(file);
  CRISP_TRY(CheckLabel(node, labels.mount));
  return labels;
}

Result<SelinuxLabels> ContainerLabels(const SelinuxNode& node,
                                      const runtime::v1::ContainerConfig& config,
                                      const runtime::v1::PodSandboxConfig& sandbox,
                                      const std::string& level) {
  const auto& security = config.linux().security_context();
  const auto& of_pod = sandbox.linux().security_context().namespace_options();
  const bool unconfined = security.privileged() ||
                          SeesHostPids(security.namespace_options(), sandbox) ||
                          of_pod.ipc() == runtime::v1::NODE;
  return LabelsOf(node, SelinuxOptionsOf(config, sandbox), level, unconfined);
}

Status Relabel(const SelinuxNode& node, const std::string& path, const std::string& label) {
  if (!node.on() || label.empty()) return Status::Ok();
  static constexpr std::array<std::string_view, 21> kSystem = {
      "/",      "/bin",   "/boot", "/dev", "/etc",  "/home", "/lib",
      "/lib64", "/media", "/mnt",  "/opt", "/proc", "/root", "/run",
      "/sbin",  "/srv",   "/sys",  "/tmp", "/usr",  "/var",  "/var/lib"};
  const std::string clean = CleanPath(path);
  if (std::find(kSystem.begin(), kSystem.end(), clean) != kSystem.end()) {
    return InvalidArgument("{} is the system's own, and is not relabelled", clean);
  }
  if (LabelOf(node, clean) == label) return Status::Ok();
  const os::UniqueFd top(open(clean.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!top.valid()) return Status::Errno(errno, "open {}", clean);
  struct stat info {};
  if (fstat(top.get(), &info) != 0) return Status::Errno(errno, "stat {}", clean);
  // The top comes last: it says that all below is done.
  if (S_ISDIR(info.st_mode)) {
    CRISP_TRY(LabelTree(node, top.get(), info.st_dev, label, 0).While("label {}", clean));
  }
  const std::size_t slash = clean.rfind('/');
  const os::UniqueFd parent =
      CRISP_TRY(os::Open(slash == 0 ? "/" : clean.substr(0, slash), O_PATH | O_DIRECTORY));
  return SetLabel(node, parent.get(), clean.c_str() + slash + 1, label).While("label {}", clean);
}

}  // namespace crisp::rund
