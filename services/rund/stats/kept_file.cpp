#include "services/rund/stats/kept_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "libs/os/files.h"

namespace crisp::rund {
namespace {

/// One pread: the kernel makes the text of such a file in one piece, and would make all of it again
/// to say that there is no more.
std::string_view ReadAtOnce(int fd, Scratch& scratch) {
  ssize_t got = 0;
  do {
    got = ::pread(fd, scratch.data(), scratch.size(), 0);
  } while (got < 0 && errno == EINTR);
  // ENODEV: the cgroup is gone
  return {scratch.data(), got < 0 ? 0 : static_cast<std::size_t>(got)};
}

/// To the end, for files that come in several pieces as well.
std::string_view ReadOn(int fd, Scratch& scratch) {
  std::size_t done = 0;
  while (done < scratch.size()) {
    const ssize_t got = ::read(fd, scratch.data() + done, scratch.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
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
  return ReadAtOnce(fd_.get(), scratch);
}

std::string_view ReadOnce(const std::string& path, Scratch& scratch) {
  const auto fd = os::Open(path, O_RDONLY);
  return fd.ok() ? ReadOn(fd->get(), scratch) : std::string_view();
}

}  // namespace crisp::rund
