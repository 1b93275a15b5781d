#include "libs/loop/loop.h"

#include <pthread.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <cstring>
#include <future>

#include "libs/base/check.h"
#include "libs/os/unique_fd.h"

namespace crisp::loop {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

/// The loop's thread needs little.
constexpr std::size_t kStackBytes = std::size_t{256} << 10U;

/// What each watch shares: its asio object lives and dies on the loop's thread, Cancel() only asks
/// for that.
template <typename Derived>
class Base : public internal::Watch, public std::enable_shared_from_this<Derived> {
 public:
  explicit Base(asio::io_context& io) : io_(io) {}

  void Cancel() override {
    if (cancelled_.exchange(true)) return;
    if (io_.get_executor().running_in_this_thread()) {
      static_cast<Derived*>(this)->Close();
    } else {
      asio::post(io_, [self = this->shared_from_this()] { self->Close(); });
    }
  }
  bool cancelled() const { return cancelled_; }

 protected:
  asio::io_context& io_;

 private:
  std::atomic<bool> cancelled_{false};
};

class TimerWatch final : public Base<TimerWatch> {
 public:
  TimerWatch(asio::io_context& io, std::chrono::nanoseconds delay, std::chrono::nanoseconds period,
             std::function<void()> fn)
      : Base(io), timer_(io, delay), period_(period), fn_(std::move(fn)) {}

  void Wait() {
    timer_.async_wait([self = shared_from_this()](const error_code& error) {
      if (!error) self->OnTime();
    });
  }
  void Close() {
    timer_.cancel();
    // Not while it runs: the handle may be dropped inside the handler.
    if (!running_) fn_ = nullptr;
  }

 private:
  void OnTime() {
    if (cancelled()) return Close();
    running_ = true;
    fn_();
    running_ = false;
    if (period_ == period_.zero() || cancelled()) {
      fn_ = nullptr;
      return;
    }
    timer_.expires_after(period_);
    Wait();
  }

  asio::steady_timer timer_;
  const std::chrono::nanoseconds period_;
  std::function<void()> fn_;
  bool running_ = false;
};

class ReadableWatch final : public Base<ReadableWatch> {
 public:
  ReadableWatch(asio::io_context& io, os::UniqueFd fd, std::function<void()> fn)
      : Base(io), descriptor_(io, fd.get()), fn_(std::move(fn)) {
    static_cast<void>(fd.release());
  }

  void Wait() {
    descriptor_.async_wait(asio::posix::stream_descriptor::wait_read,
                           [self = shared_from_this()](const error_code& error) {
                             if (!error) self->OnReadable();
                           });
  }
  void Close() {
    error_code ignored;
    descriptor_.close(ignored);
    if (!running_) fn_ = nullptr;
  }

 private:
  void OnReadable() {
    if (cancelled()) return Close();
    running_ = true;
    fn_();
    running_ = false;
    if (cancelled()) {
      fn_ = nullptr;
    } else {
      Wait();
    }
  }

  asio::posix::stream_descriptor descriptor_;
  std::function<void()> fn_;
  bool running_ = false;
};

class SignalsWatch final : public Base<SignalsWatch> {
 public:
  SignalsWatch(asio::io_context& io, const std::vector<int>& signals, std::function<void(int)> fn)
      : Base(io), set_(io), fn_(std::move(fn)) {
    for (const int signal : signals) set_.add(signal);
  }
  void Wait() {
    set_.async_wait([self = shared_from_this()](const error_code& error, int signal) {
      if (error || self->cancelled()) return;
      self->fn_(signal);
      if (!self->cancelled()) self->Wait();
    });
  }
  void Close() {
    error_code ignored;
    set_.cancel(ignored);
    set_.clear(ignored);
  }

 private:
  asio::signal_set set_;
  std::function<void(int)> fn_;
};

/// inotify events of one read, told to `fn`.
void TellEvents(std::string_view bytes,
                const std::function<void(const std::string&, DirEvent)>& fn) {
  while (bytes.size() >= sizeof(inotify_event)) {
    inotify_event event{};
    std::memcpy(&event, bytes.data(), sizeof event);
    const std::size_t size = sizeof event + event.len;
    if (bytes.size() < size) return;
    const std::string name(bytes.data() + sizeof event,
                           strnlen(bytes.data() + sizeof event, event.len));
    bytes.remove_prefix(size);
    if ((event.mask & IN_Q_OVERFLOW) != 0) {
      fn("", DirEvent::kAppeared);
    } else if ((event.mask & (IN_IGNORED | IN_MOVE_SELF)) != 0) {
      fn("", DirEvent::kGone);
    } else if ((event.mask & (IN_DELETE | IN_MOVED_FROM)) != 0) {
      fn(name, DirEvent::kGone);
    } else if ((event.mask & (IN_CREATE | IN_MOVED_TO | IN_CLOSE_WRITE)) != 0) {
      fn(name, DirEvent::kAppeared);
    }
  }
}

}  // namespace

struct Loop::Impl {
  asio::io_context io{1};
  asio::executor_work_guard<asio::io_context::executor_type> work{io.get_executor()};
  pthread_t thread{};
  bool started = false;
  std::atomic<bool> stopped{false};

  static void* Run(void* self) {
    static_cast<Impl*>(self)->io.run();
    return nullptr;
  }
};

Loop::Loop() : impl_(std::make_unique<Impl>()) {}

Loop::~Loop() { Stop(); }

void Loop::Start() {
  CRISP_CHECK(!impl_->started);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, kStackBytes);
  CRISP_CHECK(pthread_create(&impl_->thread, &attributes, &Impl::Run, impl_.get()) == 0);
  pthread_attr_destroy(&attributes);
  impl_->started = true;
}

void Loop::Stop() {
  CRISP_CHECK(!InLoop());
  if (impl_->stopped.exchange(true)) return;
  impl_->work.reset();
  impl_->io.stop();
  if (impl_->started) pthread_join(impl_->thread, nullptr);
}

bool Loop::InLoop() const { return impl_->io.get_executor().running_in_this_thread(); }

void Loop::Post(std::function<void()> fn) { asio::post(impl_->io, std::move(fn)); }

Timer Loop::After(std::chrono::nanoseconds delay, std::function<void()> fn) {
  auto watch =
      std::make_shared<TimerWatch>(impl_->io, delay, std::chrono::nanoseconds(0), std::move(fn));
  asio::post(impl_->io, [watch] {
    if (!watch->cancelled()) watch->Wait();
  });
  return Timer(std::move(watch));
}

Timer Loop::Every(std::chrono::nanoseconds period, std::function<void()> fn) {
  CRISP_CHECK(period > period.zero());
  auto watch = std::make_shared<TimerWatch>(impl_->io, period, period, std::move(fn));
  asio::post(impl_->io, [watch] {
    if (!watch->cancelled()) watch->Wait();
  });
  return Timer(std::move(watch));
}

Result<FdWatch> Loop::WatchReadable(int fd, std::function<void()> fn) {
  // A duplicate of our own: epoll forgets a descriptor only when its last duplicate is closed, and
  // asio closes what it watches.
  os::UniqueFd own(fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!own) return Status::Errno(errno, "watch descriptor {}", fd);
  std::shared_ptr<ReadableWatch> watch;
  try {
    watch = std::make_shared<ReadableWatch>(impl_->io, std::move(own), std::move(fn));
  } catch (const boost::system::system_error& e) {
    return Status::Errno(e.code().value(), "watch descriptor {}", fd);
  }
  asio::post(impl_->io, [watch] {
    if (!watch->cancelled()) watch->Wait();
  });
  return FdWatch(std::move(watch));
}

Result<DirWatch> Loop::WatchDirectory(const std::string& path,
                                      std::function<void(const std::string&, DirEvent)> fn) {
  auto inotify = std::make_shared<os::UniqueFd>(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  if (!*inotify) return Status::Errno(errno, "inotify");
  constexpr std::uint32_t kMask = IN_CREATE | IN_MOVED_TO | IN_CLOSE_WRITE | IN_DELETE |
                                  IN_MOVED_FROM | IN_MOVE_SELF | IN_ONLYDIR | IN_EXCL_UNLINK;
  if (inotify_add_watch(inotify->get(), path.c_str(), kMask) < 0) {
    return Status::Errno(errno, "watch directory {}", path);
  }
  const int fd = inotify->get();
  return WatchReadable(fd, [inotify, fn = std::move(fn)] {
    std::array<char, 4096> buffer{};
    const ssize_t got = read(inotify->get(), buffer.data(), buffer.size());
    if (got > 0) TellEvents({buffer.data(), static_cast<std::size_t>(got)}, fn);
  });
}

SignalWatch Loop::OnSignals(const std::vector<int>& signals, std::function<void(int)> fn) {
  // Here, not on the loop: a signal that comes from now on must not take its default action.
  auto watch = std::make_shared<SignalsWatch>(impl_->io, signals, std::move(fn));
  watch->Wait();
  return SignalWatch(std::move(watch));
}

asio::io_context& Loop::io() { return impl_->io; }

}  // namespace crisp::loop
