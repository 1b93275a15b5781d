#include "libs/rpc/acceptor.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "libs/base/check.h"
#include "libs/log/log.h"
#include "libs/rpc/goodbye.h"

namespace crisp::rpc {
namespace {

/// Until connections are tried again that could not be taken for want of descriptors or memory.
constexpr int kPauseMilliseconds = 100;
/// For gRPC to send its first frame on a connection, which has to be the first of all.
constexpr std::chrono::milliseconds kFirstFrame{30};

}  // namespace

Result<std::unique_ptr<Acceptor>> Acceptor::Start(std::vector<Listener> listeners,
                                                  std::function<void(os::UniqueFd)> take) {
  os::UniqueFd stop(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop) return Status::Errno(errno, "eventfd");
  return std::unique_ptr<Acceptor>(
      new Acceptor(std::move(listeners), std::move(take), std::move(stop)));
}

Acceptor::Acceptor(std::vector<Listener> listeners, std::function<void(os::UniqueFd)> take,
                   os::UniqueFd stop)
    : listeners_(std::move(listeners)),
      take_(std::move(take)),
      stop_(std::move(stop)),
      thread_([this] { Loop(); }) {}

Acceptor::~Acceptor() { End(); }

void Acceptor::End() {
  if (!thread_.joinable()) return;
  CRISP_CHECK(eventfd_write(stop_.get(), 1) == 0);
  thread_.join();
  listeners_.clear();
}

void Acceptor::Close(std::chrono::milliseconds limit) {
  if (!thread_.joinable()) return;
  End();
  if (!connections_.empty()) std::this_thread::sleep_until(last_taken_ + kFirstFrame);
  SayGoodbye(connections_, limit);
  connections_.clear();
}

void Acceptor::Loop() {
  pthread_setname_np(pthread_self(), "accept");
  bool pause = false;
  while (true) {
    // Those that are open are watched for their end alone, which is told unasked.
    std::vector<pollfd> watched = {{stop_.get(), POLLIN, 0}};
    for (const os::UniqueFd& connection : connections_) watched.push_back({connection.get(), 0, 0});
    if (!pause) {
      for (const Listener& listener : listeners_) watched.push_back({listener.fd(), POLLIN, 0});
    }
    if (poll(watched.data(), watched.size(), pause ? kPauseMilliseconds : -1) < 0) {
      CRISP_CHECK(errno == EINTR);
      continue;
    }
    if (watched.front().revents != 0) return;
    std::erase_if(connections_, HungUp);
    const bool paused = std::exchange(pause, false);
    for (const Listener& listener : listeners_) {
      const Status taken = TakeFrom(listener);
      if (taken.ok()) continue;
      if (!paused && !pause) log::Warn("connections have to wait", {{"error", taken}});
      pause = true;
    }
  }
}

Status Acceptor::TakeFrom(const Listener& listener) {
  while (true) {
    os::UniqueFd connection(accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (connection) {
      os::UniqueFd ours(fcntl(connection.get(), F_DUPFD_CLOEXEC, 0));
      if (ours) connections_.push_back(std::move(ours));
      last_taken_ = std::chrono::steady_clock::now();
      take_(std::move(connection));
    } else if (errno == EAGAIN) {
      return Status::Ok();
    } else if (errno != EINTR && errno != ECONNABORTED) {
      return Status::Errno(errno, "accept on {}", listener.path());
    }
  }
}

}  // namespace crisp::rpc
