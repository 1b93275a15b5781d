#include "services/rund/spec/spec_dirs.h"

#include <sys/stat.h>

#include <algorithm>

#include "libs/os/files.h"

namespace crisp::rund {
namespace {

std::int64_t Nanoseconds(const struct timespec& time) {
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

std::vector<SpecFile> ListSpecFiles(const std::vector<std::string>& directories,
                                    const std::vector<std::string_view>& suffixes) {
  std::vector<SpecFile> files;
  int priority = -1;
  for (const std::string& directory : directories) {
    ++priority;
    const auto names = os::ListDir(directory);
    if (!names.ok()) continue;
    for (const std::string& name : *names) {
      const bool wanted = !name.starts_with('.') && std::any_of(suffixes.begin(), suffixes.end(),
                                                                [&name](std::string_view suffix) {
                                                                  return name.ends_with(suffix);
                                                                });
      if (!wanted) continue;
      std::string path = directory + "/" + name;
      struct stat info {};
      if (stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) continue;
      files.push_back({std::move(path), name, priority, info.st_ino, info.st_size,
                       Nanoseconds(info.st_mtim), Nanoseconds(info.st_ctim)});
    }
  }
  return files;
}

void DropNulls(nlohmann::json& value) {
  if (value.is_object()) {
    for (auto member = value.begin(); member != value.end();) {
      member = member->is_null() ? value.erase(member) : std::next(member);
    }
  }
  if (!value.is_structured()) return;
  for (nlohmann::json& below : value) DropNulls(below);
}

}  // namespace crisp::rund
