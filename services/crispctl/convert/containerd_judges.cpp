#include "services/crispctl/convert/containerd_judges.h"

#include <fmt/format.h>

#include "services/crispctl/convert/common_judges.h"

namespace crisp::ctl::convert {
namespace {

constexpr std::string_view kOff = "is off, as it is in crisp";

std::string StreamPort(const Options& all) {
  const Option* port = all.Find("cri/stream_server_port");
  if (port == nullptr) return "0";
  return port->value.text.empty() ? std::to_string(port->value.integer) : port->value.text;
}

/// "docker.io" of "https://docker.io/v2"; as it is when it has no scheme.
std::string HostOf(std::string_view registry) {
  if (const std::size_t scheme = registry.find("://"); scheme != registry.npos) {
    registry.remove_prefix(scheme + 3);
  }
  return std::string(registry.substr(0, registry.find('/')));
}

/// Without the user and password that a URL may have in it.
std::string WithoutUser(const std::string& url) {
  const std::size_t scheme = url.find("://");
  const std::size_t at = url.find('@');
  if (scheme == url.npos || at == url.npos) return url;
  return url.substr(0, scheme + 3) + url.substr(at + 1);
}

}  // namespace

Finding ContainerdRoot(const Case& one) {
  return OwnDirectory(one, "state_root", "/var/lib/containerd");
}

Finding ContainerdSnapshotter(const Case& one) {
  const std::string& name = one.option.value.text;
  if (name.empty()) return NotNeededHere("is empty: crisp's own default counts");
  if (name == "overlayfs") return one.Put("imaged.driver", YamlText("overlay"));
  if (name == "erofs" || name == "btrfs") return one.Put("imaged.driver", YamlText(name));
  if (name == "native") return one.Put("imaged.driver", YamlText("vfs"));
  return NotSupportedHere(
      fmt::format("there is no driver {}: overlay is taken, or set imaged.driver", name));
}

Finding ContainerdLevel(const Case& one) {
  if (one.option.value.text.empty()) return NotNeededHere("is empty: crisp's own default counts");
  return Level(one);
}

Finding ContainerdFormat(const Case& one) { return Take("log.format", Text)(one); }

Finding ContainerdStreamAddress(const Case& one) {
  return Listener(one, one.option.value.text, StreamPort(one.all));
}

Finding ContainerdStreamPort(const Case& one) {
  const std::string host = one.all.Text("cri/stream_server_address", "127.0.0.1");
  return Listener(one, host, StreamPort(one.all));
}

Finding ContainerdStreamTls(const Case& one) {
  if (IsOff(one.option.value)) return NotNeededHere(kOff);
  if (!one.all.Text("cri/x509_key_pair_streaming/tls_cert_file").empty()) {
    return {Outcome::kTaken, "rund.streaming_tls_cert", ""};
  }
  return NotSupportedHere(
      "crisp makes no certificate by itself: rund.streaming_tls_cert and .streaming_tls_key");
}

Finding ContainerdConfigPath(const Case& one) {
  const std::string& paths = one.option.value.text;
  if (paths.empty()) return NotNeededHere("is empty: crisp's own default counts");
  const std::size_t colon = paths.find(':');
  std::string changed;
  if (colon != paths.npos) {
    changed = fmt::format(
        "the first directory only: put what is in {} there, or certificates into "
        "one of imaged.certs_dirs",
        paths.substr(colon + 1));
  }
  return one.Put("imaged.hosts_dir", YamlText(paths.substr(0, colon)), std::move(changed));
}

Finding ContainerdMirror(const Case& one) {
  const std::string directory = one.all.Text("cri/registry/config_path", "/etc/containerd/certs.d");
  const std::string host = one.name == "*" ? "_default" : one.name;
  std::string file = fmt::format("write {}/{}/hosts.toml:", directory, host);
  const auto endpoints = Texts(one.option.value);
  if (!endpoints.ok()) return NotSupportedHere(endpoints.status().message());
  for (const std::string& endpoint : *endpoints) {
    file += fmt::format("\n[host.\"{}\"]\n  capabilities = [\"pull\", \"resolve\"]",
                        WithoutUser(endpoint));
  }
  return NotSupportedHere(file);
}

Finding ContainerdInsecure(const Case& one) {
  if (IsOff(one.option.value)) return NotNeededHere(kOff);
  return one.Append("imaged.insecure_registries", HostOf(one.name),
                    "the registry may speak plain HTTP, too");
}

Finding ContainerdPinned(const Case& one) {
  if (one.name == "sandbox") return NotNeededHere("pods have no pause container");
  if (one.option.value.text.empty()) return NotNeededHere("is empty");
  return one.Append("imaged.pinned_images", one.option.value.text);
}

Finding ContainerdPullTimeout(const Case& one) {
  if (IsOff(one.option.value)) return NotNeededHere("imaged.stall_timeout_seconds is there anyway");
  return one.Put("imaged.stall_timeout_seconds", Seconds(one.option.value),
                 "a transfer that stalls is resumed; imaged.pull_timeout_seconds ends the pull");
}

Finding ContainerdMaxConf(const Case& one) {
  if (one.option.value.integer == 1) return NotNeededHere("is what crisp does");
  return NotSupportedHere(
      "pods get one network, netd.default_network: more come from a meta plugin such as multus");
}

Finding ContainerdIpPreference(const Case& one) {
  if (one.option.value.text == "cni" || one.option.value.text.empty()) {
    return NotNeededHere("the addresses are told in the plugin's order, as it is");
  }
  return NotSupportedHere("let the CNI plugin give the address first that shall be first");
}

Finding ContainerdBinDir(const Case& one) {
  const Option* several = one.all.Find("cri/cni/bin_dirs");
  if (several != nullptr && !several->value.items.empty()) return NotNeededHere("bin_dirs counts");
  return Take("netd.bin_dirs", ListOfOne)(one);
}

Finding ContainerdPorts(const Case& one) {
  if (IsOff(one.option.value)) return NotNeededHere(kOff);
  return one.Append("rund.default_sysctls", "net.ipv4.ip_unprivileged_port_start=0");
}

Finding ContainerdIcmp(const Case& one) {
  if (IsOff(one.option.value)) return NotNeededHere(kOff);
  return one.Append("rund.default_sysctls", "net.ipv4.ping_group_range=0 2147483647");
}

Finding ContainerdHugetlb(const Case&) {
  return NotNeededHere("limits of huge pages are set where the node has the controller");
}

Finding ContainerdSeccomp(const Case& one) {
  const std::string& profile = one.option.value.text;
  if (profile.empty() || profile == "unconfined") return NotNeededHere("is what crisp does");
  return NotSupportedHere("the kubelet's seccompDefault gives all pods RuntimeDefault");
}

}  // namespace crisp::ctl::convert
