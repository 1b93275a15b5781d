#include "libs/os/mount.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <string_view>

#include "libs/base/cleanup.h"
#include "libs/base/try.h"
#include "libs/os/files.h"
#include "libs/os/image_mount.h"
#include "libs/os/mount_context.h"
#include "libs/os/namespaces.h"
#include "libs/os/unique_fd.h"

namespace crisp::os {
namespace {

constexpr std::size_t kMountDataLimit = 4095;  // one page, less the final zero

/// `\` and `:` (and `,` for the option string) are special to overlayfs.
std::string Escape(std::string_view path, std::string_view special) {
  std::string escaped;
  for (const char c : path) {
    if (special.find(c) != std::string_view::npos) escaped.push_back('\\');
    escaped.push_back(c);
  }
  return escaped;
}

unsigned AttributeOf(std::string_view option) {
  if (option == "ro") return MOUNT_ATTR_RDONLY;
  if (option == "nodev") return MOUNT_ATTR_NODEV;
  if (option == "nosuid") return MOUNT_ATTR_NOSUID;
  if (option == "noexec") return MOUNT_ATTR_NOEXEC;
  return 0;
}

unsigned long FlagOf(std::string_view option) {
  if (option == "ro") return MS_RDONLY;
  if (option == "nodev") return MS_NODEV;
  if (option == "nosuid") return MS_NOSUID;
  if (option == "noexec") return MS_NOEXEC;
  return 0;
}

struct ByContext {
  bool done = false;    // false: this kernel cannot; mount(2) may
  std::string refused;  // in the kernel's words; "" = it gave none
};

/// Before Linux 6.5 overlayfs takes any option into a text of options and only looks at it when the
/// mount is created; until 6.8 it knows no "lowerdir+". So EINVAL of these two is no verdict.
Result<ByContext> MountOverlayByContext(const Overlay& overlay, const std::string& target) {
  const UniqueFd context(::fsopen("overlay", FSOPEN_CLOEXEC));
  if (!context) {
    if (errno == ENOSYS || errno == EPERM) return ByContext{};
    return Status::Errno(errno, "fsopen overlay");
  }
  const auto set = [&context](const char* key, const std::string& value) {
    return ::fsconfig(context.get(), FSCONFIG_SET_STRING, key, value.c_str(), 0);
  };
  if (set("source", "overlay") != 0) return ContextError(errno, context.get(), "overlay: source");
  std::vector<UniqueFd> images;  // which the overlay takes as its own when it is created
  for (const std::string& lower : overlay.lower_dirs) {
    const bool image = IsImage(lower);
    if (image) images.push_back(CRISP_TRY(MountImage(lower, overlay.userns)));
    const int done = image ? ::fsconfig(context.get(), FSCONFIG_SET_FD, "lowerdir+", nullptr,
                                        images.back().get())
                           : set("lowerdir+", lower);
    if (done != 0) {
      const int error = errno;
      if (error == EINVAL && !image) return ByContext{false, ContextMessages(context.get())};
      return ContextError(error, context.get(), fmt::format("overlay: lower layer {}", lower));
    }
  }
  if (!overlay.upper_dir.empty()) {
    if (set("upperdir", overlay.upper_dir) != 0) {
      return ContextError(errno, context.get(),
                          fmt::format("overlay: upper {}", overlay.upper_dir));
    }
    if (set("workdir", overlay.work_dir) != 0) {
      return ContextError(errno, context.get(), fmt::format("overlay: work {}", overlay.work_dir));
    }
  }
  unsigned attributes = 0;
  for (const std::string& option : overlay.options) {
    if (const unsigned attribute = AttributeOf(option); attribute != 0) {
      attributes |= attribute;
      continue;
    }
    const std::size_t equals = option.find('=');
    const int done = equals == std::string::npos
                         ? ::fsconfig(context.get(), FSCONFIG_SET_FLAG, option.c_str(), nullptr, 0)
                         : set(option.substr(0, equals).c_str(), option.substr(equals + 1));
    if (done != 0) {
      return ContextError(errno, context.get(), fmt::format("overlay: option {}", option));
    }
  }
  if (::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
    const int error = errno;
    if (error == EINVAL) return ByContext{false, ContextMessages(context.get())};
    return ContextError(error, context.get(), "overlay: create");
  }
  const UniqueFd mount(::fsmount(context.get(), FSMOUNT_CLOEXEC, attributes));
  if (!mount) return ContextError(errno, context.get(), "overlay: fsmount");
  if (::move_mount(mount.get(), "", AT_FDCWD, target.c_str(), MOVE_MOUNT_F_EMPTY_PATH) != 0) {
    return Status::Errno(errno, "overlay: attach");
  }
  return ByContext{.done = true, .refused = ""};
}

/// A comma ends an option of mount(2), but not between quotes (which only security labels have).
std::string Quoted(const std::string& option) {
  const std::size_t equals = option.find('=');
  if (equals == std::string::npos || option.find(',', equals) == std::string::npos) return option;
  return fmt::format("{}=\"{}\"", option.substr(0, equals), option.substr(equals + 1));
}

/// mountinfo writes blank, tab, newline and backslash as \ooo.
std::string Unescape(std::string_view text) {
  std::string plain;
  plain.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto is_octal = [&text](std::size_t at) { return text[at] >= '0' && text[at] <= '7'; };
    if (text[i] == '\\' && i + 3 < text.size() && is_octal(i + 1) && is_octal(i + 2) &&
        is_octal(i + 3)) {
      plain.push_back(static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 +
                                        (text[i + 3] - '0')));
      i += 3;
    } else {
      plain.push_back(text[i]);
    }
  }
  return plain;
}

std::vector<std::string_view> SplitWords(std::string_view line) {
  std::vector<std::string_view> words;
  std::size_t start = 0;
  while (start <= line.size()) {
    const std::size_t end = std::min(line.find(' ', start), line.size());
    words.push_back(line.substr(start, end - start));
    start = end + 1;
  }
  return words;
}

bool ParseInt(std::string_view text, int& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

/// "36 35 98:0 /root /mnt rw,noatime master:1 - ext3 /dev/root rw,errors=continue"
bool ParseMountLine(std::string_view line, MountEntry& entry) {
  const std::vector<std::string_view> words = SplitWords(line);
  constexpr std::size_t kFirstTag = 6;
  if (words.size() < kFirstTag + 4) return false;
  if (!ParseInt(words[0], entry.id) || !ParseInt(words[1], entry.parent)) return false;
  entry.root = Unescape(words[3]);
  entry.mount_point = Unescape(words[4]);
  entry.options = words[5];
  std::size_t next = kFirstTag;
  while (next < words.size() && words[next] != "-") entry.tags.emplace_back(words[next++]);
  if (next + 3 >= words.size()) return false;
  entry.type = words[next + 1];
  entry.source = Unescape(words[next + 2]);
  entry.super_options = words[next + 3];
  return true;
}

/// The flags that a remount of a bind must repeat, because they may be locked.
unsigned long FlagsOf(const std::string& path) {
  struct statvfs info = {};
  if (::statvfs(path.c_str(), &info) != 0) return 0;
  unsigned long flags = 0;
  if ((info.f_flag & ST_RDONLY) != 0) flags |= MS_RDONLY;
  if ((info.f_flag & ST_NOSUID) != 0) flags |= MS_NOSUID;
  if ((info.f_flag & ST_NODEV) != 0) flags |= MS_NODEV;
  if ((info.f_flag & ST_NOEXEC) != 0) flags |= MS_NOEXEC;
  if ((info.f_flag & ST_NOATIME) != 0) flags |= MS_NOATIME;
  if ((info.f_flag & ST_NODIRATIME) != 0) flags |= MS_NODIRATIME;
  if ((info.f_flag & ST_RELATIME) != 0) flags |= MS_RELATIME;
  return flags;
}

}  // namespace

Status Mount(const MountArgs& args) {
  const char* type = args.type.empty() ? nullptr : args.type.c_str();
  const char* data = args.data.empty() ? nullptr : args.data.c_str();
  const char* source = args.source.empty() ? "none" : args.source.c_str();
  if (::mount(source, args.target.c_str(), type, args.flags, data) == 0) return Status::Ok();
  return Status::Errno(errno, "mount {} {} on {}", args.type.empty() ? "-" : args.type, args.source,
                       args.target);
}

Status BindMount(const std::string& source, const std::string& target, const BindOptions& options) {
  const unsigned long recursive = options.recursive ? static_cast<unsigned long>(MS_REC) : 0UL;
  CRISP_TRY(Mount({.source = source, .target = target, .flags = MS_BIND | recursive}));
  const unsigned long wanted =
      options.extra_flags | (options.readonly ? static_cast<unsigned long>(MS_RDONLY) : 0UL);
  if (wanted == 0) return Status::Ok();
  Cleanup undo([&target] { ::umount2(target.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW); });
  CRISP_TRY(Mount({.source = source,
                   .target = target,
                   .flags = MS_REMOUNT | MS_BIND | wanted | FlagsOf(target)}));
  undo.Dismiss();
  return Status::Ok();
}

Status IdmappedBindMount(const std::string& source, const std::string& target, int userns,
                         const BindOptions& options) {
  const unsigned recursive = options.recursive ? AT_RECURSIVE : 0;
  const UniqueFd tree(
      ::open_tree(AT_FDCWD, source.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | recursive));
  if (!tree.valid()) return Status::Errno(errno, "open {} for an ID-mapped mount", source);
  struct mount_attr attributes {};
  attributes.attr_set = MOUNT_ATTR_IDMAP;
  attributes.userns_fd = static_cast<std::uint64_t>(userns);
  if (options.readonly) attributes.attr_set |= MOUNT_ATTR_RDONLY;
  if ((options.extra_flags & MS_NOSUID) != 0) attributes.attr_set |= MOUNT_ATTR_NOSUID;
  if ((options.extra_flags & MS_NODEV) != 0) attributes.attr_set |= MOUNT_ATTR_NODEV;
  if ((options.extra_flags & MS_NOEXEC) != 0) attributes.attr_set |= MOUNT_ATTR_NOEXEC;
  if (::mount_setattr(tree.get(), "", AT_EMPTY_PATH | recursive, &attributes, sizeof attributes) !=
      0) {
    return Status::Errno(errno, "{}: its file system cannot be ID-mapped", source);
  }
  if (::move_mount(tree.get(), "", AT_FDCWD, target.c_str(), MOVE_MOUNT_F_EMPTY_PATH) != 0) {
    return Status::Errno(errno, "mount {} at {}", source, target);
  }
  return Status::Ok();
}

Status ProbeRecursiveReadOnly(const std::string& dir) {
  const UniqueFd copy(::open_tree(AT_FDCWD, dir.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
  if (!copy.valid()) return Status::Errno(errno, "copy the mount at {}", dir);
  struct mount_attr attributes {};
  attributes.attr_set = MOUNT_ATTR_RDONLY;
  if (::mount_setattr(copy.get(), "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes,
                      sizeof attributes) != 0) {
    return Status::Errno(errno, "make a tree of mounts read-only");
  }
  return Status::Ok();
}

Result<MountArgs> OverlayArgs(const Overlay& overlay, const std::string& target) {
  std::string data = "lowerdir=";
  for (std::size_t i = 0; i < overlay.lower_dirs.size(); ++i) {
    if (i > 0) data.push_back(':');
    data += Escape(overlay.lower_dirs[i], "\\:,");
  }
  if (!overlay.upper_dir.empty()) {
    data += ",upperdir=" + Escape(overlay.upper_dir, "\\,");
    data += ",workdir=" + Escape(overlay.work_dir, "\\,");
  }
  unsigned long flags = 0;
  for (const std::string& option : overlay.options) {
    if (const unsigned long flag = FlagOf(option); flag != 0) {
      flags |= flag;
    } else {
      data += "," + Quoted(option);
    }
  }
  if (data.size() > kMountDataLimit) {
    return InvalidArgument("overlay: {} layers make {} bytes of options, this kernel takes {}",
                           overlay.lower_dirs.size(), data.size(), kMountDataLimit);
  }
  return MountArgs{.source = "overlay",
                   .target = target,
                   .type = "overlay",
                   .flags = flags,
                   .data = std::move(data)};
}

Status MountOverlayByOptions(const Overlay& overlay, const std::string& target) {
  Result<MountArgs> by_path = OverlayArgs(overlay, target);
  if (by_path.ok()) return Mount(*by_path);
  // A layer's shortest name is its descriptor's number, seen from where those are.
  Overlay numbered = overlay;
  std::vector<UniqueFd> open;
  for (std::string& lower : numbered.lower_dirs) {
    open.push_back(CRISP_TRY(Open(lower, O_PATH | O_DIRECTORY).While("overlay: lower layer")));
    lower = std::to_string(open.back().get());
  }
  const MountArgs args = CRISP_TRY(OverlayArgs(numbered, target));
  return OnOwnThread([&args]() -> Status {
    if (::unshare(CLONE_FS) != 0 || ::chdir("/proc/self/fd") != 0)
      return Status::Errno(errno, "overlay: go to the open layers");
    return Mount(args);
  });
}

Status MountOverlay(const Overlay& overlay, const std::string& target) {
  if (overlay.lower_dirs.empty()) return InvalidArgument("overlay: no lower layer");
  const auto& options = overlay.options;
  if (overlay.upper_dir.empty() && overlay.lower_dirs.size() == 1 &&
      !IsImage(overlay.lower_dirs.front())) {
    // The kernel wants two layers at least.
    return BindMount(overlay.lower_dirs.front(), target, {.readonly = true});
  }
  if (!overlay.upper_dir.empty() &&
      std::find(options.begin(), options.end(), "volatile") != options.end()) {
    CRISP_TRY(RemoveTree(overlay.work_dir + "/work/incompat/volatile"));
  }
  const ByContext tried =
      CRISP_TRY(MountOverlayByContext(overlay, target).While("mount on {}", target));
  if (tried.done) return Status::Ok();
  if (std::any_of(overlay.lower_dirs.begin(), overlay.lower_dirs.end(), IsImage))
    return FailedPrecondition("mount on {}: overlayfs takes no images as layers: {}", target,
                              tried.refused);
  Status mounted = MountOverlayByOptions(overlay, target);
  if (mounted.code() == Code::kNotFound) {
    // The kernel does not say which.
    for (const std::string& lower : overlay.lower_dirs) {
      if (!Exists(lower)) return std::move(mounted).While("overlay: lower layer {}", lower);
    }
  }
  if (tried.refused.empty()) return mounted;
  return std::move(mounted).While("{}", tried.refused);
}

bool KernelHasFilesystem(const std::string& type, const std::string& proc,
                         const std::string& modules) {
  // "nodev\toverlay\n"
  const Result<std::string> loaded = ReadFile(proc + "/filesystems");
  if (!loaded.ok() || loaded->find("\t" + type + "\n") != std::string::npos) return true;
  if (!Exists(proc + "/modules")) return false;
  utsname kernel{};
  ::uname(&kernel);
  const Result<std::string> loadable =
      ReadFile(fmt::format("{}/{}/modules.dep", modules, kernel.release), MiB(64));
  return !loadable.ok() || loadable->find("/" + type + ".ko") != std::string::npos;
}

Status Unmount(const std::string& path, UnmountHow how) {
  const int flags = UMOUNT_NOFOLLOW | (how == UnmountHow::kLazy ? MNT_DETACH : 0);
  if (::umount2(path.c_str(), flags) == 0) return Status::Ok();
  if (errno == EINVAL || errno == ENOENT || errno == ENOTDIR) return Status::Ok();
  return Status::Errno(errno, "unmount {}", path);
}

Status UnmountBelow(const std::string& prefix) {
  std::string clean = prefix;
  while (clean.size() > 1 && clean.back() == '/') clean.pop_back();
  if (clean.empty() || clean.front() != '/' || clean == "/") {
    return InvalidArgument("unmount below '{}': not a path to do that with", prefix);
  }
  // More than once: what another mount hides only shows after that one has gone.
  constexpr int kMaxRounds = 16;
  for (int round = 0; round < kMaxRounds; ++round) {
    std::vector<MountEntry> mounts = CRISP_TRY(ReadMounts());
    std::reverse(mounts.begin(), mounts.end());
    bool found = false;
    for (const MountEntry& mount : mounts) {
      if (!IsAtOrBelow(mount.mount_point, clean)) continue;
      found = true;
      const Status status = Unmount(mount.mount_point);
      if (status.ok()) continue;
      if (status.error() != EBUSY) return status;
      CRISP_TRY(Unmount(mount.mount_point, UnmountHow::kLazy));
    }
    if (!found) return Status::Ok();
  }
  return FailedPrecondition("unmount below {}: mounts are still there", clean);
}

Result<std::vector<MountEntry>> ParseMounts(const std::string& text) {
  std::vector<MountEntry> entries;
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (line.empty()) continue;
    MountEntry entry;
    if (!ParseMountLine(line, entry)) return DataLoss("not a line of mountinfo: '{}'", line);
    entries.push_back(std::move(entry));
  }
  return entries;
}

Result<std::vector<MountEntry>> ReadMounts(const std::string& path) {
  const std::string text = CRISP_TRY(ReadFile(path, MiB(64)));
  return ParseMounts(text);
}

Result<bool> IsMountPoint(const std::string& path) {
  struct statx info = {};
  if (::statx(AT_FDCWD, path.c_str(), AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_TYPE, &info) !=
      0) {
    if (errno == ENOENT || errno == ENOTDIR) return false;
    return Status::Errno(errno, "statx {}", path);
  }
  return (info.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
}

Status SetPropagation(const std::string& path, unsigned long flags) {
  if (::mount("none", path.c_str(), nullptr, flags, nullptr) == 0) return Status::Ok();
  return Status::Errno(errno, "set the propagation of {}", path);
}

}  // namespace crisp::os
