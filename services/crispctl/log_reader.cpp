#include "services/crispctl/log_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "libs/base/try.h"
#include "libs/os/files.h"

namespace crisp::ctl {
namespace {

std::string_view TakeWord(std::string_view& text) {
  const std::size_t blank = text.find(' ');
  if (blank == std::string_view::npos) return std::exchange(text, {});
  const std::string_view word = text.substr(0, blank);
  text.remove_prefix(blank + 1);
  return word;
}

bool SameFile(int fd, const std::string& path) {
  struct stat open {};
  struct stat named {};
  return fstat(fd, &open) == 0 && stat(path.c_str(), &named) == 0 && open.st_ino == named.st_ino &&
         open.st_dev == named.st_dev;
}

}  // namespace

bool ParseLogLine(std::string_view line, LogLine& out) {
  out.time = TakeWord(line);
  const std::string_view stream = TakeWord(line);
  const std::string_view tag = TakeWord(line);
  if (stream != "stdout" && stream != "stderr") return false;
  if (!tag.starts_with('F') && !tag.starts_with('P')) return false;
  out.from_stderr = stream == "stderr";
  out.partial = tag.starts_with('P');
  out.text = line;
  return true;
}

Status LogReader::Drain(const std::function<void(const LogLine&)>& line) {
  std::array<char, 64 << 10> buffer{};
  while (true) {
    const ssize_t got = read(fd_.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Status::Errno(errno, "read {}", path_);
    if (got == 0) return Status::Ok();
    rest_.append(buffer.data(), static_cast<std::size_t>(got));
    std::size_t start = 0;
    for (std::size_t end = 0; (end = rest_.find('\n', start)) != std::string::npos;
         start = end + 1) {
      LogLine parsed;
      if (ParseLogLine(std::string_view(rest_).substr(start, end - start), parsed)) line(parsed);
    }
    rest_.erase(0, start);
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
  rest_.clear();
  fd_ = std::move(fresh);
  return Drain(line);
}

}  // namespace crisp::ctl
