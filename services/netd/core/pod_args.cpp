#include "services/netd/core/pod_args.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "libs/base/quantity.h"
#include "libs/base/try.h"
#include "services/netd/core/result.h"

namespace crisp::netd {
namespace {

constexpr int kMaxPort = 65535;

Result<std::string> Arg(std::string_view key, const std::string& value) {
  if (value.find_first_of(";=\n") != std::string::npos) {
    return InvalidArgument("pod metadata: {} '{}' cannot be told to network plugins", key, value);
  }
  return fmt::format(";{}={}", key, value);
}

std::string_view ProtocolName(runtime::v1::Protocol protocol) {
  switch (protocol) {
    case runtime::v1::UDP: return "udp";
    case runtime::v1::SCTP: return "sctp";
    default: return "tcp";
  }
}

Status AddBandwidth(const runtime::v1::PodSandboxConfig& config, std::string_view direction,
                    nlohmann::json& bandwidth) {
  const std::string key = fmt::format("kubernetes.io/{}-bandwidth", direction);
  const auto found = config.annotations().find(key);
  if (found == config.annotations().end() || found->second.empty()) return Status::Ok();
  const std::uint64_t rate = CRISP_TRY(ParseQuantity(found->second).While("annotation {}", key));
  constexpr std::uint64_t kLowest = 1000;  // as the kubelet has it: 1 kbit/s to 1 Pbit/s
  constexpr std::uint64_t kHighest = 1'000'000'000'000'000;
  if (rate < kLowest || rate > kHighest) {
    return InvalidArgument("annotation {}: {} bit/s is out of range", key, rate);
  }
  bandwidth[fmt::format("{}Rate", direction)] = rate;
  bandwidth[fmt::format("{}Burst", direction)] = std::numeric_limits<std::int32_t>::max();
  return Status::Ok();
}

template <typename Strings>
nlohmann::json ToArray(const Strings& strings) {
  nlohmann::json array = nlohmann::json::array();
  for (const std::string& text : strings) array.push_back(text);
  return array;
}

std::vector<std::string> Split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  while (true) {
    const std::size_t end = std::min(text.find(separator), text.size());
    std::string_view part = text.substr(0, end);
    while (part.starts_with(' ')) part.remove_prefix(1);
    while (part.ends_with(' ')) part.remove_suffix(1);
    parts.emplace_back(part);
    if (end == text.size()) return parts;
    text.remove_prefix(end + 1);
  }
}

/// net.<family>.conf.<interface>.<key>, and the same with neigh; the first separator of the name is
/// that of all.
bool IsOfInterface(const std::string& name) {
  const std::vector<std::string> parts = Split(name, name[name.find_first_of("./")]);
  constexpr std::size_t kKind = 2;
  constexpr std::size_t kInterface = 3;
  if (parts.size() <= kInterface || (parts[kKind] != "conf" && parts[kKind] != "neigh")) {
    return false;
  }
  const std::string& interface = parts[kInterface];
  return interface != "all" && interface != "default" && interface != "lo";
}

bool IsMac(const std::string& text) {
  constexpr std::size_t kBytes = 6;
  const std::vector<std::string> parts = Split(text, ':');
  return parts.size() == kBytes && std::all_of(parts.begin(), parts.end(), [](const auto& part) {
           return part.size() == 2 && part.find_first_not_of("0123456789abcdefABCDEF") == part.npos;
         });
}

/// ips, mac and aliases.
Status AddOwnAddresses(const runtime::v1::PodSandboxConfig& config, nlohmann::json& args) {
  const auto annotation = [&config](std::string_view name) -> std::string {
    const auto found = config.annotations().find(std::string(name));
    return found == config.annotations().end() ? "" : found->second;
  };
  if (const std::string ips = annotation(kIpsAnnotation); !ips.empty()) {
    for (const std::string& ip : Split(ips, ',')) {
      if (!IsAddress(ip.substr(0, ip.find('/')))) {
        return InvalidArgument("annotation {}: '{}' is no address", kIpsAnnotation, ip);
      }
      args["ips"].push_back(ip);
    }
  }
  if (const std::string mac = annotation(kMacAnnotation); !mac.empty()) {
    if (!IsMac(mac)) return InvalidArgument("annotation {}: no MAC address", kMacAnnotation);
    args["mac"] = mac;
  }
  if (const std::string aliases = annotation(kAliasesAnnotation); !aliases.empty()) {
    args["aliases"] = Split(aliases, ',');
  }
  return Status::Ok();
}

}  // namespace

Result<std::string> CniArgsOf(const PodId& pod, const runtime::v1::PodSandboxConfig& config) {
  std::string args = "IgnoreUnknown=1";
  args += CRISP_TRY(Arg("K8S_POD_NAMESPACE", config.metadata().namespace_()));
  args += CRISP_TRY(Arg("K8S_POD_NAME", config.metadata().name()));
  args += CRISP_TRY(Arg("K8S_POD_INFRA_CONTAINER_ID", pod.str()));
  args += CRISP_TRY(Arg("K8S_POD_UID", config.metadata().uid()));
  return args;
}

Result<nlohmann::json> CapabilityArgsOf(const runtime::v1::PodSandboxConfig& config) {
  nlohmann::json args = nlohmann::json::object();
  nlohmann::json ports = nlohmann::json::array();
  for (const runtime::v1::PortMapping& mapping : config.port_mappings()) {
    if (mapping.host_port() <= 0) continue;
    if (mapping.host_port() > kMaxPort || mapping.container_port() <= 0 ||
        mapping.container_port() > kMaxPort) {
      return InvalidArgument("port mapping {} to {}: no such port", mapping.host_port(),
                             mapping.container_port());
    }
    if (!mapping.host_ip().empty() && !IsAddress(mapping.host_ip())) {
      return InvalidArgument("port mapping {}: host_ip '{}' is no address", mapping.host_port(),
                             mapping.host_ip());
    }
    ports.push_back({{"hostPort", mapping.host_port()},
                     {"containerPort", mapping.container_port()},
                     {"protocol", ProtocolName(mapping.protocol())},
                     {"hostIP", mapping.host_ip()}});
  }
  if (!ports.empty()) args["portMappings"] = std::move(ports);

  nlohmann::json bandwidth = nlohmann::json::object();
  CRISP_TRY(AddBandwidth(config, "ingress", bandwidth));
  CRISP_TRY(AddBandwidth(config, "egress", bandwidth));
  if (!bandwidth.empty()) args["bandwidth"] = std::move(bandwidth);

  const runtime::v1::DNSConfig& dns = config.dns_config();
  if (dns.servers_size() + dns.searches_size() + dns.options_size() > 0) {
    args["dns"] = {{"servers", ToArray(dns.servers())},
                   {"searches", ToArray(dns.searches())},
                   {"options", ToArray(dns.options())}};
  }
  if (!config.annotations().empty()) {
    nlohmann::json& annotations = args["io.kubernetes.cri.pod-annotations"];
    for (const auto& [key, value] : config.annotations()) annotations[key] = value;
  }
  CRISP_TRY(AddOwnAddresses(config, args));
  if (!config.linux().cgroup_parent().empty()) args["cgroupPath"] = config.linux().cgroup_parent();
  return args;
}

NetSysctls NetSysctlsOf(const runtime::v1::PodSandboxConfig& config,
                        const std::map<std::string, std::string>& defaults) {
  std::map<std::string, std::string> all(config.linux().sysctls().begin(),
                                         config.linux().sysctls().end());
  all.insert(defaults.begin(), defaults.end());
  NetSysctls sysctls;
  for (const auto& [name, value] : all) {
    if (!name.starts_with("net.") && !name.starts_with("net/")) continue;
    (IsOfInterface(name) ? sysctls.late : sysctls.early)[name] = value;
  }
  return sysctls;
}

}  // namespace crisp::netd
