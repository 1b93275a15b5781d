#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace google::protobuf {
class Message;
}

namespace crisp::ctl {

/// Columns as wide as their widest cell, two blanks between, no blanks at the end of a line.
class Table {
 public:
  explicit Table(std::vector<std::string> head) { rows_.push_back(std::move(head)); }
  void Add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  std::string Render() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

/// "5s", "12m", "3h", "4d": one unit, as people say it.
std::string Age(std::chrono::nanoseconds age);
/// Since a Unix time in nanoseconds; "-" for 0.
std::string Since(std::int64_t unix_nanoseconds);
/// "2026-11-26 14:05:07", local time, of a Unix time in nanoseconds; "-" for 0.
std::string TimeOfDay(std::int64_t unix_nanoseconds);
/// "1.4 MB": decimal, as registries count.
std::string Size(std::uint64_t bytes);
/// "CONTAINER_RUNNING" → "running".
std::string Lower(std::string_view name, std::string_view prefix);
/// The first 13 characters, as crictl shows ids; "sha256:" is taken off.
std::string ShortId(std::string_view id);
/// A message as JSON with the names that crictl prints.
std::string ToJson(const google::protobuf::Message& message);

// None of these minds a stream that is closed.
/// To stdout, with a line's end where it has none.
void Print(std::string_view text);
/// To stderr, as it is: how far something is.
void Remark(std::string_view text);
/// To stderr as "crispctl: ...".
void Complain(std::string_view text);

}  // namespace crisp::ctl
