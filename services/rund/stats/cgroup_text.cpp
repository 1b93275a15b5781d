#include "services/rund/stats/cgroup_text.h"

#include <algorithm>
#include <charconv>

namespace crisp::rund {
namespace {

std::optional<std::uint64_t> NumberOf(std::string_view word) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (error != std::errc() || end != word.data() + word.size()) return std::nullopt;
  return value;
}

/// "key=value"; the value of `word` when its key is `key`.
std::optional<std::string_view> ValueOf(std::string_view word, std::string_view key) {
  if (word.size() <= key.size() || !word.starts_with(key) || word[key.size()] != '=') {
    return std::nullopt;
  }
  return word.substr(key.size() + 1);
}

PressureLine ParsePressureLine(std::string_view line) {
  PressureLine parsed;
  const auto take = [](std::string_view word, std::string_view key, auto& value) {
    if (const auto text = ValueOf(word, key)) {
      std::from_chars(text->data(), text->data() + text->size(), value);
    }
  };
  for (std::string_view word = NextWord(line); !word.empty(); word = NextWord(line)) {
    take(word, "avg10", parsed.avg10);
    take(word, "avg60", parsed.avg60);
    take(word, "avg300", parsed.avg300);
    take(word, "total", parsed.total_us);
  }
  return parsed;
}

DeviceIo& DeviceIn(std::vector<DeviceIo>& devices, std::string_view name) {
  const auto found = std::find_if(devices.begin(), devices.end(),
                                  [name](const DeviceIo& one) { return one.device == name; });
  if (found != devices.end()) return *found;
  devices.emplace_back().device = name;
  return devices.back();
}

}  // namespace

void ForEachLine(std::string_view text, const std::function<void(std::string_view)>& fn) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    fn(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

std::string_view NextWord(std::string_view& line) {
  // By hand: find_first_of looks at its set anew for each character, and this is most of a reading.
  const auto blank = [](char c) { return c == ' ' || c == '\t'; };
  std::size_t start = 0;
  while (start < line.size() && blank(line[start])) ++start;
  std::size_t end = start;
  while (end < line.size() && !blank(line[end])) ++end;
  const std::string_view word = line.substr(start, end - start);
  line.remove_prefix(end);
  return word;
}

std::optional<std::uint64_t> ParseNumber(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
  return NumberOf(text);
}

void ForEachKey(std::string_view text,
                const std::function<void(std::string_view key, std::uint64_t value)>& fn) {
  ForEachLine(text, [&fn](std::string_view line) {
    const std::string_view key = NextWord(line);
    if (const auto value = NumberOf(NextWord(line))) fn(key, *value);
  });
}

std::optional<Pressure> ParsePressure(std::string_view text) {
  if (text.empty()) return std::nullopt;
  Pressure pressure;
  ForEachLine(text, [&pressure](std::string_view line) {
    const std::string_view kind = NextWord(line);
    if (kind == "some") pressure.some = ParsePressureLine(line);
    if (kind == "full") pressure.full = ParsePressureLine(line);
  });
  return pressure;
}

std::vector<DeviceIo> ParseIoStat(std::string_view text) {
  std::vector<DeviceIo> devices;
  ForEachLine(text, [&devices](std::string_view line) {
    const std::string_view name = NextWord(line);
    if (name.find(':') == name.npos) return;
    DeviceIo io{.device = std::string(name)};
    const auto take = [](std::string_view word, std::string_view key, std::uint64_t& value) {
      if (const auto number = ValueOf(word, key)) value = NumberOf(*number).value_or(0);
    };
    for (std::string_view word = NextWord(line); !word.empty(); word = NextWord(line)) {
      take(word, "rbytes", io.read_bytes);
      take(word, "wbytes", io.write_bytes);
      take(word, "rios", io.reads);
      take(word, "wios", io.writes);
    }
    devices.push_back(std::move(io));
  });
  return devices;
}

std::vector<DeviceIo> ParseBlkio(std::string_view bytes, std::string_view operations) {
  std::vector<DeviceIo> devices;
  const auto parse = [&devices](std::string_view text, std::uint64_t DeviceIo::*read,
                                std::uint64_t DeviceIo::*write) {
    ForEachLine(text, [&](std::string_view line) {
      const std::string_view name = NextWord(line);
      const std::string_view operation = NextWord(line);
      const auto value = NumberOf(NextWord(line));
      if (name.find(':') == name.npos || !value) return;
      if (operation == "Read") DeviceIn(devices, name).*read = *value;
      if (operation == "Write") DeviceIn(devices, name).*write = *value;
    });
  };
  parse(bytes, &DeviceIo::read_bytes, &DeviceIo::write_bytes);
  parse(operations, &DeviceIo::reads, &DeviceIo::writes);
  return devices;
}

std::vector<int> ParsePids(std::string_view text) {
  std::vector<int> pids;
  ForEachLine(text, [&pids](std::string_view line) {
    int pid = 0;
    std::from_chars(line.data(), line.data() + line.size(), pid);
    if (pid > 0) pids.push_back(pid);  // 0: of another PID namespace
  });
  return pids;
}

}  // namespace crisp::rund
