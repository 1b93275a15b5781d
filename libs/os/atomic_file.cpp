#include "libs/os/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>

#include "libs/base/cleanup.h"
#include "libs/base/try.h"
#include "libs/os/files.h"

namespace crisp::os {
namespace {

std::string TemporaryName(const std::string& path) {
  static std::atomic<std::uint64_t> counter = 0;
  const std::size_t slash = path.rfind('/');
  const std::size_t start = slash == std::string::npos ? 0 : slash + 1;
  return fmt::format("{}.{}.tmp-{}-{}", path.substr(0, start), path.substr(start), ::getpid(),
                     counter.fetch_add(1));
}

}  // namespace

Status WriteFileAtomic(const std::string& path, std::string_view text, mode_t mode, bool sync) {
  const std::string temporary = TemporaryName(path);
  // A file of that name can only be left from an earlier process of the same number.
  CRISP_TRY(RemoveFile(temporary));
  UniqueFd fd = CRISP_TRY(Open(temporary, O_WRONLY | O_CREAT | O_EXCL, mode));
  Cleanup remove([&temporary] { ::unlink(temporary.c_str()); });
  if (::fchmod(fd.get(), mode) != 0) return Status::Errno(errno, "chmod {}", temporary);
  CRISP_TRY(WriteAll(fd.get(), text, temporary));
  if (sync && ::fsync(fd.get()) != 0) return Status::Errno(errno, "fsync {}", temporary);
  fd.reset();
  CRISP_TRY(Rename(temporary, path));
  remove.Dismiss();
  if (sync) {
    const std::size_t slash = path.rfind('/');
    const std::string parent = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    const UniqueFd directory = CRISP_TRY(Open(parent, O_RDONLY | O_DIRECTORY));
    if (::fsync(directory.get()) != 0) return Status::Errno(errno, "fsync {}", parent);
  }
  return Status::Ok();
}

}  // namespace crisp::os
