#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "libs/os/namespaces.h"
#include "libs/os/unique_fd.h"
#include "services/netd/tests/test_net.h"

namespace crisp::netd {

/// The machine's real plugins in a network namespace that stands for the host, so that nothing of
/// them touches the machine: bridges, rules and sysctls go with it.
class RealHost {
 public:
  /// `plugins`: the array of a conflist, in JSON; $DIR stands for host-local's directory. The
  /// highest of the `versions` that all of them speak is spoken. Programs in the directory that
  /// CRISP_CNI_BIN_DIR names come before the machine's.
  explicit RealHost(std::string plugins,
                    const std::vector<std::string>& versions = {"1.0.0", "1.1.0"});
  RealHost(const RealHost&) = delete;
  RealHost& operator=(const RealHost&) = delete;
  ~RealHost();

  /// Runs `fn` on a thread that is in the host's namespace; so are the plugins that it starts.
  void Inside(const std::function<void()>& fn) const;

  // All below: Inside only.
  /// Makes a machine beyond the host, with the addresses 10.231.90.2 and fd00:231:90::2; to it the
  /// host is 10.231.90.1 and fd00:231:90::1. Its namespace.
  std::string Outside();
  PodNetwork Attach(const PodId& pod, const runtime::v1::PodSandboxConfig& config = PodConfig());
  void Detach(const PodId& pod);
  /// stdout of a program in the host's namespace or a pod's.
  static std::string Run(std::vector<std::string> argv, const std::string& netns = {});
  /// Interfaces, rules, addresses and files that pods have: empty when nothing is left of them.
  /// What the plugins keep for all pods (the bridge, their base chains) does not count.
  std::string Leftovers() const;
  /// Addresses that host-local has given out.
  std::size_t Leases() const;

  TestNet net;

 private:
  std::string path_;
  std::string plugins_;
  std::vector<os::NamespacePin> outside_;
};

}  // namespace crisp::netd
