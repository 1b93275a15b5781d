#include "services/crispctl/log_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "libs/base/try.h"
#include "libs/os/files.h"

namespace crisp::ctl {
namespace {

bool SameFile(int fd, const std::string& path) {
  struct stat open {};
  struct stat named {};
  return fstat(fd, &open) == 0 && stat(path.c_str(), &named) == 0 && open.st_ino == named.st_ino &&
         open.st_dev == named.st_dev;
}

}  // namespace

Status LogReader::Drain(const std::function<void(const LogLine&)>& line) {
  std::array<char, 64 << 10> buffer{};
  while (true) {
    const ssize_t got = read(fd_.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Status::Errno(errno, "read {}", path_);
    if (got == 0) return Status::Ok();
    lines_.Feed({buffer.data(), static_cast<std::size_t>(got)}, line);
  }
}

Status LogReader::Read(const std::function<void(const LogLine&)>& line) {
  if (fd_.valid()) {
    CRISP_TRY(Drain(line));
    if (SameFile(fd_.get(), path_)) return Status::Ok();
  }
  auto opened = os::Open(path_, O_RDONLY);
  // Between a rename and the new file the old one is still written to.
  if (opened.code() == Code::kNotFound) return Status::Ok();
  os::UniqueFd fresh = CRISP_TRY(std::move(opened));
  if (fd_.valid()) CRISP_TRY(Drain(line));
  lines_.Clear();
  fd_ = std::move(fresh);
  return Drain(line);
}

}  // namespace crisp::ctl
