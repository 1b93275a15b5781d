#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace crisp::bench {

/// Of a file; empty when it cannot be read.
std::string ReadText(const std::string& path);

/// /proc directories of the processes with these names in our own mount namespace.
std::vector<std::string> ProcessesOf(const std::vector<std::string>& names);

/// The sum, over these processes, of a field in kB ("VmHWM:") of one of their files, in MB.
double SumMb(const std::vector<std::string>& processes, const std::string& file,
             std::string_view field);

/// How many entries a directory of these processes has ("fd": descriptors, "task": threads).
std::size_t CountEntries(const std::vector<std::string>& processes, const std::string& directory);

/// User and system time of these processes, with that of threads that have ended, in ms. To the
/// nanosecond: /proc/PID/stat has it in ticks of 10 ms.
double CpuMs(const std::vector<std::string>& processes);

}  // namespace crisp::bench
