#include "services/rund/spec/user.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <charconv>
#include <limits>
#include <optional>

#include "libs/base/try.h"
#include "services/rund/spec/text.h"

namespace crisp::rund {
namespace {

struct PasswdEntry {
  std::string_view name;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::string_view home;
};

struct GroupEntry {
  std::string_view name;
  std::uint32_t gid = 0;
  std::string_view members;
};

std::optional<std::uint32_t> Number(std::string_view text) {
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  // The kernel's "no id".
  if (number == std::numeric_limits<std::uint32_t>::max()) return std::nullopt;
  return number;
}

/// A small text file of the rootfs; empty when it is not there. The image wrote it: only a regular
/// file is read, and opening never blocks on a FIFO.
Result<std::string> ReadRootfsFile(const os::Beneath& rootfs, const std::string& path) {
  constexpr std::size_t kLimit = 4U << 20U;
  Result<os::UniqueFd> file = rootfs.OpenFile(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
  if (!file.ok()) {
    if (file.code() == Code::kNotFound) return std::string();
    return std::move(file).status().While("read /{} of the image", path);
  }
  struct stat info {};
  if (fstat(file->get(), &info) != 0) return Status::Errno(errno, "fstat /{}", path);
  if (!S_ISREG(info.st_mode)) return InvalidArgument("/{} of the image is not a file", path);
  std::string text;
  std::array<char, 16384> buffer{};
  while (true) {
    const ssize_t n = read(file->get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Status::Errno(errno, "read /{} of the image", path);
    if (n == 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(n));
    if (text.size() > kLimit) {
      return InvalidArgument("/{} of the image is larger than {} bytes", path, kLimit);
    }
  }
}

/// Lines that are not of the form are passed over, as every libc does.
std::vector<PasswdEntry> ParsePasswd(std::string_view text) {
  std::vector<PasswdEntry> entries;
  for (std::string_view line : Split(text, '\n')) {
    const auto fields = Split(line, ':');
    if (fields.size() < 6 || fields[0].empty()) continue;
    const auto uid = Number(fields[2]);
    const auto gid = Number(fields[3]);
    if (uid && gid) entries.push_back({fields[0], *uid, *gid, fields[5]});
  }
  return entries;
}

std::vector<GroupEntry> ParseGroup(std::string_view text) {
  std::vector<GroupEntry> entries;
  for (std::string_view line : Split(text, '\n')) {
    const auto fields = Split(line, ':');
    if (fields.size() < 3 || fields[0].empty()) continue;
    if (const auto gid = Number(fields[2])) {
      entries.push_back({fields[0], *gid, fields.size() > 3 ? fields[3] : std::string_view()});
    }
  }
  return entries;
}

Result<std::uint32_t> IdInRange(std::int64_t value, std::string_view field) {
  if (value < 0 || value >= std::numeric_limits<std::uint32_t>::max()) {
    return InvalidArgument("{}: {} is not a valid id", field, value);
  }
  return static_cast<std::uint32_t>(value);
}

}  // namespace

Result<ResolvedUser> ResolveUser(const os::Beneath& rootfs,
                                 const runtime::v1::LinuxContainerSecurityContext& security,
                                 std::string_view image_user) {
  const bool named = !security.run_as_username().empty();
  if (security.has_run_as_group() && !security.has_run_as_user() && !named) {
    return InvalidArgument(
        "linux.security_context.run_as_group is set without run_as_user or run_as_username");
  }
  const auto policy = security.supplemental_groups_policy();
  if (policy != runtime::v1::Merge && policy != runtime::v1::Strict) {
    return InvalidArgument("linux.security_context.supplemental_groups_policy: unknown policy {}",
                           static_cast<int>(policy));
  }

  const std::string passwd_text = CRISP_TRY(ReadRootfsFile(rootfs, "etc/passwd"));
  const std::string group_text = CRISP_TRY(ReadRootfsFile(rootfs, "etc/group"));
  const std::vector<PasswdEntry> passwd = ParsePasswd(passwd_text);
  const std::vector<GroupEntry> group = ParseGroup(group_text);
  const auto by_name = [&passwd](std::string_view name) -> const PasswdEntry* {
    for (const PasswdEntry& entry : passwd) {
      if (entry.name == name) return &entry;
    }
    return nullptr;
  };
  const auto by_uid = [&passwd](std::uint32_t uid) -> const PasswdEntry* {
    for (const PasswdEntry& entry : passwd) {
      if (entry.uid == uid) return &entry;
    }
    return nullptr;
  };

  ResolvedUser user;
  const PasswdEntry* entry = nullptr;
  std::string_view group_part;
  if (security.has_run_as_user()) {
    user.uid =
        CRISP_TRY(IdInRange(security.run_as_user().value(), "linux.security_context.run_as_user"));
    entry = by_uid(user.uid);
  } else if (named) {
    entry = by_name(security.run_as_username());
    if (entry == nullptr) {
      return InvalidArgument("linux.security_context.run_as_username: the image has no user \"{}\"",
                             security.run_as_username());
    }
  } else if (!image_user.empty()) {
    const std::size_t colon = image_user.find(':');
    const std::string_view user_part = image_user.substr(0, colon);
    if (colon != std::string_view::npos) group_part = image_user.substr(colon + 1);
    if (const auto uid = Number(user_part)) {
      user.uid = *uid;
      entry = by_uid(*uid);
    } else if (!user_part.empty()) {
      entry = by_name(user_part);
      if (entry == nullptr) {
        return InvalidArgument("the image's user \"{}\" is not in its /etc/passwd", user_part);
      }
    } else {
      entry = by_uid(0);
    }
  } else {
    entry = by_uid(0);
  }
  if (entry != nullptr) {
    user.uid = entry->uid;
    user.gid = entry->gid;
    if (entry->home.starts_with('/')) user.home = entry->home;
  }

  if (security.has_run_as_group()) {
    user.gid = CRISP_TRY(
        IdInRange(security.run_as_group().value(), "linux.security_context.run_as_group"));
  } else if (!group_part.empty()) {
    if (const auto gid = Number(group_part)) {
      user.gid = *gid;
    } else {
      const auto it = std::find_if(group.begin(), group.end(), [&group_part](const GroupEntry& g) {
        return g.name == group_part;
      });
      if (it == group.end()) {
        return InvalidArgument("the image's group \"{}\" is not in its /etc/group", group_part);
      }
      user.gid = it->gid;
    }
  }

  std::set<std::uint32_t> others;
  for (const std::int64_t gid : security.supplemental_groups()) {
    others.insert(CRISP_TRY(IdInRange(gid, "linux.security_context.supplemental_groups")));
  }
  if (policy == runtime::v1::Merge && entry != nullptr) {
    for (const GroupEntry& candidate : group) {
      for (std::string_view member : Split(candidate.members, ',')) {
        if (member == entry->name) others.insert(candidate.gid);
      }
    }
  }
  others.erase(user.gid);
  user.groups.push_back(user.gid);
  user.groups.insert(user.groups.end(), others.begin(), others.end());
  return user;
}

}  // namespace crisp::rund
