#include "services/crispctl/debug/bundle.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <chrono>

#include "libs/archive/gzip.h"
#include "libs/archive/tar_writer.h"
#include "libs/base/try.h"
#include "libs/os/files.h"
#include "libs/os/unique_fd.h"
#include "services/crispctl/debug/redact.h"

namespace crisp::ctl::debug {
namespace {

constexpr std::size_t kMaxPart = std::size_t{8} << 20U;

Status AppendFile(std::string& tar, const std::string& path, std::string_view text) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  archive::TarEntry entry{.path = path, .mode = 0600, .size = text.size()};
  entry.mtime_seconds = std::chrono::duration_cast<std::chrono::seconds>(now).count();
  tar += CRISP_TRY(archive::TarHeader(entry));
  tar += text;
  tar += archive::TarPadding(text.size());
  return Status::Ok();
}

}  // namespace

void Bundle::Add(const std::string& name, std::string text) {
  std::string note;
  if (text.size() > kMaxPart) {
    text.erase(0, text.size() - kMaxPart);
    note = ", cut";
  }
  index_ += fmt::format("{}: {} bytes{}\n", name, text.size(), note);
  parts_.push_back({name, std::move(text)});
}

void Bundle::Add(const std::string& name, Result<std::string> text) {
  if (text.ok()) {
    Add(name, *std::move(text));
  } else {
    Failed(name, text.status());
  }
}

void Bundle::Failed(const std::string& name, const Status& why) {
  index_ += fmt::format("{}: FAILED: {}\n", name, RedactText(why.message()));
  ++failures_;
}

Status Bundle::Write(const std::string& path, const std::string& directory) const {
  std::string tar;
  CRISP_TRY(AppendFile(tar, directory + "/index.txt", index_));
  for (const Part& part : parts_) {
    CRISP_TRY(AppendFile(tar, fmt::format("{}/{}", directory, part.name), part.text));
  }
  tar += archive::TarEnd();
  const os::UniqueFd file =
      CRISP_TRY(os::Open(path, O_CREAT | O_EXCL | O_WRONLY, 0600).While("write {}", path));
  Status written = os::WriteAll(file.get(), CRISP_TRY(archive::Gzip(tar)), path);
  // Half a file is of no use to anybody.
  if (!written.ok()) (void)os::RemoveFile(path);
  return written;
}

}  // namespace crisp::ctl::debug
