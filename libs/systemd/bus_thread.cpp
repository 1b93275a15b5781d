#include "libs/systemd/bus_thread.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <optional>
#include <string_view>
#include <utility>

#include "libs/base/check.h"
#include "libs/base/try.h"

namespace crisp::systemd {
namespace {

constexpr const char* kName = "org.freedesktop.systemd1";
constexpr const char* kPath = "/org/freedesktop/systemd1";
constexpr const char* kManager = "org.freedesktop.systemd1.Manager";
constexpr const char* kSystemBus = "unix:path=/run/dbus/system_bus_socket";
constexpr std::uint64_t kConnectUsec = 10'000'000;
/// For a caller that gave up, so that what it left behind goes some day.
constexpr std::uint64_t kReplyUsec = 300'000'000;

Status FromError(const sd_bus_error& error) {
  const std::string_view name = error.name == nullptr ? "" : error.name;
  const char* words = error.message == nullptr ? "no reason given" : error.message;
  if (name == "org.freedesktop.systemd1.NoSuchUnit") return NotFound("systemd: {}", words);
  if (name == "org.freedesktop.systemd1.UnitExists") return AlreadyExists("systemd: {}", words);
  if (name == SD_BUS_ERROR_INVALID_ARGS || name == SD_BUS_ERROR_PROPERTY_READ_ONLY) {
    return InvalidArgument("systemd: {}", words);
  }
  if (name == SD_BUS_ERROR_ACCESS_DENIED) return PermissionDenied("systemd: {}", words);
  if (name == SD_BUS_ERROR_NO_REPLY || name == SD_BUS_ERROR_DISCONNECTED ||
      name == SD_BUS_ERROR_SERVICE_UNKNOWN || name == SD_BUS_ERROR_NAME_HAS_NO_OWNER ||
      name == SD_BUS_ERROR_TIMEOUT || name == "org.freedesktop.DBus.Error.TimedOut") {
    return Unavailable("systemd does not answer: {}", words);
  }
  return Internal("systemd: {} ({})", words, name);
}

}  // namespace

struct BusThread::Pending {
  BusThread* owner = nullptr;
  const Request* request = nullptr;  // the caller's, until it is sent

  std::mutex mutex;
  std::condition_variable_any changed;
  std::optional<Result<std::string>> outcome;
  bool abandoned = false;
};

BusThread::BusThread(std::string address)
    : address_(address.empty() ? kSystemBus : std::move(address)),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  CRISP_CHECK(wake_ >= 0);
  thread_ = std::thread([this] { Serve(); });
}

BusThread::~BusThread() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  ::eventfd_write(wake_, 1);
  thread_.join();
  ::close(wake_);
}

Result<std::string> BusThread::Call(const CallContext& cc, const Request& request) {
  CRISP_TRY(cc.Check());
  const auto call = std::make_shared<Pending>();
  call->owner = this;
  call->request = &request;
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(call);
  }
  ::eventfd_write(wake_, 1);
  std::unique_lock lock(call->mutex);
  // Bounded, because no clock waits until the end of time.
  const auto patience = std::min<std::chrono::nanoseconds>(cc.Remaining(), std::chrono::hours(24));
  call->changed.wait_for(lock, cc.stop(), patience, [&] { return call->outcome.has_value(); });
  if (call->outcome) return *std::move(call->outcome);
  call->abandoned = true;
  call->request = nullptr;
  CRISP_TRY(cc.Check());
  return DeadlineExceeded("systemd does not answer {} in time", request.method);
}

void BusThread::Finish(const PendingRef& call, Result<std::string> outcome) {
  {
    const std::lock_guard lock(call->mutex);
    if (!call->outcome) call->outcome = std::move(outcome);
  }
  call->changed.notify_all();
}

Status BusThread::Connect() {
  // Its calls are told of its end before it is.
  if (bus_ != nullptr && sd_bus_is_open(bus_) <= 0) {
    Disconnect(Unavailable("the connection to systemd broke"));
  }
  if (bus_ != nullptr) return Status::Ok();
  const auto failed = [this](int error) {
    bus_ = sd_bus_close_unref(bus_);
    return Unavailable("no connection to systemd at {}: {}", address_,
                       Status::FromErrno(-error, "D-Bus").message());
  };
  int error = sd_bus_new(&bus_);
  if (error < 0) return failed(error);
  error = sd_bus_set_address(bus_, address_.c_str());
  if (error >= 0) error = sd_bus_set_bus_client(bus_, 1);
  if (error >= 0) error = sd_bus_set_description(bus_, "crisp");
  if (error >= 0) error = sd_bus_set_method_call_timeout(bus_, kConnectUsec);
  if (error >= 0) error = sd_bus_start(bus_);
  // From here on in order: what is subscribed first misses no job.
  if (error >= 0) {
    error = sd_bus_match_signal(
        bus_, nullptr, kName, kPath, kManager, "JobRemoved",
        [](sd_bus_message* signal, void* self, sd_bus_error*) {
          static_cast<BusThread*>(self)->OnJobRemoved(signal);
          return 0;
        },
        this);
  }
  if (error >= 0) {
    sd_bus_error reason = SD_BUS_ERROR_NULL;
    error =
        sd_bus_call_method(bus_, kName, kPath, kManager, "Subscribe", &reason, nullptr, nullptr);
    sd_bus_error_free(&reason);
  }
  return error < 0 ? failed(error) : Status::Ok();
}

void BusThread::Disconnect(const Status& why) {
  bus_ = sd_bus_close_unref(bus_);
  auto sent = std::exchange(sent_, {});
  auto jobs = std::exchange(jobs_, {});
  for (const auto& [key, call] : sent) Finish(call, why);
  for (const auto& [path, call] : jobs) Finish(call, why);
}

void BusThread::Send(const PendingRef& call) {
  sd_bus_message* message = nullptr;
  int error = 0;
  {
    const std::lock_guard lock(call->mutex);
    if (call->abandoned) return;
    const Request& request = *call->request;
    error = sd_bus_message_new_method_call(bus_, &message, kName, kPath, request.interface,
                                           request.method);
    if (error >= 0 && request.append) error = request.append(message);
  }
  if (error >= 0) {
    error = sd_bus_call_async(
        bus_, nullptr, message,
        [](sd_bus_message* reply, void* pending, sd_bus_error*) {
          auto* raw = static_cast<Pending*>(pending);
          BusThread* self = raw->owner;
          if (auto node = self->sent_.extract(raw); !node.empty()) {
            self->OnReply(node.mapped(), reply);
          }
          return 0;
        },
        call.get(), kReplyUsec);
  }
  sd_bus_message_unref(message);
  if (error >= 0) {
    sent_[call.get()] = call;
  } else if (error == -EINVAL) {
    Finish(call, Internal("systemd: a request cannot be put together"));
  } else {
    Finish(call, Unavailable("systemd cannot be asked: {}",
                             Status::FromErrno(-error, "D-Bus").message()));
  }
}

void BusThread::OnReply(const PendingRef& call, sd_bus_message* reply) {
  if (const sd_bus_error* error = sd_bus_message_get_error(reply); error != nullptr) {
    return Finish(call, FromError(*error));
  }
  const char* text = nullptr;
  char type = 0;
  const char* contents = nullptr;
  if (sd_bus_message_peek_type(reply, &type, &contents) > 0) {
    if (type == SD_BUS_TYPE_VARIANT) {
      sd_bus_message_enter_container(reply, type, contents);
      sd_bus_message_read_basic(reply, SD_BUS_TYPE_STRING, &text);
    } else if (type == SD_BUS_TYPE_OBJECT_PATH || type == SD_BUS_TYPE_STRING) {
      sd_bus_message_read_basic(reply, type, &text);
    }
  }
  const std::string answer = text == nullptr ? "" : text;
  bool job = false;
  {
    const std::lock_guard lock(call->mutex);
    if (call->abandoned) return;
    job = call->request->job;
  }
  if (!job) return Finish(call, answer);
  jobs_[answer] = call;
}

void BusThread::OnJobRemoved(sd_bus_message* signal) {
  std::uint32_t number = 0;
  const char* path = nullptr;
  const char* unit = nullptr;
  const char* result = nullptr;
  if (sd_bus_message_read(signal, "uoss", &number, &path, &unit, &result) < 0) return;
  const auto job = jobs_.extract(path);
  if (job.empty()) return;
  if (std::string_view(result) == "done") {
    Finish(job.mapped(), std::string());
  } else {
    Finish(job.mapped(), Internal("systemd: the job of {} ended as '{}'", unit, result));
  }
}

void BusThread::Serve() {
  while (true) {
    std::vector<PendingRef> fresh;
    {
      const std::lock_guard lock(mutex_);
      if (ending_) break;
      fresh.swap(queue_);
    }
    if (!fresh.empty()) {
      const Status connected = Connect();
      for (const PendingRef& call : fresh) {
        if (connected.ok()) {
          Send(call);
        } else {
          Finish(call, connected);
        }
      }
    }
    int error = 0;
    while (bus_ != nullptr && (error = sd_bus_process(bus_, nullptr)) > 0) {
    }
    if (error < 0) Disconnect(Unavailable("the connection to systemd broke"));
    pollfd polled[2] = {{.fd = wake_, .events = POLLIN, .revents = 0},
                        {.fd = -1, .events = 0, .revents = 0}};
    timespec wait = {3600, 0};
    if (bus_ != nullptr) {
      polled[1].fd = sd_bus_get_fd(bus_);
      polled[1].events = static_cast<short>(std::max(0, sd_bus_get_events(bus_)));
      std::uint64_t until = 0;
      if (sd_bus_get_timeout(bus_, &until) > 0 && until != UINT64_MAX) {
        timespec now = {};
        ::clock_gettime(CLOCK_MONOTONIC, &now);
        const std::uint64_t now_usec = static_cast<std::uint64_t>(now.tv_sec) * 1'000'000 +
                                       static_cast<std::uint64_t>(now.tv_nsec) / 1000;
        const std::uint64_t left = until > now_usec ? until - now_usec : 0;
        wait = {static_cast<time_t>(left / 1'000'000), static_cast<long>(left % 1'000'000) * 1000};
      }
    }
    ::ppoll(polled, 2, &wait, nullptr);
    eventfd_t count = 0;
    ::eventfd_read(wake_, &count);
  }
  Disconnect(Unavailable("rund is ending"));
  const std::lock_guard lock(mutex_);
  for (const PendingRef& call : queue_) Finish(call, Unavailable("rund is ending"));
}

}  // namespace crisp::systemd
