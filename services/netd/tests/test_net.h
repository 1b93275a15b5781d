#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "libs/base/clock.h"
#include "libs/metrics/registry.h"
#include "libs/os/files.h"
#include "libs/testing/test_root.h"
#include "services/netd/config.h"
#include "services/netd/core/attach.h"
#include "services/netd/core/conf_dirs.h"
#include "services/netd/core/plugin.h"
#include "services/netd/core/readiness.h"
#include "services/netd/metrics.h"

namespace crisp::netd {

inline const PodId kPod(std::string(64, 'a'));
inline const PodId kOtherPod(std::string(64, 'b'));

inline runtime::v1::PodSandboxConfig PodConfig() {
  runtime::v1::PodSandboxConfig config;
  config.mutable_metadata()->set_name("web");
  config.mutable_metadata()->set_namespace_("shop");
  config.mutable_metadata()->set_uid("u-1");
  return config;
}

/// netd's core in a temporary directory. Restart() makes all of it anew on the same files.
class TestNet {
 public:
  TestNet() {
    config.layout = {.state_root = root / "s", .run_root = root / "r"};
    config.conf_dirs = {root / "conf"};
    config.cache_dir = root / "cache";
    config.bin_dirs = {root / "bin"};
    config.attach_timeout = std::chrono::seconds(20);
    config.detach_timeout = std::chrono::seconds(20);
    config.orphan_grace = std::chrono::seconds(0);
    config.network_wait = std::chrono::milliseconds(0);
    CRISP_CHECK(os::MakeDirs(config.layout.StateDir()).ok());
    CRISP_CHECK(os::MakeDirs(config.layout.NetnsDir()).ok());
    CRISP_CHECK(os::MakeDirs(root / "conf").ok());
    Restart();
  }

  void Restart(const std::string& boot = "boot-1") {
    networks.reset();
    readiness.reset();
    store.reset();
    auto opened = Attachments::Open(config.layout.Database());
    CRISP_CHECK(opened.ok());
    store = std::move(opened).value();
    conf = std::make_unique<ConfSource>(config.conf_dirs, config.default_network);
    plugins = std::make_unique<PluginRunner>(
        config.bin_dirs,
        [this](const std::string& type, std::string_view verb, Code code,
               std::chrono::nanoseconds took) { metrics.PluginDone(type, verb, code, took); });
    readiness = std::make_unique<Readiness>(*conf, *plugins, Clock::System(),
                                            Readiness::Options{.grace = config.status_grace});
    networks = std::make_unique<Networks>(config, boot, *readiness, *plugins, *store, metrics,
                                          Clock::System());
  }

  static CallContext Call() { return CallContext::Background(std::chrono::seconds(30), "test"); }

  /// The names in libcni's cache.
  std::vector<std::string> Cached() const {
    return os::ListDir(root / "cache/results").value_or({});
  }

  testing::TestRoot root;
  Config config;
  metrics::Registry registry;
  Metrics metrics{registry};
  std::unique_ptr<Attachments> store;
  std::unique_ptr<ConfSource> conf;
  std::unique_ptr<PluginRunner> plugins;
  std::unique_ptr<Readiness> readiness;
  std::unique_ptr<Networks> networks;
};

}  // namespace crisp::netd
