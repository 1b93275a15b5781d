#include "services/rund/stats/disk_usage.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "libs/base/cleanup.h"
#include "libs/base/try.h"
#include "libs/os/beneath.h"
#include "libs/os/btrfs.h"

namespace crisp::rund {
namespace {

constexpr std::uint64_t kBlock = 512;           // of st_blocks, whatever the file system
constexpr std::chrono::seconds kMinPeriod{60};  // between two counts of one directory
constexpr int kSparing = 200;                   // a count takes at most 1/200 of the time
constexpr std::size_t kCheckEvery = 1024;       // entries, between looks at the clock
// What a container can make us remember; a count of more is too low.
constexpr std::size_t kMaxPending = 1 << 17;
constexpr std::size_t kMaxSeen = 1 << 18;

/// Holds one directory open at a time, however deep the tree is that a container has made.
class Counter {
 public:
  Counter(const CallContext& cc, const os::Beneath& top, std::size_t max_entries)
      : cc_(cc), top_(top), max_entries_(max_entries) {}

  Status Count() {
    pending_.emplace_back(".");
    while (!pending_.empty()) {
      const std::string dir = std::move(pending_.back());
      pending_.pop_back();
      auto fd = top_.OpenFile(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
      if (fd.ok()) CRISP_TRY(CountIn(std::move(*fd), dir));  // else gone
    }
    return Status::Ok();
  }
  const DiskUsage& usage() const { return usage_; }

 private:
  void Add(const struct stat& info) {
    if (!os::ChangedSince(info, since_)) return;
    if (info.st_nlink > 1 && !S_ISDIR(info.st_mode)) {
      if (seen_.contains(info.st_ino)) return;
      if (seen_.size() < kMaxSeen) seen_.insert(info.st_ino);
    }
    usage_.bytes += static_cast<std::uint64_t>(info.st_blocks) * kBlock;
    ++usage_.inodes;
  }

  Status CountIn(os::UniqueFd fd, const std::string& dir) {
    struct stat self = {};
    if (::fstat(fd.get(), &self) != 0) return Status::Ok();
    if (dir == ".") {
      device_ = self.st_dev;
      since_ = os::SubvolumeMade(fd.get());
      Add(self);
    }
    const std::unique_ptr<DIR, int (*)(DIR*)> entries(::fdopendir(fd.get()), ::closedir);
    if (entries == nullptr) return Status::Ok();
    const int held = fd.release();  // closedir closes it
    while (const dirent* entry = ::readdir(entries.get())) {
      const std::string_view name = entry->d_name;
      if (name == "." || name == "..") continue;
      if (++entries_ > max_entries_) return ResourceExhausted("more than {} files", max_entries_);
      if (entries_ % kCheckEvery == 0) CRISP_TRY(cc_.Check());
      struct stat info = {};
      if (::fstatat(held, entry->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0) continue;
      if (info.st_dev != device_) continue;
      Add(info);
      if (S_ISDIR(info.st_mode) && pending_.size() < kMaxPending) {
        pending_.push_back(dir == "." ? std::string(name) : dir + "/" + std::string(name));
      }
    }
    return Status::Ok();
  }

  const CallContext& cc_;
  const os::Beneath& top_;
  const std::size_t max_entries_;
  std::vector<std::string> pending_;  // directories still to be read, below the top
  std::unordered_set<ino_t> seen_;    // files of several names
  dev_t device_ = 0;
  std::optional<timespec> since_;  // nothing: all counts
  std::size_t entries_ = 0;
  DiskUsage usage_;
};

}  // namespace

Result<DiskUsage> CountDisk(const CallContext& cc, const std::string& dir,
                            std::size_t max_entries) {
  const os::Beneath top = CRISP_TRY(os::Beneath::Open(dir));
  Counter counter(cc, top, max_entries);
  CRISP_TRY(counter.Count());
  return counter.usage();
}

std::optional<DiskUsage> DiskUsages::Get(const std::string& dir) {
  const std::lock_guard lock(mutex_);
  return entries_[dir].usage;
}

bool DiskUsages::WantsUpdate() const {
  const std::lock_guard lock(mutex_);
  return !updating_ && std::any_of(entries_.begin(), entries_.end(), [](const auto& entry) {
    return entry.second.due == SteadyTime::min();
  });
}

void DiskUsages::SetDirs(const std::vector<std::string>& dirs) {
  std::map<std::string, Entry> next;
  const std::lock_guard lock(mutex_);
  for (const std::string& dir : dirs) next[dir] = std::move(entries_[dir]);
  entries_ = std::move(next);
}

std::optional<std::string> DiskUsages::NextDue() const {
  const std::lock_guard lock(mutex_);
  const SteadyTime now = clock_.Now();
  const std::pair<const std::string, Entry>* oldest = nullptr;
  for (const auto& entry : entries_) {
    if (entry.second.due > now) continue;
    if (oldest == nullptr || entry.second.due < oldest->second.due) oldest = &entry;
  }
  return oldest == nullptr ? std::nullopt : std::optional(oldest->first);
}

void DiskUsages::Store(const std::string& dir, const Result<DiskUsage>& counted,
                       std::chrono::nanoseconds took) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(dir);
  if (found == entries_.end()) return;
  found->second.due =
      clock_.Now() + std::max<std::chrono::nanoseconds>(kMinPeriod, took * kSparing);
  if (!counted.ok()) return;
  found->second.usage = *counted;
  found->second.usage->at = clock_.Wall().time_since_epoch().count();
}

void DiskUsages::Update(const CallContext& cc, std::chrono::nanoseconds budget) {
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(updating_, true)) return;
  }
  const Cleanup done([this] {
    const std::lock_guard lock(mutex_);
    updating_ = false;
  });
  const SteadyTime begin = clock_.Now();
  while (clock_.Now() - begin < budget && cc.Check().ok()) {
    const auto dir = NextDue();
    if (!dir) return;
    const SteadyTime start = clock_.Now();
    Store(*dir, CountDisk(cc, *dir), clock_.Now() - start);
  }
}

}  // namespace crisp::rund
