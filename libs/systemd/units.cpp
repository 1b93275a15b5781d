#include "libs/systemd/units.h"

#include <sys/stat.h>
#include <systemd/sd-bus.h>

#include <utility>

#include "libs/base/try.h"
#include "libs/systemd/bus_thread.h"

namespace crisp::systemd {
namespace {

constexpr const char* kManager = "org.freedesktop.systemd1.Manager";

template <typename... Ts>
struct Overloaded : Ts... {
  using Ts::operator()...;
};
template <typename... Ts>
Overloaded(Ts...) -> Overloaded<Ts...>;

template <typename T>
int AppendArray(sd_bus_message* message, char type, const std::vector<T>& values) {
  const char signature[] = {'a', type, '\0'};
  int error = sd_bus_message_open_container(message, SD_BUS_TYPE_VARIANT, signature);
  if (error >= 0) {
    error = sd_bus_message_append_array(message, type, values.data(), values.size() * sizeof(T));
  }
  return error < 0 ? error : sd_bus_message_close_container(message);
}

int AppendValue(sd_bus_message* message, const Property& property) {
  return std::visit(
      Overloaded{
          [&](bool value) { return sd_bus_message_append(message, "v", "b", value ? 1 : 0); },
          [&](std::uint64_t value) { return sd_bus_message_append(message, "v", "t", value); },
          [&](const std::string& value) {
            return sd_bus_message_append(message, "v", "s", value.c_str());
          },
          [&](const std::vector<std::uint32_t>& value) {
            return AppendArray(message, SD_BUS_TYPE_UINT32, value);
          },
          [&](const std::vector<std::uint8_t>& value) {
            return AppendArray(message, SD_BUS_TYPE_BYTE, value);
          },
      },
      property.value);
}

int AppendProperties(sd_bus_message* message, const Properties& properties) {
  int error = sd_bus_message_open_container(message, SD_BUS_TYPE_ARRAY, "(sv)");
  for (const Property& property : properties) {
    if (error >= 0) error = sd_bus_message_open_container(message, SD_BUS_TYPE_STRUCT, "sv");
    if (error >= 0) error = sd_bus_message_append(message, "s", property.name.c_str());
    if (error >= 0) error = AppendValue(message, property);
    if (error >= 0) error = sd_bus_message_close_container(message);
  }
  return error < 0 ? error : sd_bus_message_close_container(message);
}

/// A connection that broke is made anew: what is asked here may be asked twice.
Result<std::string> CallTwice(BusThread& bus, const CallContext& cc,
                              const BusThread::Request& request) {
  Result<std::string> answer = bus.Call(cc, request);
  if (answer.ok() || answer.code() != Code::kUnavailable) return answer;
  return bus.Call(cc, request);
}

}  // namespace

Units::Units(std::string address) : bus_(std::make_unique<BusThread>(std::move(address))) {}

Units::~Units() = default;

bool Units::Booted(const std::string& run_root) {
  struct stat info {};
  return ::lstat((run_root + "/systemd/system").c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

Result<std::string> Units::Version(const CallContext& cc) {
  return CallTwice(*bus_, cc,
                   {.interface = "org.freedesktop.DBus.Properties",
                    .method = "Get",
                    .append = [](sd_bus_message* message) {
                      return sd_bus_message_append(message, "ss", kManager, "Version");
                    }});
}

Status Units::StartTransient(const CallContext& cc, const std::string& unit,
                             const Properties& properties) {
  const BusThread::Request request = {
      .interface = kManager,
      .method = "StartTransientUnit",
      .append =
          [&](sd_bus_message* message) {
            int error = sd_bus_message_append(message, "ss", unit.c_str(), "replace");
            if (error >= 0) error = AppendProperties(message, properties);
            // No units beside it.
            return error < 0 ? error : sd_bus_message_append(message, "a(sa(sv))", 0);
          },
      .job = true};
  Result<std::string> started = bus_->Call(cc, request);
  if (!started.ok() && started.code() == Code::kUnavailable) {
    started = bus_->Call(cc, request);
    // The first call did it, and only its answer was lost.
    if (started.code() == Code::kAlreadyExists) return Status::Ok();
  }
  return started.status().While("start {}", unit);
}

Status Units::Stop(const CallContext& cc, const std::string& unit) {
  Status stopped =
      CallTwice(*bus_, cc,
                {.interface = kManager,
                 .method = "StopUnit",
                 .append =
                     [&](sd_bus_message* message) {
                       return sd_bus_message_append(message, "ss", unit.c_str(), "replace");
                     },
                 .job = true})
          .status();
  if (stopped.code() == Code::kNotFound) return Status::Ok();
  if (!stopped.ok()) return std::move(stopped).While("stop {}", unit);
  Status reset = CallTwice(*bus_, cc,
                           {.interface = kManager,
                            .method = "ResetFailedUnit",
                            .append =
                                [&](sd_bus_message* message) {
                                  return sd_bus_message_append(message, "s", unit.c_str());
                                }})
                     .status();
  return reset.code() == Code::kNotFound ? Status::Ok() : std::move(reset).While("stop {}", unit);
}

Status Units::Set(const CallContext& cc, const std::string& unit, const Properties& properties) {
  if (properties.empty()) return Status::Ok();
  return CallTwice(*bus_, cc,
                   {.interface = kManager,
                    .method = "SetUnitProperties",
                    .append =
                        [&](sd_bus_message* message) {
                          const int error = sd_bus_message_append(message, "sb", unit.c_str(), 1);
                          return error < 0 ? error : AppendProperties(message, properties);
                        }})
      .status()
      .While("change {}", unit);
}

}  // namespace crisp::systemd
