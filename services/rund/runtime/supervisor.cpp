#include "services/rund/runtime/supervisor.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <array>
#include <utility>
#include <vector>

#include "libs/base/try.h"

namespace crisp::rund {
namespace {

constexpr std::uint64_t kInotifyToken = 1;
constexpr std::uint64_t kWakeToken = 2;

Status Add(int epoll, int fd, std::uint64_t token) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = token;
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) return Status::FromErrno(errno, "epoll");
  return Status::Ok();
}

}  // namespace

std::string Supervisor::KeyFor(Kind kind, const std::string& id) {
  switch (kind) {
    case Kind::kMonitor: return "monitor/" + id;
    case Kind::kLogger: return "logger/" + id;
    case Kind::kPause: return "pause/" + id;
  }
  return id;
}

Result<std::unique_ptr<Supervisor>> Supervisor::Start(const std::string& exit_dir,
                                                      Handlers handlers) {
  std::unique_ptr<Supervisor> self(new Supervisor());
  self->handlers_ = std::move(handlers);
  self->epoll_.reset(epoll_create1(EPOLL_CLOEXEC));
  self->inotify_.reset(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  self->wake_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!self->epoll_ || !self->inotify_ || !self->wake_) {
    return Status::FromErrno(errno, "epoll, inotify or eventfd");
  }
  // conmon writes a temporary file and renames it: only the whole file is of interest.
  if (inotify_add_watch(self->inotify_.get(), exit_dir.c_str(), IN_MOVED_TO | IN_ONLYDIR) < 0) {
    return Status::Errno(errno, "watch {}", exit_dir);
  }
  CRISP_TRY(Add(self->epoll_.get(), self->inotify_.get(), kInotifyToken));
  CRISP_TRY(Add(self->epoll_.get(), self->wake_.get(), kWakeToken));
  self->thread_ = std::thread([raw = self.get()] { raw->Serve(); });
  return self;
}

Supervisor::~Supervisor() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  eventfd_write(wake_.get(), 1);
  thread_.join();
}

void Supervisor::WatchMonitor(const ContainerId& id, const os::ProcessId& monitor) {
  Watch(Kind::kMonitor, id.str(), monitor);
}
void Supervisor::WatchLogger(const ContainerId& id, const os::ProcessId& logger) {
  Watch(Kind::kLogger, id.str(), logger);
}
void Supervisor::WatchPause(const PodId& id, const os::ProcessId& pause) {
  Watch(Kind::kPause, id.str(), pause);
}
void Supervisor::Forget(const ContainerId& id) {
  Forget(KeyFor(Kind::kMonitor, id.str()));
  Forget(KeyFor(Kind::kLogger, id.str()));
}
void Supervisor::Forget(const PodId& id) { Forget(KeyFor(Kind::kPause, id.str())); }

void Supervisor::Watch(Kind kind, const std::string& id, const os::ProcessId& process) {
  const std::string key = KeyFor(kind, id);
  Forget(key);
  Watched watched{kind, id, {}};
  if (auto pidfd = os::PidFd::Open(process); pidfd.ok()) watched.process = std::move(*pidfd);
  const std::lock_guard lock(mutex_);
  const std::uint64_t token = next_token_++;
  const int fd = watched.process.fd();
  tokens_[key] = token;
  watched_.emplace(token, std::move(watched));
  // One that is gone is found when the thread looks for processes without a descriptor.
  if (fd < 0 || !Add(epoll_.get(), fd, token).ok()) eventfd_write(wake_.get(), 1);
}

void Supervisor::Forget(const std::string& key) {
  const std::lock_guard lock(mutex_);
  const auto found = tokens_.find(key);
  if (found == tokens_.end()) return;
  watched_.erase(found->second);  // closing the descriptor takes it out of the epoll set
  tokens_.erase(found);
}

void Supervisor::Serve() {
  std::array<epoll_event, 32> events{};
  for (;;) {
    const int n = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), -1);
    bool woken = false;
    // Exit files first: they say more than the end of the process that wrote them.
    for (int i = 0; i < n; ++i) {
      const std::uint64_t token = events.at(static_cast<std::size_t>(i)).data.u64;
      if (token == kInotifyToken) OnInotify();
      if (token == kWakeToken) woken = true;
    }
    for (int i = 0; i < n; ++i) {
      const std::uint64_t token = events.at(static_cast<std::size_t>(i)).data.u64;
      if (token > kWakeToken) OnGone(token);
    }
    if (!woken) continue;
    eventfd_t count = 0;
    eventfd_read(wake_.get(), &count);
    std::vector<std::uint64_t> gone;
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) return;
      for (const auto& [token, watched] : watched_) {
        if (!watched.process.valid()) gone.push_back(token);
      }
    }
    for (const std::uint64_t token : gone) OnGone(token);
  }
}

void Supervisor::OnInotify() {
  alignas(inotify_event) std::array<char, 16384> buffer{};
  for (;;) {
    const ssize_t n = read(inotify_.get(), buffer.data(), buffer.size());
    if (n <= 0) return;
    std::size_t at = 0;
    while (at < static_cast<std::size_t>(n)) {
      inotify_event event{};
      std::copy_n(buffer.data() + at, sizeof event, reinterpret_cast<char*>(&event));
      const std::string name(buffer.data() + at + sizeof event);
      at += sizeof event + event.len;
      if (event.len > 0 && IsFullId(name)) handlers_.on_exit_file(ContainerId(name));
    }
  }
}

void Supervisor::OnGone(std::uint64_t token) {
  Watched gone;
  {
    const std::lock_guard lock(mutex_);
    const auto found = watched_.find(token);
    if (found == watched_.end()) return;
    gone = std::move(found->second);
    tokens_.erase(KeyFor(gone.kind, gone.id));
    watched_.erase(found);
  }
  switch (gone.kind) {
    case Kind::kMonitor: return handlers_.on_monitor_gone(ContainerId(gone.id));
    case Kind::kLogger: return handlers_.on_logger_gone(ContainerId(gone.id));
    case Kind::kPause: return handlers_.on_pause_gone(PodId(gone.id));
  }
}

}  // namespace crisp::rund
