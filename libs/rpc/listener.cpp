#include "libs/rpc/listener.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <utility>

#include "libs/base/cleanup.h"
#include "libs/base/try.h"

namespace crisp::rpc {
namespace {

/// The kernel takes what net.core.somaxconn allows of it.
constexpr int kBacklog = 4096;
/// At the end of the name while the socket is being made.
constexpr char kUnfinished = '~';

sockaddr_un AddressOf(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

/// sockaddr_un is what the socket calls mean by sockaddr.
const sockaddr* Generic(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

Result<os::UniqueFd> NewSocket() {
  os::UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return Status::Errno(errno, "socket");
  return fd;
}

/// Nothing at `path`, or what a dead server left.
Status CheckFree(const std::string& path) {
  struct stat found {};
  if (lstat(path.c_str(), &found) != 0) {
    if (errno == ENOENT) return Status::Ok();
    return Status::Errno(errno, "stat {}", path);
  }
  if (!S_ISSOCK(found.st_mode)) return FailedPrecondition("{} is there and is no socket", path);
  const os::UniqueFd probe = CRISP_TRY(NewSocket());
  const sockaddr_un address = AddressOf(path);
  if (connect(probe.get(), Generic(address), sizeof address) == 0 || errno == EAGAIN) {
    return FailedPrecondition("another server listens on {}", path);
  }
  if (errno != ECONNREFUSED && errno != ENOENT) return Status::Errno(errno, "connect {}", path);
  return Status::Ok();
}

Result<int> SocketOption(int fd, int option) {
  int value = 0;
  socklen_t size = sizeof value;
  if (getsockopt(fd, SOL_SOCKET, option, &value, &size) != 0) {
    return Status::Errno(errno, "getsockopt");
  }
  return value;
}

Result<std::string> BoundPath(int fd) {
  sockaddr_un address{};
  socklen_t size = sizeof address;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return Status::Errno(errno, "getsockname");
  }
  // A path need not end in a zero; an abstract name begins with one.
  const std::size_t length = size - std::min<std::size_t>(size, offsetof(sockaddr_un, sun_path));
  return std::string(address.sun_path, strnlen(address.sun_path, length));
}

}  // namespace

Result<Listener> Listener::Bind(const std::string& path, mode_t mode) {
  if (path.empty() || path.size() > kMaxSocketPath) {
    return InvalidArgument("'{}' is too long for a unix socket ({} bytes at most)", path,
                           kMaxSocketPath);
  }
  CRISP_TRY(CheckFree(path));
  const std::string unfinished = path + kUnfinished;
  if (unlink(unfinished.c_str()) != 0 && errno != ENOENT) {
    return Status::Errno(errno, "unlink {}", unfinished);
  }
  os::UniqueFd fd = CRISP_TRY(NewSocket());
  const sockaddr_un address = AddressOf(unfinished);
  if (bind(fd.get(), Generic(address), sizeof address) != 0) {
    return Status::Errno(errno, "bind {}", path);
  }
  Cleanup remove([&unfinished] { unlink(unfinished.c_str()); });
  if (chmod(unfinished.c_str(), mode) != 0) return Status::Errno(errno, "chmod {}", unfinished);
  if (listen(fd.get(), kBacklog) != 0) return Status::Errno(errno, "listen on {}", path);
  struct stat made {};
  if (lstat(unfinished.c_str(), &made) != 0) return Status::Errno(errno, "stat {}", unfinished);
  if (rename(unfinished.c_str(), path.c_str()) != 0) {
    return Status::Errno(errno, "rename {} to {}", unfinished, path);
  }
  remove.Dismiss();
  Listener listener(std::move(fd), path);
  listener.device_ = made.st_dev;
  listener.inode_ = made.st_ino;
  return listener;
}

Result<Listener> Listener::Inherit(os::UniqueFd fd) {
  const int domain = CRISP_TRY(SocketOption(fd.get(), SO_DOMAIN));
  const int type = CRISP_TRY(SocketOption(fd.get(), SO_TYPE));
  const int listens = CRISP_TRY(SocketOption(fd.get(), SO_ACCEPTCONN));
  if (domain != AF_UNIX || type != SOCK_STREAM || listens == 0) {
    return InvalidArgument("the descriptor is no unix stream socket that listens");
  }
  const int flags = fcntl(fd.get(), F_GETFL);
  if (flags < 0 || fcntl(fd.get(), F_SETFL, flags | O_NONBLOCK) != 0 ||
      fcntl(fd.get(), F_SETFD, FD_CLOEXEC) != 0) {
    return Status::Errno(errno, "fcntl");
  }
  std::string path = CRISP_TRY(BoundPath(fd.get()));
  return Listener(std::move(fd), std::move(path));
}

Listener::Listener(Listener&& other) noexcept
    : fd_(std::move(other.fd_)),
      path_(std::move(other.path_)),
      device_(std::exchange(other.device_, 0)),
      inode_(std::exchange(other.inode_, 0)) {}

Listener::~Listener() {
  if (inode_ == 0) return;
  struct stat found {};
  if (lstat(path_.c_str(), &found) != 0) return;
  if (found.st_dev == device_ && found.st_ino == inode_) unlink(path_.c_str());
}

}  // namespace crisp::rpc
