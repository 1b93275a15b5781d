#pragma once

#include <set>
#include <string>
#include <string_view>

#include "cri/v1/api.pb.h"
#include "libs/base/result.h"

namespace crisp::rund {

/// SELinux as the node has it. `process` is empty where there is none; then nothing is labelled.
struct SelinuxNode {
  std::string root = "/sys/fs/selinux";
  std::string process;  // of containers, "system_u:system_r:container_t:s0"
  std::string file;     // of their files, "system_u:object_r:container_file_t:s0"
  std::string xattr = "security.selinux";

  bool on() const { return !process.empty(); }
};

/// The node's labels, from the policy's lxc_contexts below `etc` ("/etc/selinux"). Off without a
/// mounted `root`. kFailedPrecondition: SELinux is on, but the policy knows no containers.
Result<SelinuxNode> DetectSelinux(const std::string& root, const std::string& etc);

struct SelinuxLabels {
  std::string process;  // empty = none
  std::string mount;    // of the root file system and volumes; empty = none
};

/// Two categories out of 1024 that no level in `taken` has: the level of a pod. `seed` says where
/// the search begins. Of half a million pairs each of 64 `owner`s (instances of this daemon, which
/// do not know each other's) has its own eight thousand. kResourceExhausted after those.
Result<std::string> PickLevel(const std::set<std::string>& taken, std::string_view seed,
                              unsigned owner);

/// `own` where it says something, else `base`.
runtime::v1::SELinuxOption MergeSelinux(const runtime::v1::SELinuxOption& base,
                                        const runtime::v1::SELinuxOption& own);

/// The labels of a container: the node's with `options` over them, at the pod's `level` unless the
/// options have another. `unconfined` (privileged, or in the host's PID or IPC namespace): the
/// process runs as spc_t unless a type is given, and nothing is labelled for it. None at all
/// without SELinux, whatever the options are: agents of all nodes have them. kInvalidArgument: a
/// label that the policy does not know.
Result<SelinuxLabels> LabelsOf(const SelinuxNode& node, const runtime::v1::SELinuxOption& options,
                               const std::string& level, bool unconfined);

/// What a container says of SELinux, over what its pod says.
runtime::v1::SELinuxOption SelinuxOptionsOf(const runtime::v1::ContainerConfig& config,
                                            const runtime::v1::PodSandboxConfig& sandbox);
bool IsEmpty(const runtime::v1::SELinuxOption& options);

/// The labels of a container: its options over those of its pod, which is at `level`.
Result<SelinuxLabels> ContainerLabels(const SelinuxNode& node,
                                      const runtime::v1::ContainerConfig& config,
                                      const runtime::v1::PodSandboxConfig& sandbox,
                                      const std::string& level);

/// Labels a tree, links themselves rather than what they lead to, other mounts left out. One whose
/// top has the label already is taken to be labelled as a whole. kInvalidArgument: a directory of
/// the system itself.
Status Relabel(const SelinuxNode& node, const std::string& path, const std::string& label);

}  // namespace crisp::rund
