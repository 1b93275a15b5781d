#pragma once

#include <functional>
#include <memory>

#include "libs/os/unique_fd.h"

namespace crisp::loop {
class Loop;
}

namespace crisp::rund::streaming {

/// A descriptor that never blocks, on the streaming thread: read(2) and write(2) it, and wait when
/// it says EAGAIN.
class Descriptor {
 public:
  /// Makes it O_NONBLOCK. A pipe, a socket, a terminal: something that can be waited for.
  Descriptor(loop::Loop& loop, os::UniqueFd fd);
  /// Close().
  ~Descriptor();
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  /// -1 once closed.
  int fd() const;
  /// `fn` once, later. One wait of each kind at a time.
  void WhenReadable(std::function<void()> fn);
  void WhenWritable(std::function<void()> fn);
  /// What is waited for never comes.
  void Close();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};
using DescriptorPtr = std::shared_ptr<Descriptor>;

}  // namespace crisp::rund::streaming
