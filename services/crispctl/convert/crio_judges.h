#pragma once

#include <string_view>

#include "services/crispctl/convert/rule.h"

// For the options of CRI-O whose value, or whose neighbours, decide what becomes of them.

namespace crisp::ctl::convert {

// Where things lie.
Finding CrioRoot(const Case& one);
Finding CrioImageStore(const Case& one);
Finding CrioStorageDriver(const Case& one);

// The streaming server.
Finding CrioStreamAddress(const Case& one);
Finding CrioStreamPort(const Case& one);
Finding CrioStreamTls(const Case& one);
/// A file that only counts with stream_enable_tls.
Judge CrioIfTls(std::string_view key);
Finding CrioTlsVersion(const Case& one);

// Containers.
Finding CrioLogLevel(const Case& one);
Finding CrioTracingEndpoint(const Case& one);
Finding CrioLogSizeMax(const Case& one);
Finding CrioConmonEnv(const Case& one);
Finding CrioSeccompProfile(const Case& one);
Finding CrioAppArmorProfile(const Case& one);
Finding CrioHostPorts(const Case& one);

// Handlers: one of a kind that crisp does not run is left out with all of its options.
Finding CrioDefaultRuntime(const Case& one);
Finding CrioRuntimeType(const Case& one);
Finding CrioRuntimePath(const Case& one);
Finding CrioInherit(const Case& one);
Finding CrioMonitorPath(const Case& one);
Finding CrioCreateTimeout(const Case& one);
Judge OfHandler(Judge judge);

// Images.
Finding CrioTransport(const Case& one);
Finding CrioAuthFile(const Case& one);
Finding CrioImageVolumes(const Case& one);
Finding CrioPullTimeout(const Case& one);

// Networks and metrics.
Finding CrioPluginDir(const Case& one);
Finding CrioPluginDirs(const Case& one);
Finding CrioStatusGrace(const Case& one);
Finding CrioMetrics(const Case& one);
/// metrics_host and metrics_port count with enable_metrics.
Finding CrioIfMetrics(const Case& one);

}  // namespace crisp::ctl::convert
