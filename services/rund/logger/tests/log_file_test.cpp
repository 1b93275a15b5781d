#include "services/rund/logger/log_file.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <string>

#include "libs/os/files.h"
#include "libs/testing/test_root.h"

using namespace crisp;                // NOLINT
using namespace crisp::rund::logger;  // NOLINT

namespace {

/// Files of this process grow no larger: as on a full disk, but for the errno.
class SizeLimit {
 public:
  explicit SizeLimit(rlim_t bytes) {
    getrlimit(RLIMIT_FSIZE, &before_);
    rlimit limit = before_;
    limit.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &limit);
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
  }
  SizeLimit(const SizeLimit&) = delete;
  SizeLimit& operator=(const SizeLimit&) = delete;
  ~SizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int);
};

std::string Said(const std::string& text) {
  return "2026-01-02T03:04:05.000000006+00:00 stderr F " + text + "\n";
}

struct Fixture {
  testing::TestRoot root;
  os::UniqueFd directory = os::Open(root.path(), O_PATH | O_DIRECTORY).value();
  std::string Read(const std::string& name = "0.log") const {
    return os::ReadFile(root / name).value_or("(none)");
  }
};

}  // namespace

TEST_CASE("A log goes on in a new file once the old one was moved away, and only then") {
  Fixture f;
  LogFile log(f.directory.get(), "0.log", 0);
  REQUIRE(log.Reopen() == 0);
  struct stat file {};
  REQUIRE(stat((f.root / "0.log").c_str(), &file) == 0);
  CHECK((file.st_mode & 0777U) == 0640U);
  log.Write(Said("one"));
  REQUIRE(log.Reopen() == 0);
  log.Write(Said("two"));
  REQUIRE(os::Rename(f.root / "0.log", f.root / "old").ok());
  log.Write(Said("three"));
  REQUIRE(log.Reopen() == 0);
  CHECK(f.Read().empty());
  log.Write(Said("four"));
  CHECK(f.Read("old") == Said("one") + Said("two") + Said("three"));
  CHECK(f.Read() == Said("four"));
}

TEST_CASE("A log whose writer was ended within a line goes on in the next one") {
  Fixture f;
  const std::string before =
      GENERATE(as<std::string>(), "", Said("one"), Said("one") + "2026-01-0");
  REQUIRE(os::WriteFile(f.root / "0.log", before).ok());
  LogFile log(f.directory.get(), "0.log", 0);
  REQUIRE(log.Reopen() == 0);
  log.EndTornLine();
  log.Write(Said("two"));
  CHECK(f.Read() == before + (before.ends_with("2026-01-0") ? "\n" : "") + Said("two"));
}

TEST_CASE("A log that cannot be reopened goes on in the old file") {
  Fixture f;
  LogFile log(f.directory.get(), "0.log", 0);
  REQUIRE(log.Reopen() == 0);
  REQUIRE(os::Rename(f.root / "0.log", f.root / "old").ok());
  REQUIRE(os::Symlink("/dev/null", f.root / "0.log").ok());
  CHECK(log.Reopen() == ELOOP);
  log.Write(Said("still"));
  CHECK(f.Read("old") == Said("still"));
}

TEST_CASE("A log that is too large begins anew, and what was open stays as it was") {
  Fixture f;
  LogFile log(f.directory.get(), "0.log", 190);
  REQUIRE(log.Reopen() == 0);
  const os::UniqueFd reader = os::Open(f.root / "0.log", O_RDONLY).value();
  for (const char* text : {"one", "two", "three"}) log.Write(Said(text));
  CHECK(f.Read() == Said("one") + Said("two") + Said("three"));
  log.Write(Said("four"));
  CHECK(f.Read() == Said("four"));
  CHECK(os::ReadAll(reader.get(), "reader").value() == Said("one") + Said("two") + Said("three"));
  CHECK_FALSE(os::Exists(f.root / "0.log.tmp"));
}

TEST_CASE("What cannot be written leaves whole lines, and one that says what is missing") {
  Fixture f;
  LogFile log(f.directory.get(), "0.log", 0);
  REQUIRE(log.Reopen() == 0);
  {
    const SizeLimit limit(2 * Said("one").size() + 10);
    log.Write(Said("one") + Said("two") + Said("six"));
    log.Write(Said("ten"));
    log.End();
    CHECK(f.Read() == Said("one") + Said("two"));
    CHECK(log.lost().lines == 2);
  }
  log.Write(Said("more"));
  log.Write(Said("last"));
  log.End();
  const std::string gap = Said("[crisp: 2 lines (98 bytes) lost: File too large]");
  CHECK(f.Read() == Said("one") + Said("two") + gap + Said("more") + Said("last"));
  CHECK(log.lost().bytes == 98);
}
