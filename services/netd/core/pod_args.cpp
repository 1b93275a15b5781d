#include "services/netd/core/pod_args.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <utility>

#include "libs/base/try.h"

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

}  // namespace

Result<std::uint64_t> ParseQuantity(std::string_view text) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view suffix(end, static_cast<std::size_t>(text.data() + text.size() - end));
  if (error != std::errc() || number < 0) return InvalidArgument("'{}' is no quantity", text);
  static constexpr std::array<std::pair<std::string_view, double>, 14> kFactors = {{
      {"", 1},
      {"m", 1e-3},
      {"k", 1e3},
      {"M", 1e6},
      {"G", 1e9},
      {"T", 1e12},
      {"P", 1e15},
      {"E", 1e18},
      {"Ki", 0x1p10},
      {"Mi", 0x1p20},
      {"Gi", 0x1p30},
      {"Ti", 0x1p40},
      {"Pi", 0x1p50},
      {"Ei", 0x1p60},
  }};
  for (const auto& [name, factor] : kFactors) {
    if (name != suffix) continue;
    const double value = std::ceil(number * factor);
    constexpr double kLimit = 0x1p63;
    if (!(value < kLimit)) return InvalidArgument("'{}' is too much", text);
    return static_cast<std::uint64_t>(value);
  }
  return InvalidArgument("'{}' is no quantity", text);
}

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
  if (!config.linux().cgroup_parent().empty()) args["cgroupPath"] = config.linux().cgroup_parent();
  return args;
}

std::map<std::string, std::string> NetSysctlsOf(const runtime::v1::PodSandboxConfig& config) {
  std::map<std::string, std::string> sysctls;
  for (const auto& [name, value] : config.linux().sysctls()) {
    if (name.starts_with("net.") || name.starts_with("net/")) sysctls[name] = value;
  }
  return sysctls;
}

}  // namespace crisp::netd
