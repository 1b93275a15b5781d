#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "libs/base/result.h"
#include "libs/base/status.h"
#include "libs/os/unique_fd.h"
#include "libs/rpc/listener.h"

namespace crisp::rpc {

/// Takes connections from listeners, on a thread of its own, and hands them on. gRPC would do so by
/// itself, but only from sockets that it has made.
class Acceptor {
 public:
  /// `take` gets each connection (non-blocking, close-on-exec), on the acceptor's thread.
  static Result<std::unique_ptr<Acceptor>> Start(std::vector<Listener> listeners,
                                                 std::function<void(os::UniqueFd)> take);
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;
  /// Takes no more; `take` has returned for the last time. Who connects from then on waits in the
  /// queue of an inherited listener, and is refused by one of our own.
  ~Acceptor();

  /// Takes no more, and tells the clients so: see SayGoodbye. Idempotent.
  void Close(std::chrono::milliseconds limit);

 private:
  Acceptor(std::vector<Listener> listeners, std::function<void(os::UniqueFd)> take,
           os::UniqueFd stop);
  void Loop();
  /// All that wait in one queue. Fails when there are no descriptors or no memory for more.
  Status TakeFrom(const Listener& listener);
  void End();

  std::vector<Listener> listeners_;
  const std::function<void(os::UniqueFd)> take_;
  // Of those that are open, descriptors of our own. The thread's, then End's caller's.
  std::vector<os::UniqueFd> connections_;
  std::chrono::steady_clock::time_point last_taken_;
  const os::UniqueFd stop_;  // readable: the end
  std::thread thread_;
};

}  // namespace crisp::rpc
