#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "libs/base/result.h"
#include "libs/base/units.h"
#include "libs/os/unique_fd.h"

namespace crisp::os {

/// How a path that leads outside is treated.
enum class Scope {
  kBeneath,  // "..", absolute paths and symlinks that lead out fail (kInvalidArgument)
  kInRoot,   // as if the directory were "/": for root file systems of containers
};

/// A directory below which paths from outside (images, pods, plugins) are opened, by openat2(2): no
/// race and no symlink gets out. Magic links of /proc are never followed.
class Beneath {
 public:
  static Result<Beneath> Open(const std::string& directory, Scope scope = Scope::kBeneath);
  /// Takes over an open directory; `name` is for errors.
  Beneath(UniqueFd directory, Scope scope, std::string name);

  /// `flags` and `mode` as for open(2); O_CLOEXEC is added. "" and "." are the directory itself.
  Result<UniqueFd> OpenFile(const std::string& relative, int flags, mode_t mode = 0) const;
  Result<Beneath> OpenDir(const std::string& relative) const;
  /// mkdir -p of a relative path, through symlinks as far as the scope allows them.
  Result<Beneath> MakeDirs(const std::string& relative, mode_t mode = 0755) const;
  Result<std::string> ReadFile(const std::string& relative, Bytes limit = MiB(4)) const;
  /// Creates or truncates a file (through symlinks inside the scope), then writes.
  Status WriteFile(const std::string& relative, std::string_view text, mode_t mode = 0644) const;

  int fd() const { return directory_.get(); }
  const std::string& name() const { return name_; }
  /// "/proc/self/fd/<n>": for calls that want a path; valid while this object lives.
  std::string ProcPath() const;

 private:
  UniqueFd directory_;
  Scope scope_;
  std::string name_;
};

}  // namespace crisp::os
