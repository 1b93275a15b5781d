#include "libs/systemd/tests/fake_systemd.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "libs/base/check.h"

namespace crisp::systemd {
namespace {

constexpr const char* kPath = "/org/freedesktop/systemd1";
constexpr const char* kManager = "org.freedesktop.systemd1.Manager";

}  // namespace

FakeSystemd::FakeSystemd(std::string socket) : socket_(std::move(socket)) {
  listener_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  socket_.copy(address.sun_path, sizeof address.sun_path - 1);
  CRISP_CHECK(::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  CRISP_CHECK(::listen(listener_, 5) == 0);
  thread_ = std::thread([this] { Serve(); });
}

FakeSystemd::~FakeSystemd() {
  {
    const std::lock_guard lock(mutex_);
    state_.ending = true;
  }
  thread_.join();
  ::close(listener_);
}

void FakeSystemd::Next(const std::string& method, Do what) {
  const std::lock_guard lock(mutex_);
  state_.next[method] = what;
}

void FakeSystemd::ReleaseJobs() {
  const std::lock_guard lock(mutex_);
  state_.release = true;
}

std::vector<std::string> FakeSystemd::calls() {
  const std::lock_guard lock(mutex_);
  return state_.calls;
}

std::map<std::string, std::string> FakeSystemd::properties() {
  const std::lock_guard lock(mutex_);
  return state_.properties;
}

int FakeSystemd::connections() {
  const std::lock_guard lock(mutex_);
  return state_.connections;
}

void FakeSystemd::Serve() {
  while (true) {
    pollfd poller = {.fd = listener_, .events = POLLIN, .revents = 0};
    ::poll(&poller, 1, 5);
    {
      const std::lock_guard lock(mutex_);
      if (state_.ending) return;
    }
    const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) continue;
    {
      const std::lock_guard lock(mutex_);
      ++state_.connections;
    }
    sd_bus* bus = nullptr;
    sd_id128_t id = {};
    id.bytes[0] = 1;
    CRISP_CHECK(sd_bus_new(&bus) >= 0);
    CRISP_CHECK(sd_bus_set_fd(bus, fd, fd) >= 0);
    CRISP_CHECK(sd_bus_set_server(bus, 1, id) >= 0);
    CRISP_CHECK(sd_bus_set_anonymous(bus, 1) >= 0);
    CRISP_CHECK(sd_bus_set_sender(bus, "org.freedesktop.systemd1") >= 0);
    CRISP_CHECK(sd_bus_start(bus) >= 0);
    Talk(bus);
    sd_bus_close_unref(bus);
  }
}

void FakeSystemd::Talk(sd_bus* bus) {
  hang_up_ = false;
  held_.clear();
  while (!hang_up_) {
    sd_bus_message* message = nullptr;
    const int more = sd_bus_process(bus, &message);
    if (more < 0) return;
    if (message != nullptr) {
      std::uint8_t type = 0;
      sd_bus_message_get_type(message, &type);
      if (type == SD_BUS_MESSAGE_METHOD_CALL && OnCall(bus, message) < 0) hang_up_ = true;
      sd_bus_message_unref(message);
    }
    bool release = false;
    {
      const std::lock_guard lock(mutex_);
      if (state_.ending) return;
      release = std::exchange(state_.release, false);
    }
    if (release) {
      for (const std::string& path : held_) {
        sd_bus_emit_signal(bus, kPath, kManager, "JobRemoved", "uoss", 1U, path.c_str(), "a unit",
                           "done");
      }
      held_.clear();
    }
    if (more == 0) sd_bus_wait(bus, 2'000);
  }
}

bool FakeSystemd::ReadProperties(sd_bus_message* message, const std::string& unit) {
  if (sd_bus_message_enter_container(message, 'a', "(sv)") < 0) return false;
  while (sd_bus_message_enter_container(message, 'r', "sv") > 0) {
    const char* name = nullptr;
    sd_bus_message_read(message, "s", &name);
    char type = 0;
    const char* contents = nullptr;
    sd_bus_message_peek_type(message, &type, &contents);
    const std::string signature = contents;
    sd_bus_message_enter_container(message, 'v', signature.c_str());
    std::string value = signature;
    if (signature == "t") {
      std::uint64_t number = 0;
      sd_bus_message_read_basic(message, 't', &number);
      value += fmt::format(" {}", number);
    } else if (signature == "b") {
      int truth = 0;
      sd_bus_message_read_basic(message, 'b', &truth);
      value += truth != 0 ? " true" : " false";
    } else if (signature == "s") {
      const char* text = nullptr;
      sd_bus_message_read_basic(message, 's', &text);
      value += fmt::format(" {}", text);
    } else if (signature == "au" || signature == "ay") {
      const void* data = nullptr;
      std::size_t size = 0;
      sd_bus_message_read_array(message, signature[1], &data, &size);
      for (std::size_t i = 0; i < size; i += signature == "au" ? 4 : 1) {
        value += fmt::format(" {}", *(static_cast<const std::uint8_t*>(data) + i));
      }
    }
    sd_bus_message_exit_container(message);
    sd_bus_message_exit_container(message);
    const std::lock_guard lock(mutex_);
    state_.properties[unit + "/" + name] = value;
  }
  return sd_bus_message_exit_container(message) >= 0;
}

int FakeSystemd::StartJob(sd_bus* bus, sd_bus_message* message, const std::string& unit, Do what) {
  const std::string path = fmt::format("{}/job/{}", kPath, ++job_);
  const int replied = sd_bus_reply_method_return(message, "o", path.c_str());
  if (what == Do::kHoldJob) {
    held_.push_back(path);
    return replied;
  }
  return sd_bus_emit_signal(bus, kPath, kManager, "JobRemoved", "uoss", job_, path.c_str(),
                            unit.c_str(), what == Do::kFailJob ? "failed" : "done");
}

int FakeSystemd::OnCall(sd_bus* bus, sd_bus_message* message) {
  const std::string method = sd_bus_message_get_member(message);
  if (method == "Hello") return sd_bus_reply_method_return(message, "s", ":1.1");
  if (method == "AddMatch" || method == "RemoveMatch" || method == "Subscribe") {
    return sd_bus_reply_method_return(message, nullptr);
  }
  const char* first = "";
  sd_bus_message_read(message, "s", &first);
  const std::string unit = first;
  Do what = Do::kAnswer;
  {
    const std::lock_guard lock(mutex_);
    state_.calls.push_back(method + " " + unit);
    if (const auto next = state_.next.extract(method); !next.empty()) what = next.mapped();
  }
  if (what == Do::kHangUp) return -1;
  if (what == Do::kSayNothing) return 0;
  if (what == Do::kRefuse) {
    return sd_bus_reply_method_errorf(message, SD_BUS_ERROR_ACCESS_DENIED, "not for you");
  }
  if (method == "Get") return sd_bus_reply_method_return(message, "v", "s", "252.fake");
  const bool known = state_.units.contains(unit);
  if (method == "StartTransientUnit") {
    const char* mode = nullptr;
    sd_bus_message_read(message, "s", &mode);
    if (known) {
      return sd_bus_reply_method_errorf(message, "org.freedesktop.systemd1.UnitExists",
                                        "Unit %s was already loaded", unit.c_str());
    }
    ReadProperties(message, unit);
    state_.units[unit] = true;
    return what == Do::kDoAndHangUp ? -1 : StartJob(bus, message, unit, what);
  }
  if (!known) {
    return sd_bus_reply_method_errorf(message, "org.freedesktop.systemd1.NoSuchUnit",
                                      "Unit %s not loaded.", unit.c_str());
  }
  if (method == "StopUnit") {
    state_.units.erase(unit);
    return what == Do::kDoAndHangUp ? -1 : StartJob(bus, message, unit, what);
  }
  if (method == "SetUnitProperties") {
    int runtime = 0;
    sd_bus_message_read(message, "b", &runtime);
    ReadProperties(message, unit);
    return what == Do::kDoAndHangUp ? -1 : sd_bus_reply_method_return(message, nullptr);
  }
  return sd_bus_reply_method_return(message, nullptr);
}

}  // namespace crisp::systemd
