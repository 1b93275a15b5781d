#include "libs/os/unique_fd.h"

#include <unistd.h>

#include <cerrno>

namespace crisp::os {

void UniqueFd::reset(int fd) {
  if (fd_ >= 0 && fd_ != fd) {
    const int saved = errno;
    ::close(fd_);  // Linux frees the number whatever close answers
    errno = saved;
  }
  fd_ = fd;
}

}  // namespace crisp::os
