#include "services/netd/core/host_ports.h"

#include <cstdint>
#include <set>
#include <string_view>
#include <utility>

#include "libs/base/try.h"
#include "libs/json/json.h"
#include "libs/log/log.h"
#include "libs/os/file_stamp.h"
#include "libs/os/files.h"
#include "libs/os/namespaces.h"
#include "libs/os/netlink.h"
#include "libs/process/command.h"
#include "services/netd/core/lock_wait.h"
#include "services/netd/core/result.h"

namespace crisp::netd {
namespace {

/// The table without its elements; may be run again over itself. A port of one address goes before
/// that of all. Connections from the host's loopback, and from where the answer would go past the
/// host (the pod itself, its own subnet), get the host as their source. "guard": with
/// route_localnet on an interface others could send to 127.0.0.1.
constexpr std::string_view kTable = R"(
add table inet crisp_hostports
add map inet crisp_hostports any4 { type inet_proto . inet_service : ipv4_addr . inet_service ; }
add map inet crisp_hostports any6 { type inet_proto . inet_service : ipv6_addr . inet_service ; }
add map inet crisp_hostports at4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service ; }
add map inet crisp_hostports at6 { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service ; }
add set inet crisp_hostports near4 { type ipv4_addr . ipv4_addr ; flags interval ; }
add set inet crisp_hostports near6 { type ipv6_addr . ipv6_addr ; flags interval ; }
flush map inet crisp_hostports any4
flush map inet crisp_hostports any6
flush map inet crisp_hostports at4
flush map inet crisp_hostports at6
flush set inet crisp_hostports near4
flush set inet crisp_hostports near6
add chain inet crisp_hostports guard { type filter hook prerouting priority raw ; }
add chain inet crisp_hostports prerouting { type nat hook prerouting priority dstnat ; }
add chain inet crisp_hostports output { type nat hook output priority -100 ; }
add chain inet crisp_hostports postrouting { type nat hook postrouting priority srcnat ; }
add chain inet crisp_hostports ports
flush chain inet crisp_hostports guard
flush chain inet crisp_hostports prerouting
flush chain inet crisp_hostports output
flush chain inet crisp_hostports postrouting
flush chain inet crisp_hostports ports
add rule inet crisp_hostports guard iifname != "lo" ip daddr 127.0.0.0/8 drop
add rule inet crisp_hostports prerouting fib daddr type local jump ports
add rule inet crisp_hostports output fib daddr type local jump ports
add rule inet crisp_hostports ports dnat ip to ip daddr . meta l4proto . th dport map @at4
add rule inet crisp_hostports ports meta nfproto ipv4 dnat ip to meta l4proto . th dport map @any4
add rule inet crisp_hostports ports dnat ip6 to ip6 daddr . meta l4proto . th dport map @at6
add rule inet crisp_hostports ports meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @any6
add rule inet crisp_hostports postrouting ct status dnat ip saddr 127.0.0.0/8 masquerade
add rule inet crisp_hostports postrouting ct status dnat ip saddr . ip daddr @near4 masquerade
add rule inet crisp_hostports postrouting ct status dnat ip6 saddr . ip6 daddr @near6 masquerade
)";
/// No table is an error to delete; so it is made first.
constexpr std::string_view kNoTable =
    "add table inet crisp_hostports\ndelete table inet crisp_hostports\n";

/// Most do not: their record is not parsed for that.
bool AsksForPorts(const Attachment& attachment) {
  return attachment.capability_args.find(kBuiltinPorts) != std::string::npos;
}

std::string Line(std::string_view verb, const PortElement& element) {
  const std::string value = element.value.empty() ? "" : " : " + element.value;
  return fmt::format("{} element inet crisp_hostports {} {{ {}{} }}\n", verb, element.map,
                     element.key, value);
}

bool IsAny(const std::string& address) {
  return address.empty() || address == "0.0.0.0" || address == "::";
}

bool IsSix(const std::string& address) { return address.find(':') != std::string::npos; }

/// The elements of one of the pod's addresses ("10.1.2.3/24").
Status AddElements(const nlohmann::json& ports, const std::string& with_prefix,
                   std::vector<PortElement>& elements) {
  const std::string pod = with_prefix.substr(0, with_prefix.find('/'));
  if (!IsAddress(pod)) return InvalidArgument("'{}' is no address", with_prefix);
  const char* family = IsSix(pod) ? "6" : "4";
  bool any = false;
  for (const nlohmann::json& port : ports) {
    const std::string host = CRISP_TRY(json::OptString(port, "hostIP"));
    const bool other_family = !host.empty() && IsSix(host) != IsSix(pod);
    if (other_family) continue;
    if (!host.empty() && !IsAddress(host)) {
      return InvalidArgument("port mapping: host address '{}' is none", host);
    }
    const std::string protocol = CRISP_TRY(json::GetString(port, "protocol"));
    const std::int64_t host_port = CRISP_TRY(json::GetInt(port, "hostPort"));
    const std::int64_t pod_port = CRISP_TRY(json::GetInt(port, "containerPort"));
    PortElement element{.map = fmt::format("any{}", family),
                        .key = fmt::format("{} . {}", protocol, host_port),
                        .value = fmt::format("{} . {}", pod, pod_port)};
    if (protocol == "udp") element.udp.port = static_cast<std::uint16_t>(host_port);
    if (!IsAny(host)) {
      element.map = fmt::format("at{}", family);
      element.key = fmt::format("{} . {}", host, element.key);
      element.udp.address = host;
    }
    elements.push_back(std::move(element));
    any = true;
  }
  if (any) {
    elements.push_back({.map = fmt::format("near{}", family), .key = with_prefix + " . " + pod});
  }
  return Status::Ok();
}

/// The kernel looks at the rules with the first packet of a flow only, and one that goes on keeps
/// its entry. Connections end with the pod; a client that sends UDP from one port does not know.
void ForgetFlows(const std::vector<PortElement>& elements) {
  std::vector<os::UdpEnd> ends;
  for (const PortElement& element : elements) {
    if (element.udp.port != 0) ends.push_back(element.udp);
  }
  log::IfError("have the kernel forget the UDP flows of a host port",
               os::ForgetUdpFlows(ends).status());
}

std::string RouteLocalnet(const std::string& interface) {
  return fmt::format("net/ipv4/conf/{}/route_localnet", interface);
}

}  // namespace

Result<std::vector<PortElement>> PortElementsOf(const Attachment& attachment) {
  std::vector<PortElement> elements;
  if (attachment.result.empty() || !AsksForPorts(attachment)) return elements;
  const nlohmann::json args = CRISP_TRY(json::Parse(attachment.capability_args));
  const auto ports = args.find(std::string(kBuiltinPorts));
  if (ports == args.end()) return elements;
  const nlohmann::json result = CRISP_TRY(json::Parse(attachment.result));
  bool seen_four = false;
  bool seen_six = false;
  for (const nlohmann::json& ip : CRISP_TRY(json::OptArray(result, "ips"))) {
    const std::string address = CRISP_TRY(json::GetString(ip, "address"));
    bool& seen = IsSix(address) ? seen_six : seen_four;
    if (std::exchange(seen, true)) continue;
    CRISP_TRY(AddElements(*ports, address, elements));
  }
  return elements;
}

// In turn within the instance; only another instance is asked again and again.
Result<HostPorts::Held> HostPorts::Lock(const CallContext& cc) {
  work::LockTable::Held here = CRISP_TRY(locks_.Lock(cc, "table"));
  os::FileLock everywhere = CRISP_TRY(WaitForLock(cc, "another change of the host ports", [this] {
    return os::FileLock::TryLock(layout_.PortsLock());
  }));
  return Held{std::move(here), std::move(everywhere)};
}

Status HostPorts::CheckUsable(const CallContext& cc) {
  const std::string state = os::FileStamp(nft_);
  {
    const std::scoped_lock lock(mutex_);
    if (!state.empty() && state == usable_) return Status::Ok();
  }
  CRISP_TRY(Run(cc, std::string(kTable), {"-c", "-f", "-"}).While("netd.hostports is builtin"));
  const std::scoped_lock lock(mutex_);
  usable_ = state;
  return Status::Ok();
}

Status HostPorts::Run(const CallContext& cc, const std::string& script,
                      std::vector<std::string> args) const {
  const process::Output output = CRISP_TRY(process::Run(cc, {.program = nft_,
                                                             .args = std::move(args),
                                                             .env = process::PlainEnvironment(),
                                                             .stdin_data = script}));
  if (output.exit_code == 0) return Status::Ok();
  constexpr std::size_t kMaxWords = 1024;
  return Internal("nft: {}", output.err.substr(0, kMaxWords));
}

Status HostPorts::Open(const CallContext& cc, const Attachment& attachment) {
  const std::vector<PortElement> elements = CRISP_TRY(PortElementsOf(attachment));
  if (elements.empty()) return Status::Ok();
  std::string script;
  for (const PortElement& element : elements) script += Line("add", element);
  const Held held = CRISP_TRY(Lock(cc));
  if (!Run(cc, script).ok()) {
    // There is no table yet, or no longer, or a port is taken: the second time tells.
    CRISP_TRY(SyncLocked(cc));
    const Status added = Run(cc, script);
    if (added.code() == Code::kInternal) {
      return FailedPrecondition("a host port is another pod's: {}", added.message());
    }
    CRISP_TRY(added);
  }
  ForgetFlows(elements);
  log::IfError("let the host's loopback reach a pod", RouteLoopback(attachment));
  return Status::Ok();
}

Status HostPorts::Close(const CallContext& cc, const Attachment& attachment) {
  if (attachment.result.empty() || !AsksForPorts(attachment)) return Status::Ok();
  const std::vector<PortElement> elements = CRISP_TRY(PortElementsOf(attachment));
  // An element that is not there is an error to delete, one that is there is none to add. Added
  // with its value, so that another pod's with this key makes the transaction fail.
  std::string script;
  for (const PortElement& element : elements) {
    script += Line("add", element) + Line("delete", {.map = element.map, .key = element.key});
  }
  const Held held = CRISP_TRY(Lock(cc));
  const bool is_last = !CRISP_TRY(store_.AnyAttachedWith(boot_id_, kBuiltinPorts));
  if (is_last || !Run(cc, script).ok()) CRISP_TRY(SyncLocked(cc));
  ForgetFlows(elements);
  return Status::Ok();
}

Status HostPorts::Sync(const CallContext& cc) {
  const Held held = CRISP_TRY(Lock(cc));
  return SyncLocked(cc);
}

Result<std::string> HostPorts::Elements() const {
  std::string script;
  std::set<std::pair<std::string, std::string>> taken;  // the oldest pod keeps a port
  for (const Attachment& attachment : CRISP_TRY(store_.List())) {
    if (attachment.phase != Phase::kAttached || attachment.boot_id != boot_id_) continue;
    for (const PortElement& element : CRISP_TRY(PortElementsOf(attachment))) {
      if (taken.emplace(element.map, element.key).second) script += Line("add", element);
    }
  }
  return script;
}

Status HostPorts::SyncLocked(const CallContext& cc) const {
  const std::string elements = CRISP_TRY(Elements());
  if (!elements.empty()) return Run(cc, std::string(kTable) + elements);
  // The table guards what is routed, so it stays while that cannot be taken back.
  const Status unrouted = UnrouteLoopback();
  log::IfError("take back the way from the host's loopback to pods", unrouted);
  return Run(cc, std::string(unrouted.ok() ? kNoTable : kTable));
}

/// The kernel refuses to send from 127.0.0.1 through other interfaces than lo unless it is told. A
/// note of it is kept, so that it can be taken back; not where somebody else has told it.
Status HostPorts::RouteLoopback(const Attachment& attachment) const {
  const nlohmann::json result = CRISP_TRY(json::Parse(attachment.result));
  for (const std::string& address : CRISP_TRY(AddressesOf(result))) {
    if (IsSix(address)) continue;
    const std::string interface = CRISP_TRY(os::InterfaceTowards(address));
    const std::string sysctl = RouteLocalnet(interface);
    if (os::ReadFile("/proc/sys/" + sysctl).value_or("") == "1\n") return Status::Ok();
    CRISP_TRY(os::MakeDirs(layout_.RoutedDir()));
    const std::string note = layout_.RoutedDir() + "/" + interface;
    CRISP_TRY(os::WriteFile(note, ""));
    const Status routed = os::WriteSysctl(sysctl, "1");
    if (!routed.ok()) CRISP_TRY(os::RemoveFile(note));
    return routed;
  }
  return Status::Ok();
}

Status HostPorts::UnrouteLoopback() const {
  const Result<std::vector<std::string>> interfaces = os::ListDir(layout_.RoutedDir());
  if (interfaces.code() == Code::kNotFound) return Status::Ok();
  CRISP_TRY(interfaces.status());
  for (const std::string& interface : *interfaces) {
    const Status written = os::WriteSysctl(RouteLocalnet(interface), "0");
    if (written.code() != Code::kNotFound) CRISP_TRY(written);  // else it went with the interface
    CRISP_TRY(os::RemoveFile(layout_.RoutedDir() + "/" + interface));
  }
  return Status::Ok();
}

}  // namespace crisp::netd
