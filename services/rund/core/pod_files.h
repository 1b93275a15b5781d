#pragma once

#include <map>
#include <string>

#include "crisp/rund/v1/record.pb.h"
#include "libs/base/call_context.h"
#include "libs/base/ids.h"
#include "libs/base/status.h"
#include "libs/base/units.h"
#include "services/rund/spec/builder.h"
#include "services/rund/store/layout.h"

namespace crisp::rund {

/// What of a pod's configuration cannot be honoured: kInvalidArgument names the field.
Status CheckPodConfig(const runtime::v1::PodSandboxConfig& config);

bool IsHostIpc(const runtime::v1::PodSandboxConfig& config);
/// The pod has a user namespace of its own.
bool HasUserns(const runtime::v1::PodSandboxConfig& config);
/// The pod has one PID namespace for all its containers (and so a pause process).
bool SharesPids(const runtime::v1::PodSandboxConfig& config);
/// The name that the pod's containers see.
Result<std::string> HostnameOf(const PodId& id, const runtime::v1::PodSandboxConfig& config);

/// The pod's namespaces and files as its containers get them.
PodFiles PodFilesOf(const Layout& layout, const v1::PodRecord& pod);

/// Where a pod's cgroup is, kept beside its files: a pod whose record cannot be read is taken down
/// by it.
struct CgroupNote {
  std::string cgroup;
  bool ours = false;
};
Status NoteCgroup(const Layout& layout, const PodId& id, const CgroupNote& note);
/// kNotFound: there is none, as of pods of older versions.
Result<CgroupNote> ReadCgroupNote(const Layout& layout, const PodId& id);

/// Pinned user, ipc and uts namespaces (with the pod's hostname and sysctls), /dev/shm,
/// resolv.conf, hosts, hostname. Nothing of it may be there already. On failure what was made
/// stays, for RemovePodFiles. `pause` is the crisp-pause program.
Status MakePodFiles(const CallContext& cc, const Layout& layout, const std::string& pause,
                    const v1::PodRecord& pod, Bytes shm_size);
/// With SELinux: gives the pod's files and its /dev/shm the label that its containers may use.
Status LabelPodFiles(const Layout& layout, const v1::PodRecord& pod, const SelinuxNode& selinux);
/// Those of the node's sysctls that the pod has the namespaces for and does not set itself.
void AddDefaultSysctls(const std::map<std::string, std::string>& defaults,
                       runtime::v1::PodSandboxConfig& config);
/// Adds the pod's address to its hosts file.
Status AddHostsEntry(const Layout& layout, const v1::PodRecord& pod);
/// Unpins, unmounts, removes the directory. Idempotent.
Status RemovePodFiles(const Layout& layout, const PodId& id);

/// The text of a pod's resolv.conf; "" when the configuration has none (then it is the host's).
std::string ResolvConfOf(const runtime::v1::DNSConfig& dns);

}  // namespace crisp::rund
