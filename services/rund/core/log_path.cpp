#include "services/rund/core/log_path.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <string_view>

#include "libs/base/try.h"
#include "libs/os/beneath.h"
#include "libs/os/files.h"

namespace crisp::rund {
namespace {

bool HasDotDot(std::string_view path) {
  while (!path.empty()) {
    const auto slash = path.find('/');
    if (path.substr(0, slash) == "..") return true;
    if (slash == path.npos) return false;
    path.remove_prefix(slash + 1);
  }
  return false;
}

}  // namespace

Result<std::string> LogPathOf(const std::string& log_directory, const std::string& log_path) {
  if (log_directory.empty() || log_path.empty()) return std::string();
  using namespace std::string_view_literals;
  if (log_directory.front() != '/') {
    return InvalidArgument("log_directory: '{}' is not an absolute path", log_directory);
  }
  if (log_path.front() == '/') {
    return InvalidArgument("log_path: '{}' must be relative to log_directory", log_path);
  }
  for (const std::string& path : {log_directory, log_path}) {
    if (HasDotDot(path)) return InvalidArgument("log_path: '..' is not allowed in '{}'", path);
    if (path.find_first_of("\0\n"sv) != std::string::npos) {
      return InvalidArgument("log_path: a line break or NUL is not allowed");
    }
  }
  // conmon's option ends there.
  for (const std::string& path : {log_directory, log_path}) {
    if (path.find(':') != std::string::npos) {
      return InvalidArgument("log_path: ':' is not allowed in '{}'", path);
    }
  }
  if (log_path.back() == '/') return InvalidArgument("log_path: '{}' names no file", log_path);
  return log_directory + "/" + log_path;
}

Result<os::Beneath> PrepareLog(const std::string& log_directory, const std::string& log_path) {
  CRISP_TRY(os::MakeDirs(log_directory).While("make log_directory"));
  os::Beneath directory = CRISP_TRY(os::Beneath::Open(log_directory));
  const auto slash = log_path.rfind('/');
  if (slash != std::string::npos) {
    directory = CRISP_TRY(directory.MakeDirs(log_path.substr(0, slash)).While("log_path"));
  }
  // conmon would make it 0600; the log's readers expect the group to be able to read.
  const os::UniqueFd log = CRISP_TRY(
      directory
          .OpenFile(log_path.substr(slash + 1), O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, 0640)
          .While("log_path"));
  struct stat facts {};
  if (fstat(log.get(), &facts) != 0) return Status::FromErrno(errno, "stat the log");
  if (!S_ISREG(facts.st_mode)) return InvalidArgument("log_path: '{}' is no file", log_path);
  if (fchmod(log.get(), 0640) != 0) return Status::FromErrno(errno, "chmod the log");
  return directory;
}

}  // namespace crisp::rund
