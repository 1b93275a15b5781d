#include "libs/os/beneath.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "libs/base/try.h"
#include "libs/os/files.h"

namespace crisp::os {
namespace {

UniqueFd OpenAt2(int directory, const std::string& relative, int flags, mode_t mode, Scope scope) {
  open_how how = {};
  how.flags = static_cast<unsigned>(flags) | O_CLOEXEC;
  if ((flags & (O_CREAT | O_TMPFILE)) != 0) how.mode = mode;
  how.resolve =
      RESOLVE_NO_MAGICLINKS | (scope == Scope::kBeneath ? RESOLVE_BENEATH : RESOLVE_IN_ROOT);
  const char* path = relative.empty() ? "." : relative.c_str();
  long fd = -1;
  // EAGAIN: something was renamed while the kernel looked; it asks to be called again.
  for (int attempt = 0; attempt < 100; ++attempt) {
    fd = ::syscall(SYS_openat2, directory, path, &how, sizeof(how));
    if (fd >= 0 || (errno != EAGAIN && errno != EINTR)) break;
  }
  return UniqueFd(static_cast<int>(fd));
}

}  // namespace

Result<Beneath> Beneath::Open(const std::string& directory, Scope scope) {
  UniqueFd fd = CRISP_TRY(os::Open(directory, O_PATH | O_DIRECTORY));
  return Beneath(std::move(fd), scope, directory);
}

Beneath::Beneath(UniqueFd directory, Scope scope, std::string name)
    : directory_(std::move(directory)), scope_(scope), name_(std::move(name)) {}

Result<UniqueFd> Beneath::OpenFile(const std::string& relative, int flags, mode_t mode) const {
  UniqueFd fd = OpenAt2(directory_.get(), relative, flags, mode, scope_);
  if (!fd) return Status::Errno(errno, "open {} in {}", relative, name_);
  return fd;
}

Result<Beneath> Beneath::OpenDir(const std::string& relative) const {
  UniqueFd fd = CRISP_TRY(OpenFile(relative, O_PATH | O_DIRECTORY));
  return Beneath(std::move(fd), scope_, name_ + "/" + relative);
}

Result<Beneath> Beneath::MakeDirs(const std::string& relative, mode_t mode) const {
  // Part by part from our own directory, so that each prefix is resolved within the scope.
  std::size_t start = 0;
  std::string done;
  while (start < relative.size()) {
    const std::size_t slash = std::min(relative.find('/', start), relative.size());
    const std::string part = relative.substr(start, slash - start);
    start = slash + 1;
    if (part.empty() || part == ".") continue;
    const std::string next = done.empty() ? part : done + "/" + part;
    UniqueFd there = OpenAt2(directory_.get(), next, O_PATH | O_DIRECTORY, 0, scope_);
    if (!there) {
      if (errno != ENOENT || part == "..") {
        return Status::Errno(errno, "make directory {} in {}", next, name_);
      }
      const UniqueFd parent = OpenAt2(directory_.get(), done, O_PATH | O_DIRECTORY, 0, scope_);
      if (!parent) return Status::Errno(errno, "open {} in {}", done, name_);
      if (::mkdirat(parent.get(), part.c_str(), mode) != 0 && errno != EEXIST) {
        return Status::Errno(errno, "make directory {} in {}", next, name_);
      }
      // EEXIST although it does not open: a dangling symlink. The next round or OpenDir says so.
    }
    done = next;
  }
  return OpenDir(done);
}

Result<std::string> Beneath::ReadFile(const std::string& relative, Bytes limit) const {
  const UniqueFd fd = CRISP_TRY(OpenFile(relative, O_RDONLY | O_NONBLOCK));
  return ReadAll(fd.get(), relative, limit);
}

Status Beneath::WriteFile(const std::string& relative, std::string_view text, mode_t mode) const {
  const UniqueFd fd =
      CRISP_TRY(OpenFile(relative, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK, mode));
  return WriteAll(fd.get(), text, relative);
}

std::string Beneath::ProcPath() const { return fmt::format("/proc/self/fd/{}", directory_.get()); }

}  // namespace crisp::os
