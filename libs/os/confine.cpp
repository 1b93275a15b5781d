#include "libs/os/confine.h"

#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <set>
#include <type_traits>

#include "libs/base/try.h"
#include "libs/os/files.h"

namespace crisp::os {
namespace {

struct FreeCap {
  void operator()(cap_t caps) const { ::cap_free(caps); }
};
using Caps = std::unique_ptr<std::remove_pointer_t<cap_t>, FreeCap>;

Status DropCapabilities(const std::vector<std::string>& kept) {
  std::set<cap_value_t> keep;
  for (const std::string& name : kept) {
    cap_value_t value = 0;
    std::string full = "cap_" + name;
    std::transform(full.begin(), full.end(), full.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (::cap_from_name(full.c_str(), &value) != 0)
      return InvalidArgument("there is no capability {}", name);
    keep.insert(value);
  }
  // Ends at the first number that the kernel does not know.
  for (cap_value_t cap = 0; ::cap_get_bound(cap) >= 0; ++cap)
    if (!keep.contains(cap) && ::cap_get_bound(cap) == 1 && ::cap_drop_bound(cap) != 0)
      return Status::Errno(errno, "take capability {} out of the bounding set", cap);
  if (::cap_reset_ambient() != 0) return Status::Errno(errno, "clear the ambient capabilities");

  const Caps now(::cap_get_proc());
  const Caps wanted(::cap_init());
  if (!now || !wanted) return Status::Errno(errno, "read the capabilities");
  for (const cap_value_t cap : keep) {
    // What the process does not have it does without: whoever started it knows why.
    cap_flag_value_t has = CAP_CLEAR;
    if (::cap_get_flag(now.get(), cap, CAP_PERMITTED, &has) != 0 || has != CAP_SET) continue;
    if (::cap_set_flag(wanted.get(), CAP_PERMITTED, 1, &cap, CAP_SET) != 0 ||
        ::cap_set_flag(wanted.get(), CAP_EFFECTIVE, 1, &cap, CAP_SET) != 0)
      return Status::Errno(errno, "keep capability {}", cap);
  }
  if (::cap_compare(now.get(), wanted.get()) == 0) return Status::Ok();
  if (::cap_set_proc(wanted.get()) != 0) return Status::Errno(errno, "drop capabilities");
  return Status::Ok();
}

}  // namespace

Confined::Seen Confined::Look(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return {path, "", 0, 0};
  std::error_code error;
  return {path, std::filesystem::canonical(path, error), info.st_dev, info.st_ino};
}

bool Confined::Holds(const std::string& path) const {
  const std::string real = Look(path).real;
  return std::any_of(seen_.begin(), seen_.end(), [&path, &real](const Seen& each) {
    if (each.path == path) return true;
    return !each.real.empty() && (real == each.real || real.starts_with(each.real + "/"));
  });
}

std::vector<std::string> Confined::Outdated() const {
  std::vector<std::string> outdated;
  for (const Seen& before : seen_) {
    const Seen now = Look(before.path);
    if (now.inode != 0 && (now.inode != before.inode || now.device != before.device))
      outdated.push_back(before.path);
  }
  return outdated;
}

std::vector<std::string> Confined::Outdated(const ConfinePlan& wanted) const {
  std::vector<std::string> outdated = Outdated();
  if (landlock_abi_ == 0) return outdated;
  for (const auto* paths : {&wanted.read, &wanted.execute})
    for (const std::string& path : *paths)
      if (Exists(path) && !Holds(path)) outdated.push_back(path);
  return outdated;
}

Status KeepMemoryPrivate() {
  const rlimit none{0, 0};
  if (::setrlimit(RLIMIT_CORE, &none) != 0) return Status::Errno(errno, "forbid core files");
  // What the limit does not cover: cores that the kernel hands to a program.
  if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return Status::Errno(errno, "forbid core dumps");
  return Status::Ok();
}

Result<Confined> Confine(const ConfinePlan& plan) {
  if (CRISP_TRY(ListDir("/proc/self/task")).size() != 1)
    return FailedPrecondition("a process with several threads cannot be confined as a whole");
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    return Status::Errno(errno, "set no_new_privs");
  Confined confined;
  confined.landlock_abi_ = CRISP_TRY(internal::LimitPaths(plan));
  CRISP_TRY(DropCapabilities(plan.capabilities));
  // Last: the calls above are not on the list.
  CRISP_TRY(internal::FilterSystemCalls(plan));
  if (confined.landlock_abi_ > 0) {
    for (const auto* paths : {&plan.read, &plan.execute})
      for (const std::string& path : *paths) confined.seen_.push_back(Confined::Look(path));
  }
  return confined;
}

}  // namespace crisp::os
