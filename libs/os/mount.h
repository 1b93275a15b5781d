#pragma once

#include <sys/mount.h>

#include <string>
#include <vector>

#include "libs/base/result.h"

namespace crisp::os {

struct MountArgs {
  std::string source;
  std::string target;
  std::string type;
  unsigned long flags = 0;  // MS_*
  std::string data;         // "size=64m,mode=1777"
};
/// mount(2), one call.
Status Mount(const MountArgs& args);

struct BindOptions {
  bool recursive = false;
  bool readonly = false;
  unsigned long extra_flags = 0;  // MS_NOSUID, MS_NODEV, MS_NOEXEC: set by a remount after the bind
};
/// The target (file or directory) must exist. Read-only binds keep the flags that the source's
/// mount locks. When the remount fails the bind is taken away again.
Status BindMount(const std::string& source, const std::string& target,
                 const BindOptions& options = {});

/// A bind mount whose files show the owners that the user namespace at `userns` (a descriptor of
/// its nsfs file) gives them: id 0 on disk is id 0 of that namespace. Otherwise as BindMount.
/// kInvalidArgument (EINVAL): the file system cannot be ID-mapped, or is already.
Status IdmappedBindMount(const std::string& source, const std::string& target, int userns,
                         const BindOptions& options = {});

/// Whether the kernel can make a whole tree of mounts read-only at once (mount_setattr of Linux
/// 5.12): tries it on a copy of the mount at `dir`, which nobody sees. Ok, or what it answers.
Status ProbeRecursiveReadOnly(const std::string& dir);

struct Overlay {
  std::vector<std::string> lower_dirs;  // the topmost layer first; a file is an image (MountImage)
  std::string upper_dir;                // empty = read-only
  std::string work_dir;
  std::vector<std::string> options;  // "volatile", "metacopy=off", "ro"
  int userns = -1;  // a descriptor: layers that are images show the owners that it gives them
};
/// fsopen + `lowerdir+` (no 4096-byte limit, no escaping), where the kernel lacks that mount(2).
/// kFailedPrecondition: layers that are images, and a kernel that does not take them.
/// With "volatile" a stale work/incompat/volatile of an earlier mount is cleared first.
Status MountOverlay(const Overlay& overlay, const std::string& target);
/// By mount(2) alone, as on kernels before 6.8. As many layers as overlayfs takes (500), however
/// long their paths are: where a page does not hold them, /proc shows numbers for the mount's
/// lowerdir.
Status MountOverlayByOptions(const Overlay& overlay, const std::string& target);
/// The same for mount(2), with what is special in its text of options escaped or quoted.
/// kInvalidArgument: more text than a page holds.
Result<MountArgs> OverlayArgs(const Overlay& overlay, const std::string& target);

/// Whether the kernel can mount a file system of this type, now or once its module is loaded. True
/// where that cannot be told. For tests: where /proc and the modules are.
bool KernelHasFilesystem(const std::string& type, const std::string& proc = "/proc",
                         const std::string& modules = "/lib/modules");

enum class UnmountHow { kNormal, kLazy };
/// The topmost mount at `path` goes, without following a symlink. Not a mount point or absent = Ok.
/// kFailedPrecondition (EBUSY) when in use.
Status Unmount(const std::string& path, UnmountHow how = UnmountHow::kNormal);
/// Every mount at or below `prefix`, deepest and latest first; one that is busy goes lazily.
Status UnmountBelow(const std::string& prefix);

struct MountEntry {
  int id = 0;
  int parent = 0;
  std::string root;               // of the mount inside its file system
  std::string mount_point;        // unescaped
  std::string options;            // per mount: "rw,nosuid"
  std::vector<std::string> tags;  // "shared:1", "master:2"
  std::string type;
  std::string source;
  std::string super_options;
};
/// /proc/self/mountinfo (or `path`), in its order.
Result<std::vector<MountEntry>> ReadMounts(const std::string& path = "/proc/self/mountinfo");
/// From mountinfo's text; for tests. kDataLoss names the first bad line.
Result<std::vector<MountEntry>> ParseMounts(const std::string& text);
/// Whether something is mounted exactly at `path` (statx STATX_ATTR_MOUNT_ROOT; one system call).
/// Absent = false.
Result<bool> IsMountPoint(const std::string& path);
/// mount(2) with MS_PRIVATE, MS_SHARED, MS_SLAVE … [| MS_REC].
Status SetPropagation(const std::string& path, unsigned long flags);

}  // namespace crisp::os
