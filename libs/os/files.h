#pragma once

#include <sys/types.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/result.h"
#include "libs/base/units.h"
#include "libs/os/unique_fd.h"

// Whole files of our own directories and of /proc and /sys. Paths from images, pods or plugins go
// through os::Beneath. Every descriptor is O_CLOEXEC. Errors carry the errno and name the path.
namespace crisp::os {

/// open(2) with O_CLOEXEC.
Result<UniqueFd> Open(const std::string& path, int flags, mode_t mode = 0);

/// The whole file. kResourceExhausted when it holds more than `limit`. Works for /proc (size 0).
Result<std::string> ReadFile(const std::string& path, Bytes limit = MiB(4));
/// What is still to be read from `fd`, with the same limit; `name` is for errors.
Result<std::string> ReadAll(int fd, std::string_view name, Bytes limit = MiB(4));
/// Fills `into` from that place of a file. kDataLoss where it ends before.
Status ReadAt(int fd, std::uint64_t offset, std::span<char> into, std::string_view name);
/// Writes all of `text`, over short writes and EINTR.
Status WriteAll(int fd, std::string_view text, std::string_view name);

/// Creates or truncates, then writes. Not atomic: see atomic_file.h.
Status WriteFile(const std::string& path, std::string_view text, mode_t mode = 0644);
/// One write(2) to a file that must exist: for /proc, /sys and cgroups.
Status WriteExisting(const std::string& path, std::string_view text);
/// O_APPEND, created when absent.
Status AppendFile(const std::string& path, std::string_view text, mode_t mode = 0644);

/// mkdir -p. What exists already keeps its mode; the umask does not count for what is made.
Status MakeDirs(const std::string& path, mode_t mode = 0755);
/// rm -rf without following symlinks. Absent = Ok. Never crosses into another mount: a mount point
/// below (or at) `path` is kFailedPrecondition, with what is before it removed already.
Status RemoveTree(const std::string& path);
/// The same in pieces: takes away at most `entries`, the deepest first. True when nothing is left.
/// Others may be removing the same tree. Memory and descriptors do not grow with its depth.
Result<bool> RemoveSome(const std::string& path, std::uint64_t entries);
/// unlink. Absent = Ok.
Status RemoveFile(const std::string& path);
/// rmdir. Absent = Ok; kFailedPrecondition when not empty.
Status RemoveDir(const std::string& path);
/// rename(2), replacing what is there.
Status Rename(const std::string& from, const std::string& to);
/// symlink(2). kAlreadyExists when there is something at `path`.
Status Symlink(const std::string& target, const std::string& path);
Result<std::string> ReadLink(const std::string& path);

/// lstat says that something is there (a dangling symlink is something).
bool Exists(const std::string& path);
bool IsDirectory(const std::string& path);
/// Names in the directory, sorted, without "." and "..".
Result<std::vector<std::string>> ListDir(const std::string& path);

/// True when `path` is `directory` or lies below it, by letter: both absolute, without ".." and
/// trailing slashes.
bool IsAtOrBelow(std::string_view path, std::string_view directory);

/// syncfs(2) on the file system that holds `path`.
Status SyncFilesystem(const std::string& path);
/// The kernel's boot id: changes with each boot.
Result<std::string> BootId();

}  // namespace crisp::os
