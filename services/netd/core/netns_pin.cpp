#include "services/netd/core/netns_pin.h"

#include <utility>
#include <vector>

#include "libs/base/try.h"
#include "libs/os/netlink.h"

namespace crisp::netd {

Result<os::NamespacePin> PinNetns(const std::string& path, const std::string& userns_path,
                                  const std::map<std::string, std::string>& sysctls,
                                  const std::function<void()>& meanwhile) {
  CRISP_TRY(os::UnpinNamespace(path));
  const auto setup = [&sysctls]() -> Status {
    CRISP_TRY(os::SetLoopbackUp());
    for (const auto& [name, value] : sysctls) CRISP_TRY(os::WriteSysctl(name, value));
    return Status::Ok();
  };
  if (!userns_path.empty())
    return os::NamespacePin::CreateNetIn(userns_path, path, setup, meanwhile);
  std::vector<os::NamespacePin> pins =
      CRISP_TRY(os::NamespacePin::Create({{os::NamespaceKind::kNet, path}}, setup, meanwhile));
  return std::move(pins.front());
}

}  // namespace crisp::netd
