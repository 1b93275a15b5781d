#pragma once

#include <string_view>

#include "services/crispctl/convert/rule.h"

// For the options of containerd whose value, or whose neighbours, decide what becomes of them.

namespace crisp::ctl::convert {

Finding ContainerdRoot(const Case& one);
Finding ContainerdSnapshotter(const Case& one);
Finding ContainerdLevel(const Case& one);
Finding ContainerdFormat(const Case& one);

// The streaming server.
Finding ContainerdStreamAddress(const Case& one);
Finding ContainerdStreamPort(const Case& one);
Finding ContainerdStreamTls(const Case& one);

// Registries.
Finding ContainerdConfigPath(const Case& one);
Finding ContainerdMirror(const Case& one);
Finding ContainerdInsecure(const Case& one);
Finding ContainerdPinned(const Case& one);
Finding ContainerdPullTimeout(const Case& one);

// Pods.
Finding ContainerdMaxConf(const Case& one);
Finding ContainerdIpPreference(const Case& one);
Finding ContainerdBinDir(const Case& one);
Finding ContainerdPorts(const Case& one);
Finding ContainerdIcmp(const Case& one);
Finding ContainerdHugetlb(const Case& one);
Finding ContainerdSeccomp(const Case& one);

// Handlers: one of a kind that crisp does not run is left out with all of its options.
Finding ContainerdDefaultRuntime(const Case& one);
Finding ContainerdRuntimeType(const Case& one);
Finding ContainerdBinary(const Case& one);
Finding ContainerdSystemdCgroup(const Case& one);
Finding ContainerdAnnotations(const Case& one);
Finding ContainerdSandboxer(const Case& one);
Judge OfRuntime(Judge judge);

}  // namespace crisp::ctl::convert
