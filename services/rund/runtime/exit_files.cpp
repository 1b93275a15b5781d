#include "services/rund/runtime/exit_files.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <charconv>

#include "libs/base/try.h"
#include "libs/os/files.h"

namespace crisp::rund {

Result<std::optional<ExitRecord>> ReadExit(const Layout& layout, const ContainerId& id) {
  const std::string path = layout.ExitPath(id);
  auto file = os::Open(path, O_RDONLY);
  if (!file.ok()) {
    if (file.code() == Code::kNotFound) return std::optional<ExitRecord>();
    return std::move(file).status();
  }
  const std::string text = CRISP_TRY(os::ReadAll(file->get(), path, KiB(1)));
  ExitRecord record;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), record.code);
  if (error != std::errc()) return DataLoss("{} holds no exit code", path);
  struct stat facts {};
  if (fstat(file->get(), &facts) != 0) return Status::Errno(errno, "stat {}", path);
  record.finished_at = facts.st_mtim.tv_sec * 1'000'000'000LL + facts.st_mtim.tv_nsec;
  // Written before the exit file, by the same process.
  record.oom = os::Exists(layout.Bundle(id) + "/oom");
  return std::optional<ExitRecord>(record);
}

}  // namespace crisp::rund
