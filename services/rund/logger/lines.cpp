#include "services/rund/logger/lines.h"

#include <algorithm>
#include <cstdio>

namespace crisp::rund::logger {
namespace {

constexpr std::string_view kStdout = "stdout";
constexpr std::string_view kStderr = "stderr";

}  // namespace

Line ParseLine(std::string_view line) {
  Line parsed{.time = {}, .stream = kStdout};
  const auto first = line.find(' ');
  if (first == line.npos) return parsed;
  const std::string_view rest = line.substr(first + 1);
  const auto second = rest.find(' ');
  if (second == rest.npos ||
      (rest.substr(0, second) != kStdout && rest.substr(0, second) != kStderr)) {
    return parsed;
  }
  parsed.time = line.substr(0, first);
  parsed.stream = rest.substr(0, second);
  parsed.partial = rest.size() > second + 1 && rest[second + 1] == 'P';
  return parsed;
}

bool IsLine(std::string_view line) {
  constexpr std::string_view kForm = "0000-00-00T00:00:00.000000000";
  const Line parsed = ParseLine(line);
  if (parsed.time.size() < kForm.size()) return false;
  return std::equal(kForm.begin(), kForm.end(), parsed.time.begin(), [](char form, char c) {
    return form == '0' ? c >= '0' && c <= '9' : c == form;
  });
}

std::string_view Note(const timespec& time, std::string_view what, char (&text)[kMaxNote]) {
  tm utc{};
  gmtime_r(&time.tv_sec, &utc);
  char seconds[32];
  if (std::strftime(seconds, sizeof seconds, "%Y-%m-%dT%H:%M:%S", &utc) == 0) seconds[0] = '\0';
  const int size = std::snprintf(
      text, sizeof text, "%s.%09ld+00:00 stdout F [crisp: %.*s]\n", seconds, time.tv_nsec,
      static_cast<int>(std::min<std::size_t>(what.size(), 80)), what.data());
  return {text, static_cast<std::size_t>(size)};
}

std::string_view TakeLine(std::string_view& lines) {
  const auto end = lines.find('\n');
  const std::string_view line = lines.substr(0, end == lines.npos ? end : end + 1);
  lines.remove_prefix(line.size());
  return line;
}

void Gap::Add(const Line& parsed, std::string_view line) {
  count_.Add(parsed, line);
  // One that cannot be read does not have a time; that of the one before is better than none.
  if (parsed.time.empty() || parsed.time.size() + parsed.stream.size() + 1 > sizeof head_) return;
  char* end = std::copy(parsed.time.begin(), parsed.time.end(), head_);
  *end++ = ' ';
  end = std::copy(parsed.stream.begin(), parsed.stream.end(), end);
  head_size_ = static_cast<std::size_t>(end - head_);
}

std::string_view Gap::Close(std::string_view why) {
  const int size = std::snprintf(
      text_, sizeof text_, "%.*s F [crisp: %llu lines (%llu bytes) %.*s]\n",
      static_cast<int>(head_size_), head_, static_cast<unsigned long long>(count_.lines),
      static_cast<unsigned long long>(count_.bytes),
      static_cast<int>(std::min<std::size_t>(why.size(), 80)), why.data());
  count_ = {};
  return {text_, static_cast<std::size_t>(size)};
}

}  // namespace crisp::rund::logger
