#include "services/rund/stats/kept_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "libs/os/files.h"

namespace crisp::rund {
namespace {

std::string_view ReadFrom(int fd, Scratch& scratch) {
  std::size_t done = 0;
  while (done < scratch.size()) {
    const ssize_t got =
        ::pread(fd, scratch.data() + done, scratch.size() - done, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;  // ENODEV: the cgroup is gone
    done += static_cast<std::size_t>(got);
  }
  return {scratch.data(), done};
}

}  // namespace

std::string_view KeptFile::Read(Scratch& scratch) {
  if (!fd_.valid()) {
    if (path_.empty()) return {};
    if (!keep_) return ReadOnce(path_, scratch);
    auto fd = os::Open(path_, O_RDONLY);
    if (!fd.ok()) {
      path_.clear();
      return {};
    }
    fd_ = *std::move(fd);
  }
  return ReadFrom(fd_.get(), scratch);
}

std::string_view ReadOnce(const std::string& path, Scratch& scratch) {
  const auto fd = os::Open(path, O_RDONLY);
  return fd.ok() ? ReadFrom(fd->get(), scratch) : std::string_view();
}

}  // namespace crisp::rund
