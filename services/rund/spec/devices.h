#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "cri/v1/api.pb.h"
#include "libs/base/result.h"

namespace crisp::rund {

struct BuiltDevices {
  nlohmann::json nodes = nlohmann::json::array();  // linux.devices
  nlohmann::json rules = nlohmann::json::array();  // linux.resources.devices, deny-all first
};

/// Whose device nodes are where it is not to be as on the host.
struct DeviceOwner {
  std::optional<std::uint32_t> uid;
  std::optional<std::uint32_t> gid;
};

/// "/dev/a:/dev/b:rw"; what is left out is that of the host, and rwm.
runtime::v1::Device ParseDevice(std::string_view text);

/// The CRI's devices (a directory stands for all device nodes below it); with `privileged` also
/// every device node of the host, and access to all. The usual ones (null, zero, tty ...) are the
/// runtime's own work.
/// kInvalidArgument: permissions that are not of "rwm", a host path that is no device;
/// kNotFound: one that is not there.
Result<BuiltDevices> BuildDevices(
    const google::protobuf::RepeatedPtrField<runtime::v1::Device>& asked, bool privileged,
    const std::string& host_dev, const DeviceOwner& owner = {});

}  // namespace crisp::rund
