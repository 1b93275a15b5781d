#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>
#include <vector>

#include "libs/os/unique_fd.h"
#include "libs/testing/test_root.h"
#include "services/crispctl/commands/commands.h"

namespace crisp::ctl {

/// Puts a descriptor into a file for as long as it lives.
class Captured {
 public:
  Captured(int fd, const std::string& path)
      : fd_(fd),
        old_(::fcntl(fd, F_DUPFD_CLOEXEC, 0)),
        file_(::open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600)) {
    ::dup2(file_.get(), fd_);
  }
  Captured(const Captured&) = delete;
  Captured& operator=(const Captured&) = delete;
  ~Captured() { ::dup2(old_.get(), fd_); }

 private:
  int fd_;
  os::UniqueFd old_;
  os::UniqueFd file_;
};

struct Ran {
  int code = 0;
  std::string out;
  std::string err;
};

/// What main does, in this process. crisp's other programs are those in `program_dir`.
inline Ran RunCommand(std::vector<std::string> words,
                      const std::string& program_dir = "/nonexistent") {
  const testing::TestRoot root;
  Shared shared;
  shared.program_dir = program_dir;
  CLI::App app("", "crispctl");
  AddCommandLine(app, shared);
  std::fflush(stdout);
  {
    const Captured out(STDOUT_FILENO, root / "out");
    const Captured err(STDERR_FILENO, root / "err");
    try {
      ParseCommandLine(app, shared, std::move(words));
    } catch (const CLI::ParseError&) {
      shared.exit_code = kWrongUse;
    }
    std::fflush(stdout);
    std::fflush(stderr);
  }
  return {shared.exit_code, root.Read("out"), root.Read("err")};
}

}  // namespace crisp::ctl
