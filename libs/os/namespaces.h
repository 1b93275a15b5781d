#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "libs/base/result.h"
#include "libs/os/unique_fd.h"

namespace crisp::os {

enum class NamespaceKind { kNet, kIpc, kUts, kUser, kPid };

struct NamespaceTarget {
  NamespaceKind kind = NamespaceKind::kNet;
  std::string path;  // the file that will hold it; made when absent, its directory must exist
};

/// A namespace held by a bind mount on a file, so that it lives without a process. Until Commit()
/// the destructor unpins it; afterwards whoever recorded the path does (UnpinNamespace).
class NamespacePin {
 public:
  /// New namespaces of all the kinds named, made at once by a thread of their own that then ends.
  /// `setup` runs on that thread, inside all of them, before they are pinned: sethostname, sysctls,
  /// loopback up. `meanwhile` runs on the calling thread, beside that one (not when something is
  /// wrong before). A file that is pinned already is kAlreadyExists. On failure nothing stays.
  /// kUser and kPid are refused: only a process with a single thread gets the first, only its
  /// children the second (see OfProcess).
  static Result<std::vector<NamespacePin>> Create(const std::vector<NamespaceTarget>& targets,
                                                  const std::function<Status()>& setup = nullptr,
                                                  const std::function<void()>& meanwhile = nullptr);

  /// A new network namespace that belongs to the user namespace at `userns_path`: root inside that
  /// one may configure it. Otherwise as Create. kNotFound: no such user namespace.
  static Result<NamespacePin> CreateNetIn(const std::string& userns_path, const std::string& path,
                                          const std::function<Status()>& setup = nullptr,
                                          const std::function<void()>& meanwhile = nullptr);
  /// Pins namespaces that process `pid` is in.
  static Result<std::vector<NamespacePin>> OfProcess(pid_t pid,
                                                     const std::vector<NamespaceTarget>& targets);

  NamespacePin(NamespacePin&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  NamespacePin& operator=(NamespacePin&& other) noexcept;
  ~NamespacePin();

  const std::string& path() const { return path_; }
  /// It is recorded: leave it when the object goes.
  void Commit() { path_.clear(); }

 private:
  explicit NamespacePin(std::string path) : path_(std::move(path)) {}
  static Result<std::vector<NamespacePin>> PinAll(const std::string& proc_dir,
                                                  const std::vector<NamespaceTarget>& targets);
  std::string path_;
};

/// Unmounts and removes the file. Absent or not pinned = Ok. The namespace itself goes when its
/// last process does.
Status UnpinNamespace(const std::string& path);
/// Whether `path` holds a namespace (nsfs), not just a file. Absent = false.
Result<bool> IsPinnedNamespace(const std::string& path);

/// Runs `fn` on a thread of its own and waits for it: that thread may leave what the process shares
/// (namespaces, the working directory), because it ends. `meanwhile` runs on the calling one.
Status OnOwnThread(const std::function<Status()>& fn,
                   const std::function<void()>& meanwhile = nullptr);
/// Runs `fn` inside the namespaces at `paths` ("/run/…/netns/x", "/proc/1/ns/net"), on a thread
/// made for it that then ends; returns what `fn` returns. The order of the paths is the order of
/// entry. Only for what blocks shortly: the caller waits for the thread.
Status RunInNamespaces(const std::vector<std::string>& paths, const std::function<Status()>& fn);
Status RunInNamespace(const std::string& path, const std::function<Status()>& fn);

/// A run of ids in a user namespace: `count` ids from `inside` on are those from `outside` on.
struct IdRange {
  std::uint32_t inside = 0;
  std::uint32_t outside = 0;
  std::uint32_t count = 0;

  bool operator==(const IdRange&) const = default;
  /// Nothing for an id that is not in the run.
  std::optional<std::uint32_t> ToOutside(std::uint64_t id) const {
    if (id < inside || id - inside >= count) return std::nullopt;
    return outside + static_cast<std::uint32_t>(id - inside);
  }
};
/// Gives the user namespace of a process, which is new and has none yet, its ids.
Status WriteIdMaps(pid_t pid, const IdRange& uids, const IdRange& gids);

/// Writes the current thread's sysctl: "net.ipv4.ip_forward" or with slashes → /proc/sys/….
/// kInvalidArgument for names that would leave /proc/sys. For use in `setup` and `fn`. Dots inside
/// an interface's name are written as slashes, as sysctl(8) has it.
Status WriteSysctl(const std::string& name, const std::string& value);

}  // namespace crisp::os
