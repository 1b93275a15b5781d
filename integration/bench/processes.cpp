#include "integration/bench/processes.h"

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace crisp::bench {

namespace fs = std::filesystem;

std::string ReadText(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

std::vector<std::string> ProcessesOf(const std::vector<std::string>& names) {
  std::vector<std::string> found;
  std::error_code error;
  const fs::path ours = fs::read_symlink("/proc/self/ns/mnt", error);
  for (const auto& entry : fs::directory_iterator("/proc", error)) {
    const std::string pid = entry.path().filename().string();
    if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
    std::string name = ReadText(entry.path() / "comm");
    if (!name.empty()) name.pop_back();
    const bool wanted = std::any_of(names.begin(), names.end(), [&](const std::string& one) {
      return name == one.substr(0, 15);  // the kernel cuts names
    });
    if (wanted && fs::read_symlink(entry.path() / "ns/mnt", error) == ours)
      found.push_back(entry.path());
  }
  return found;
}

double SumMb(const std::vector<std::string>& processes, const std::string& file,
             std::string_view field) {
  double mb = 0;
  for (const std::string& process : processes) {
    std::istringstream text(ReadText(process + "/" + file));
    for (std::string line; std::getline(text, line);) {
      if (line.starts_with(field)) mb += std::stod(line.substr(field.size())) / 1024;
    }
  }
  return mb;
}

std::size_t CountEntries(const std::vector<std::string>& processes, const std::string& directory) {
  std::size_t count = 0;
  for (const std::string& process : processes) {
    std::error_code error;
    fs::directory_iterator entry(fs::path(process) / directory, error);
    for (; !error && entry != fs::directory_iterator(); entry.increment(error)) ++count;
  }
  return count;
}

double CpuMs(const std::vector<std::string>& processes) {
  double ms = 0;
  for (const std::string& process : processes) {
    const int pid = std::atoi(fs::path(process).filename().c_str());
    clockid_t clock = 0;
    timespec used = {};
    if (::clock_getcpuclockid(pid, &clock) != 0) continue;
    if (::clock_gettime(clock, &used) != 0) continue;
    ms += static_cast<double>(used.tv_sec) * 1e3 + static_cast<double>(used.tv_nsec) / 1e6;
  }
  return ms;
}

}  // namespace crisp::bench
