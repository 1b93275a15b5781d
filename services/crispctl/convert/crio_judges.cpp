#include "services/crispctl/convert/crio_judges.h"

#include <fmt/format.h>

#include "services/crispctl/convert/common_judges.h"

namespace crisp::ctl::convert {
namespace {

constexpr std::string_view kOff = "is off, as it is in crisp";

bool HasTls(const Options& all) { return all.Bool("crio/api/stream_enable_tls"); }
bool HasMetrics(const Options& all) { return all.Bool("crio/metrics/enable_metrics"); }

std::string StreamPort(const Options& all) {
  const Option* port = all.Find("crio/api/stream_port");
  if (port == nullptr) return "0";
  return port->value.text.empty() ? std::to_string(port->value.integer) : port->value.text;
}

}  // namespace

Finding CrioRoot(const Case& one) {
  return OwnDirectory(one, "state_root", "/var/lib/containers/storage");
}

Finding CrioImageStore(const Case& one) { return OwnDirectory(one, "imaged.image_root", ""); }

Finding CrioStorageDriver(const Case& one) {
  const std::string& driver = one.option.value.text;
  if (driver.empty()) return NotNeededHere("is empty: crisp's own default counts");
  if (driver == "overlay" || driver == "overlay2") {
    return one.Put("imaged.driver", YamlText("overlay"));
  }
  if (driver == "btrfs" || driver == "vfs") return one.Put("imaged.driver", YamlText(driver));
  return NotSupportedHere(
      fmt::format("there is no driver {}: overlay is taken, or set imaged.driver", driver));
}

Finding CrioStreamAddress(const Case& one) {
  return Listener(one, one.option.value.text, StreamPort(one.all));
}

Finding CrioStreamPort(const Case& one) {
  const std::string host = one.all.Text("crio/api/stream_address", "127.0.0.1");
  return Listener(one, host, StreamPort(one.all));
}

Finding CrioStreamTls(const Case& one) {
  if (!HasTls(one.all)) return NotNeededHere(kOff);
  const std::string cert = one.all.Text("crio/api/stream_tls_cert");
  if (!cert.empty() && !one.all.Text("crio/api/stream_tls_key").empty()) {
    return {Outcome::kTaken, "rund.streaming_tls_cert", ""};
  }
  return NotSupportedHere("make a certificate: rund.streaming_tls_cert and .streaming_tls_key");
}

Judge CrioIfTls(std::string_view key) {
  return [key](const Case& one) {
    if (!HasTls(one.all)) return NotNeededHere("stream_enable_tls is not set");
    return Take(key, Text)(one);
  };
}

Finding CrioTlsVersion(const Case& one) {
  const std::string& version = one.option.value.text;
  if (version == "VersionTLS12") return one.Put("rund.streaming_tls_min_version", YamlText("1.2"));
  if (version == "VersionTLS13") return one.Put("rund.streaming_tls_min_version", YamlText("1.3"));
  return NotSupportedHere("rund.streaming_tls_min_version is 1.2 or 1.3");
}

Finding CrioLogLevel(const Case& one) { return Level(one); }

Finding CrioTracingEndpoint(const Case& one) {
  if (!one.all.Bool("crio/tracing/enable_tracing"))
    return NotNeededHere("enable_tracing is not set");
  return Take("tracing.endpoint", Text)(one);
}

Finding CrioLogSizeMax(const Case& one) {
  if (IsOff(one.option.value)) return NotNeededHere("no limit, as in crisp");
  return one.Put("rund.max_log_size", Number(one.option.value),
                 "the log begins anew at that size; the kubelet's containerLogMaxSize rotates "
                 "without a loss");
}

Finding CrioConmonEnv(const Case& one) {
  Finding last = NotNeededHere("no handler is without a monitor_env of its own");
  for (const std::string& name : one.all.Names("crio/runtime/runtimes/*/**")) {
    if (one.all.Find(fmt::format("crio/runtime/runtimes/{}/monitor_env", name)) != nullptr) {
      continue;
    }
    last = OfHandler(Change("rund.runtimes.*.monitor_env", List, "is said for each handler"))(
        {one.option, name, one.all, one.draft});
  }
  return last;
}

Finding CrioSeccompProfile(const Case& one) {
  if (one.option.value.text == "unconfined") {
    return NotSupportedHere("name a profile that allows all, or set seccompProfile in the pods");
  }
  return Take("rund.seccomp_profile", Text)(one);
}

Finding CrioAppArmorProfile(const Case& one) {
  if (one.option.value.text == "crio-default") {
    return NotNeededHere("crisp has a profile of its own, crisp-default");
  }
  return Take("rund.apparmor_profile", Text)(one);
}

Finding CrioHostPorts(const Case& one) {
  const bool disabled = one.option.value.boolean;
  return one.Put("netd.hostports", YamlText(disabled ? "plugin" : "builtin"),
                 disabled ? "host ports are mapped by plugins that can (portmap)"
                          : "netd maps host ports itself, as CRI-O does; portmap gets none");
}

Finding CrioTransport(const Case& one) {
  const std::string& transport = one.option.value.text;
  if (transport.empty() || transport == "docker://") return NotNeededHere("is how crisp pulls");
  return NotSupportedHere("images come from registries alone");
}

Finding CrioAuthFile(const Case& one) {
  const std::string& file = one.option.value.text;
  if (file.empty()) return NotNeededHere("is empty: crisp's own default counts");
  return one.Put("imaged.auth_files",
                 YamlList({file, "/etc/crisp/auth.json", "/run/containers/0/auth.json"}));
}

Finding CrioImageVolumes(const Case& one) {
  const std::string& how = one.option.value.text;
  if (how == "bind") return NotNeededHere("is how crisp does it");
  if (how == "mkdir") {
    return {Outcome::kChanged, "",
            "a VOLUME of an image is a directory of its own with what the image has there"};
  }
  return NotSupportedHere("a VOLUME of an image is always a directory of the container's own");
}

Finding CrioPullTimeout(const Case& one) {
  if (IsOff(one.option.value)) return NotNeededHere("imaged.stall_timeout_seconds is there anyway");
  return one.Put("imaged.stall_timeout_seconds", Seconds(one.option.value),
                 "a transfer that stalls is resumed; imaged.pull_timeout_seconds ends the pull");
}

Finding CrioPluginDir(const Case& one) {
  if (one.all.Find("crio/network/plugin_dirs") == nullptr) {
    return Take("netd.bin_dirs", ListOfOne)(one);
  }
  return NotNeededHere("plugin_dirs counts");
}

Finding CrioPluginDirs(const Case& one) { return Take("netd.bin_dirs", List)(one); }

Finding CrioStatusGrace(const Case& one) {
  if (IsOff(one.option.value)) {
    return {Outcome::kChanged, "",
            "crisp always watches its networks: netd.status_grace_seconds is 60"};
  }
  return one.Put("netd.status_grace_seconds", Seconds(one.option.value));
}

Finding CrioMetrics(const Case& one) {
  constexpr std::string_view kKey = "crid.metrics_address";
  if (!HasMetrics(one.all)) return one.Put(kKey, YamlText(""));
  const std::string host = one.all.Text("crio/metrics/metrics_host", "127.0.0.1");
  const Option* port = one.all.Find("crio/metrics/metrics_port");
  const std::int64_t number = port == nullptr ? 9090 : port->value.integer;
  return one.Put(kKey, YamlText(HostPort(host, std::to_string(number))),
                 "the metrics have crisp's names: deploy/monitoring has rules and dashboards");
}

Finding CrioIfMetrics(const Case& one) {
  if (!HasMetrics(one.all)) return NotNeededHere("enable_metrics is not set");
  return {Outcome::kTaken, "crid.metrics_address", ""};
}

}  // namespace crisp::ctl::convert
