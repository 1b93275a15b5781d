#include "services/rund/stats/process_usage.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <memory>
#include <string_view>

#include "services/rund/stats/cgroup_text.h"

namespace crisp::rund {
namespace {

constexpr int kMaxDescriptors = 4096;

/// The word behind the key in its line.
std::string_view WordAfter(std::string_view text, std::string_view key) {
  const std::size_t start = text.find(key);
  if (start == text.npos) return {};
  text.remove_prefix(start + key.size());
  std::string_view line = text.substr(0, text.find('\n'));
  return NextWord(line);
}

/// The value of a line such as "Threads:\t3" or "Max open files            1024   4096   files".
std::uint64_t NumberAfter(std::string_view text, std::string_view key) {
  return ParseNumber(WordAfter(text, key)).value_or(0);
}

}  // namespace

void ProcessStates::Count(char state) {
  switch (state) {
    case 'R': ++running; break;
    case 'S':
    case 'I': ++sleeping; break;
    case 'D': ++uninterruptible; break;
    case 'T':
    case 't': ++stopped; break;
    default: break;
  }
}

void ProcessUsage::Add(const ProcessUsage& other) {
  count += other.count;
  threads += other.threads;
  file_descriptors += other.file_descriptors;
  sockets += other.sockets;
  states.running += other.states.running;
  states.sleeping += other.states.sleeping;
  states.uninterruptible += other.states.uninterruptible;
  states.stopped += other.states.stopped;
}

ProcessUsage ProcessReader::Read(const std::vector<int>& pids, Scratch& scratch) const {
  ProcessUsage usage;
  for (const int pid : pids) {
    const std::string dir = proc_root_ + "/" + std::to_string(pid);
    const std::string_view status = ReadOnce(dir + "/status", scratch);
    const std::uint64_t threads = NumberAfter(status, "\nThreads:");
    if (threads == 0) continue;
    const std::string_view state = WordAfter(status, "\nState:");
    if (!state.empty()) usage.states.Count(state.front());
    if (++usage.count == 1) {
      usage.max_open_files = NumberAfter(ReadOnce(dir + "/limits", scratch), "\nMax open files");
    }
    usage.threads += threads;
    AddDescriptors(pid, usage);
  }
  return usage;
}

void ProcessReader::AddDescriptors(int pid, ProcessUsage& usage) const {
  const std::string path = proc_root_ + "/" + std::to_string(pid) + "/fd";
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(path.c_str()), ::closedir);
  if (dir == nullptr) return;
  int looks = 0;
  while (const dirent* entry = ::readdir(dir.get())) {
    if (entry->d_name[0] == '.') continue;
    ++usage.file_descriptors;
    if (++looks > kMaxDescriptors) continue;
    constexpr std::string_view kSocket = "socket:";
    std::array<char, kSocket.size()> target{};
    const ssize_t length =
        ::readlinkat(::dirfd(dir.get()), entry->d_name, target.data(), target.size());
    if (std::string_view(target.data(), length < 0 ? 0 : static_cast<std::size_t>(length)) ==
        kSocket) {
      ++usage.sockets;
    }
  }
}

}  // namespace crisp::rund
