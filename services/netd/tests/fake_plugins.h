#pragma once

#include <fmt/format.h>

#include <string>
#include <thread>

#include "services/netd/tests/test_net.h"

// Plugins that are scripts: a chain of "one" and "two".
namespace crisp::netd {

/// A plugin that logs its calls, environment and stdin. What it does is shell; `on_other` is for
/// CHECK, STATUS and GC.
inline void Plugin(const TestNet& net, const std::string& name, const std::string& on_add,
                   const std::string& on_del = ":", const std::string& on_other = ":") {
  net.root.Script("bin/" + name, fmt::format(R"(
test $CNI_COMMAND != VERSION || exec echo '{{"cniVersion": "1.0.0", "supportedVersions":
  ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]}}'
d={0}; mkdir -p $d; n={1}
echo "$CNI_COMMAND $n $CNI_NETNS" >> $d/calls
env | sort > $d/$n.$CNI_COMMAND.env
cat > $d/$n.$CNI_COMMAND.stdin
case $CNI_COMMAND in
ADD) {2} ;;
DEL) {3} ;;
*) {4} ;;
esac
)",
                                             net.root / "log", name, on_add, on_del, on_other));
}

inline const std::string kAddress =
    R"(echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.9.8.7/24"}, {"address": "fd00::7/64"}]}')";

inline void Chain(const TestNet& net, const std::string& version = "1.0.0") {
  net.root.Write("conf/10-test.conflist", fmt::format(R"({{"cniVersion": "{}", "name": "test",
      "plugins": [{{"type": "one", "mtu": 1400}},
                  {{"type": "two", "capabilities": {{"portMappings": true}}}}]}})",
                                                      version));
}

inline void Healthy(const TestNet& net) {
  Plugin(net, "one", kAddress);
  Plugin(net, "two", kAddress);
  Chain(net);
}

/// Until a plugin has written it.
inline void AwaitFile(const std::string& path) {
  while (!os::Exists(path)) std::this_thread::yield();
}

/// The plugins' calls, "NS" for the pod's namespace.
inline std::string Calls(const TestNet& net) {
  std::string calls = net.root.Read("log/calls");
  const std::string netns = net.config.layout.NetnsPath(kPod);
  for (std::size_t at = calls.find(netns); at != std::string::npos; at = calls.find(netns)) {
    calls.replace(at, netns.size(), "NS");
  }
  return calls;
}

}  // namespace crisp::netd
