#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <climits>
#include <cstdlib>

#include "libs/base/try.h"
#include "libs/os/confine.h"
#include "libs/os/unique_fd.h"

// The kernel's header (linux/landlock.h) is older than the kernels we meet, so its words are
// repeated here: an older kernel ignores the fields that it does not know as long as they are 0.
namespace crisp::os::internal {
namespace {

struct RulesetAttr {
  std::uint64_t handled_fs = 0;
  std::uint64_t handled_net = 0;
  std::uint64_t scoped = 0;
};
struct [[gnu::packed]] PathAttr {
  std::uint64_t allowed = 0;
  std::int32_t parent_fd = -1;
};
struct PortAttr {
  std::uint64_t allowed = 0;
  std::uint64_t port = 0;
};
constexpr int kRulePath = 1;
constexpr int kRulePort = 2;
constexpr unsigned kAskVersion = 1;

constexpr std::uint64_t kExecute = 1U << 0U;
constexpr std::uint64_t kWriteFile = 1U << 1U;
constexpr std::uint64_t kReadFile = 1U << 2U;
constexpr std::uint64_t kReadDir = 1U << 3U;
constexpr std::uint64_t kRemoveFile = 1U << 5U;
constexpr std::uint64_t kMakeSocket = 1U << 9U;
constexpr std::uint64_t kFirstVersion = (1U << 13U) - 1;  // all up to MAKE_SYM
constexpr std::uint64_t kRefer = 1U << 13U;               // rename and link between directories: 2
constexpr std::uint64_t kTruncate = 1U << 14U;            // since version 3
constexpr std::uint64_t kIoctlDevice = 1U << 15U;         // since version 5
constexpr std::uint64_t kForFiles = kExecute | kWriteFile | kReadFile | kTruncate | kIoctlDevice;

constexpr std::uint64_t kBindTcp = 1U << 0U;  // since version 4
constexpr std::uint64_t kConnectTcp = 1U << 1U;

constexpr std::uint64_t kAbstractSockets = 1U << 0U;  // since version 6
constexpr std::uint64_t kSignals = 1U << 1U;

std::uint64_t HandledFs(int abi) {
  std::uint64_t handled = kFirstVersion;
  if (abi >= 2) handled |= kRefer;
  if (abi >= 3) handled |= kTruncate;
  if (abi >= 5) handled |= kIoctlDevice;
  return handled;
}

/// The path that the rule is for: see ConfinePlan::read.
std::string RulePath(const std::string& path) {
  struct stat info {};
  std::array<char, PATH_MAX> buffer{};
  if (::stat(path.c_str(), &info) != 0 || S_ISDIR(info.st_mode)) return path;
  if (::realpath(path.c_str(), buffer.data()) == nullptr) return path;
  const std::string real = buffer.data();
  const std::string directory = real.substr(0, real.rfind('/'));
  const bool elsewhere = directory != path.substr(0, path.rfind('/'));
  return elsewhere && directory.find('/', 1) != std::string::npos ? directory : path;
}

Status Allow(int ruleset, const std::string& path, std::uint64_t access) {
  const std::string rule_path = RulePath(path);
  const UniqueFd fd(::open(rule_path.c_str(), O_PATH | O_CLOEXEC));
  if (!fd) {
    if (errno == ENOENT || errno == ENOTDIR) return Status::Ok();
    return Status::Errno(errno, "open {}", rule_path);
  }
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return Status::Errno(errno, "stat {}", rule_path);
  if (!S_ISDIR(info.st_mode)) access &= kForFiles;
  const PathAttr rule{.allowed = access, .parent_fd = fd.get()};
  if (::syscall(SYS_landlock_add_rule, ruleset, kRulePath, &rule, 0) != 0)
    return Status::Errno(errno, "landlock: allow {}", rule_path);
  return Status::Ok();
}

}  // namespace

Result<int> LimitPaths(const ConfinePlan& plan) {
  const auto abi =
      static_cast<int>(::syscall(SYS_landlock_create_ruleset, nullptr, 0, kAskVersion));
  if (abi < 0) {
    if (errno == ENOSYS || errno == EOPNOTSUPP) return 0;
    return Status::Errno(errno, "landlock");
  }
  RulesetAttr attributes;
  attributes.handled_fs = HandledFs(abi);
  if (abi >= 4) attributes.handled_net = kBindTcp | (plan.connect_tcp ? 0 : kConnectTcp);
  if (abi >= 6) {
    attributes.scoped = kSignals;
    // systemd's notify socket may be an abstract one.
    const char* notify = std::getenv("NOTIFY_SOCKET");
    if (notify == nullptr || *notify != '@') attributes.scoped |= kAbstractSockets;
  }
  const UniqueFd ruleset(
      static_cast<int>(::syscall(SYS_landlock_create_ruleset, &attributes, sizeof attributes, 0)));
  if (!ruleset) return Status::Errno(errno, "landlock: make a ruleset");

  const std::uint64_t all = attributes.handled_fs;
  for (const std::string& path : plan.read)
    CRISP_TRY(Allow(ruleset.get(), path, kReadFile | kReadDir));
  for (const std::string& path : plan.execute)
    CRISP_TRY(Allow(ruleset.get(), path, kReadFile | kReadDir | kExecute));
  for (const std::string& path : plan.sockets)
    CRISP_TRY(Allow(ruleset.get(), path, kReadDir | kMakeSocket | kRemoveFile));
  for (const std::string& path : plan.write)
    CRISP_TRY(Allow(ruleset.get(), path, all & ~(kExecute | kIoctlDevice)));
  if (abi >= 4)
    for (const std::uint16_t port : plan.listen_tcp) {
      const PortAttr rule{.allowed = kBindTcp, .port = port};
      if (::syscall(SYS_landlock_add_rule, ruleset.get(), kRulePort, &rule, 0) != 0)
        return Status::Errno(errno, "landlock: allow port {}", port);
    }
  if (::syscall(SYS_landlock_restrict_self, ruleset.get(), 0) != 0)
    return Status::Errno(errno, "landlock: restrict this process");
  return abi;
}

}  // namespace crisp::os::internal
