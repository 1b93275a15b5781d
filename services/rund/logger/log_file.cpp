#include "services/rund/logger/log_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstring>

namespace crisp::rund::logger {
namespace {

/// Its readers expect the group to be able to read it.
constexpr mode_t kMode = S_IRUSR | S_IWUSR | S_IRGRP;

bool SameFile(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

}  // namespace

int LogFile::OpenFile(const char* name, int flags) const {
  const int fd = openat(directory_, name,
                        O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC | flags, kMode);
  // Whatever the umask says.
  if (fd >= 0) fchmod(fd, kMode);
  return fd;
}

int LogFile::Reopen() {
  struct stat there {};
  struct stat open_file {};
  if (fd_ >= 0 && fstatat(directory_, name_, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
      fstat(fd_, &open_file) == 0 && SameFile(there, open_file)) {
    return 0;
  }
  const int fd = OpenFile(name_, 0);
  if (fd < 0) return errno;
  if (fd_ >= 0) close(fd_);
  fd_ = fd;
  return 0;
}

void LogFile::EndTornLine() {
  // The one that is open can only be written.
  const int fd = openat(directory_, name_, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return;
  char last = '\n';
  const bool torn = lseek(fd, -1, SEEK_END) >= 0 && read(fd, &last, 1) == 1 && last != '\n';
  close(fd);
  if (torn) Append("\n");
}

void LogFile::StartAnew() {
  // As after a rotation: whoever follows the log by its name goes on in the new file.
  char fresh[NAME_MAX + 1];
  const int size = std::snprintf(fresh, sizeof fresh, "%s.tmp", name_);
  if (size > 0 && size < static_cast<int>(sizeof fresh)) {
    const int fd = OpenFile(fresh, O_TRUNC);
    if (fd >= 0 && renameat(directory_, fresh, directory_, name_) == 0) {
      close(fd_);
      fd_ = fd;
      return;
    }
    if (fd >= 0) {
      close(fd);
      unlinkat(directory_, fresh, 0);
    }
  }
  // On a full disk for instance.
  if (ftruncate(fd_, 0) != 0) error_ = errno;
}

void LogFile::Write(std::string_view lines) {
  struct stat now {};
  if (max_size_ > 0 && fstat(fd_, &now) == 0 && now.st_size > 0 &&
      static_cast<std::uint64_t>(now.st_size) + lines.size() > max_size_) {
    StartAnew();
  }
  std::size_t written = 0;
  if (!gap_.empty()) End();
  if (gap_.empty()) written = Append(lines);
  for (std::string_view rest = lines.substr(written); !rest.empty();) {
    const std::string_view line = TakeLine(rest);
    const Line parsed = ParseLine(line);
    gap_.Add(parsed, line);
    lost_.Add(parsed, line);
  }
}

void LogFile::End() {
  if (gap_.empty()) return;
  char why[80];
  const int size = std::snprintf(why, sizeof why, "lost: %s", std::strerror(error_));
  // It stays open when that line cannot be written either.
  Gap before = gap_;
  const std::string_view line = gap_.Close({why, static_cast<std::size_t>(size)});
  if (Append(line) != line.size()) gap_ = before;
}

/// How much of it is in the file: all, or so many whole lines.
std::size_t LogFile::Append(std::string_view lines) {
  std::size_t done = 0;
  while (done < lines.size()) {
    const ssize_t n = write(fd_, lines.data() + done, lines.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    done += static_cast<std::size_t>(n);
  }
  if (done == lines.size()) return done;
  error_ = errno;
  // The beginning of a line must not stay: what is written next would be glued to it.
  const std::size_t whole = lines.substr(0, done).rfind('\n') + 1;
  struct stat now {};
  if (done > whole && fstat(fd_, &now) == 0) {
    const off_t size = now.st_size - static_cast<off_t>(done - whole);
    if (size >= 0 && ftruncate(fd_, size) != 0) return whole;
  }
  return whole;
}

}  // namespace crisp::rund::logger
