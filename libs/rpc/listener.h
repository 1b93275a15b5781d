#pragma once

#include <sys/types.h>

#include <string>

#include "libs/base/result.h"
#include "libs/os/unique_fd.h"

namespace crisp::rpc {

/// The longest path that Listener::Bind takes: sockaddr_un has room for one character more, which
/// the name has while the socket is being made.
inline constexpr std::size_t kMaxSocketPath = 106;

/// A unix socket that clients can connect to. Accepting is its owner's matter; who connects before
/// waits in the kernel's queue.
class Listener {
 public:
  /// Makes a socket with `mode` at `path`, whose directory exists. It is moved there when it
  /// listens already, over what a dead server left: clients that look for it always find either.
  /// kInvalidArgument: the path is too long. kFailedPrecondition: a living server is there, or no
  /// socket at all.
  static Result<Listener> Bind(const std::string& path, mode_t mode);
  /// One that whoever started us has made and keeps: connections queue in it while we are away.
  /// kInvalidArgument: `fd` is no unix stream socket that listens.
  static Result<Listener> Inherit(os::UniqueFd fd);

  Listener(Listener&& other) noexcept;
  Listener& operator=(Listener&&) = delete;
  /// Of its own making it also takes away the file, unless another server's is there by now.
  ~Listener();

  int fd() const { return fd_.get(); }
  const std::string& path() const { return path_; }

 private:
  Listener(os::UniqueFd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

  os::UniqueFd fd_;
  std::string path_;  // empty: an inherited one without a file
  // The file that we made; 0, 0 when we made none.
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

}  // namespace crisp::rpc
