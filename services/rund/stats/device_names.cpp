#include "services/rund/stats/device_names.h"

#include "services/rund/stats/cgroup_text.h"
#include "services/rund/stats/kept_file.h"

namespace crisp::rund {

std::string DeviceName(const std::string& number, const std::string& sys_root) {
  Scratch scratch;
  std::string name;
  ForEachLine(ReadOnce(sys_root + "/dev/block/" + number + "/uevent", scratch),
              [&name](std::string_view line) {
                constexpr std::string_view kKey = "DEVNAME=";
                if (line.starts_with(kKey)) name = "/dev/" + std::string(line.substr(kKey.size()));
              });
  return name;
}

}  // namespace crisp::rund
