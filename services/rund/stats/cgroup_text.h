#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

// The formats in which the kernel writes the files of a cgroup. Lines and words that are not
// understood are passed over: newer kernels add more.
namespace crisp::rund {

/// A whole file with one number; nothing when it is none ("max" is none).
std::optional<std::uint64_t> ParseNumber(std::string_view text);

/// "key value" lines.
void ForEachKey(std::string_view text,
                const std::function<void(std::string_view key, std::uint64_t value)>& fn);

/// One line of a *.pressure file.
struct PressureLine {
  double avg10 = 0;  // percent of the time
  double avg60 = 0;
  double avg300 = 0;
  std::uint64_t total_us = 0;
};
struct Pressure {
  PressureLine some;
  PressureLine full;
};
/// Nothing when the kernel has no pressure information, or has it switched off.
std::optional<Pressure> ParsePressure(std::string_view text);

/// What was read from and written to a block device.
struct DeviceIo {
  std::string device;  // "254:0"
  std::uint64_t read_bytes = 0;
  std::uint64_t write_bytes = 0;
  std::uint64_t reads = 0;
  std::uint64_t writes = 0;
};
/// io.stat of v2.
std::vector<DeviceIo> ParseIoStat(std::string_view text);
/// The blkio.throttle.io_service_bytes and .io_serviced of v1, into one.
std::vector<DeviceIo> ParseBlkio(std::string_view bytes, std::string_view operations);

/// Process ids, one a line.
std::vector<int> ParsePids(std::string_view text);

/// Calls `fn` for each line without its end.
void ForEachLine(std::string_view text, const std::function<void(std::string_view)>& fn);
/// The next word of a line, which is taken off it; empty at its end.
std::string_view NextWord(std::string_view& line);

}  // namespace crisp::rund
