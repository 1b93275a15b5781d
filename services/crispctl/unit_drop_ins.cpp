#include "services/crispctl/unit_drop_ins.h"

#include <algorithm>

#include "libs/os/files.h"

namespace crisp::ctl {
namespace {

/// For a unit with ProtectSystem=strict and ProtectHome=yes, which may write below `allowed`.
std::string Writable(std::vector<std::string> paths, const std::vector<std::string>& allowed) {
  std::string text;
  bool home = false;
  std::sort(paths.begin(), paths.end());
  paths.erase(std::unique(paths.begin(), paths.end()), paths.end());
  for (const std::string& path : paths) {
    const bool known = std::any_of(allowed.begin(), allowed.end(), [&](const std::string& root) {
      return os::IsAtOrBelow(path, root);
    });
    if (known) continue;
    text += "ReadWritePaths=" + path + "\n";
    for (const char* root : {"/home", "/root", "/run/user"})
      home = home || os::IsAtOrBelow(path, root);
  }
  if (home) text += "ProtectHome=no\n";
  return text.empty() ? text : "[Service]\n" + text;
}

}  // namespace

std::vector<UnitDropIn> UnitDropIns(const settings::Settings& settings) {
  const settings::Settings resolved = settings.Resolved();
  const settings::Settings shipped = settings::Settings().Resolved();
  std::vector<UnitDropIn> found;
  if (resolved.crid.socket != shipped.crid.socket) {
    found.push_back({"crisp-crid.socket",
                     "[Socket]\nListenStream=\nListenStream=" + resolved.crid.socket + "\n"});
  }
  found.push_back({"crisp-crid.service", Writable({resolved.run_root}, {shipped.run_root})});
  found.push_back({"crisp-imaged@.service",
                   Writable({resolved.run_root, resolved.state_root, resolved.imaged.image_root},
                            {shipped.run_root, shipped.state_root})});
  std::erase_if(found, [](const UnitDropIn& one) { return one.text.empty(); });
  return found;
}

}  // namespace crisp::ctl
