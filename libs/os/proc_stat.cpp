#include "libs/os/proc_stat.h"

#include <algorithm>
#include <charconv>
#include <string_view>

#include "libs/base/try.h"
#include "libs/os/files.h"

namespace crisp::os {
namespace {

// Numbers of fields as proc(5) counts them.
constexpr std::size_t kParentField = 4;
constexpr std::size_t kUserTimeField = 14;
constexpr std::size_t kSystemTimeField = 15;
constexpr std::size_t kStartTimeField = 22;

template <typename T>
bool ParseNumber(std::string_view text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

std::vector<std::string_view> Words(std::string_view text) {
  std::vector<std::string_view> words;
  while (true) {
    const std::size_t start = text.find_first_not_of(" \n");
    if (start == std::string_view::npos) return words;
    text.remove_prefix(start);
    const std::size_t end = std::min(text.find_first_of(" \n"), text.size());
    words.push_back(text.substr(0, end));
    text.remove_prefix(end);
  }
}

/// Without CONFIG_PROC_CHILDREN: everybody's parent.
Result<std::vector<pid_t>> ChildrenByScan(pid_t pid, const std::string& proc_root) {
  std::vector<pid_t> children;
  for (const std::string& name : CRISP_TRY(ListDir(proc_root))) {
    pid_t candidate = 0;
    if (!ParseNumber(std::string_view(name), candidate)) continue;
    const Result<ProcStat> stat = ReadProcStat(candidate, proc_root);
    if (stat.ok() && stat->parent == pid) children.push_back(candidate);
  }
  return children;
}

}  // namespace

Result<ProcStat> ParseProcStat(const std::string& text) {
  const Status bad = DataLoss("not a /proc/<pid>/stat: '{}'", text.substr(0, 80));
  const std::size_t open = text.find(" (");
  const std::size_t close = text.rfind(") ");
  if (open == std::string::npos || close == std::string::npos || close < open) return bad;
  ProcStat stat;
  if (!ParseNumber(std::string_view(text).substr(0, open), stat.pid)) return bad;
  stat.command = text.substr(open + 2, close - open - 2);
  const std::vector<std::string_view> words = Words(std::string_view(text).substr(close + 2));
  constexpr std::size_t kFirstField = 3;  // the state
  if (words.size() <= kStartTimeField - kFirstField || words[0].size() != 1) return bad;
  stat.state = words[0][0];
  std::uint64_t user = 0;
  std::uint64_t system = 0;
  if (!ParseNumber(words[kParentField - kFirstField], stat.parent) ||
      !ParseNumber(words[kUserTimeField - kFirstField], user) ||
      !ParseNumber(words[kSystemTimeField - kFirstField], system) ||
      !ParseNumber(words[kStartTimeField - kFirstField], stat.start_time)) {
    return bad;
  }
  stat.cpu_ticks = user + system;
  return stat;
}

Result<ProcStat> ReadProcStat(pid_t pid, const std::string& proc_root) {
  const std::string text = CRISP_TRY(ReadFile(fmt::format("{}/{}/stat", proc_root, pid)));
  return ParseProcStat(text);
}

std::string WhereaboutsOf(pid_t pid, const std::string& proc_root) {
  const Result<ProcStat> stat = ReadProcStat(pid, proc_root);
  if (!stat.ok()) return fmt::format("process {} is gone", pid);
  auto place = ReadFile(fmt::format("{}/{}/wchan", proc_root, pid), KiB(4));
  return fmt::format("process {} ({}) is in state {} in {}", pid, stat->command, stat->state,
                     std::move(place).value_or("an unknown place"));
}

Result<std::vector<pid_t>> Children(pid_t pid, const std::string& proc_root) {
  const std::string tasks = fmt::format("{}/{}/task", proc_root, pid);
  const Result<std::vector<std::string>> threads = ListDir(tasks);
  if (!threads.ok()) {
    if (threads.code() == Code::kNotFound) return std::vector<pid_t>();
    return threads.status();
  }
  std::vector<pid_t> children;
  for (const std::string& thread : *threads) {
    const Result<std::string> text = ReadFile(fmt::format("{}/{}/children", tasks, thread));
    if (!text.ok()) {
      if (text.code() == Code::kNotFound && Exists(fmt::format("{}/{}", tasks, thread))) {
        return ChildrenByScan(pid, proc_root);
      }
      continue;  // the thread ended meanwhile
    }
    for (const std::string_view word : Words(*text)) {
      pid_t child = 0;
      if (ParseNumber(word, child)) children.push_back(child);
    }
  }
  return children;
}

Result<std::vector<pid_t>> Descendants(pid_t pid, const std::string& proc_root) {
  std::vector<pid_t> all = CRISP_TRY(Children(pid, proc_root));
  for (std::size_t next = 0; next < all.size(); ++next) {
    for (const pid_t child : CRISP_TRY(Children(all[next], proc_root))) {
      if (std::find(all.begin(), all.end(), child) == all.end()) all.push_back(child);
    }
  }
  return all;
}

Result<ProcessId> ProcessId::Of(pid_t pid, const std::string& proc_root) {
  const ProcStat stat = CRISP_TRY(ReadProcStat(pid, proc_root));
  return ProcessId{pid, stat.start_time};
}

bool Alive(const ProcessId& process, const std::string& proc_root) {
  const Result<ProcStat> stat = ReadProcStat(process.pid, proc_root);
  return stat.ok() && stat->start_time == process.start_time && stat->state != 'Z' &&
         stat->state != 'X';
}

}  // namespace crisp::os
