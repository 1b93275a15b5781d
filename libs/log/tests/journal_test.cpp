#include "libs/log/journal.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <cstring>

#include "libs/os/unique_fd.h"
#include "libs/testing/test_root.h"

namespace crisp::log {
namespace {

/// A journald that only listens.
class FakeJournal {
 public:
  explicit FakeJournal(const std::string& path)
      : socket_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    REQUIRE(path.size() < sizeof address.sun_path);
    std::memcpy(address.sun_path, path.data(), path.size());
    REQUIRE(bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  }
  std::string Take() const {
    std::array<char, 4096> buffer{};
    const ssize_t got = recv(socket_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    return got < 0 ? "" : std::string(buffer.data(), static_cast<std::size_t>(got));
  }

 private:
  os::UniqueFd socket_;
};

}  // namespace

TEST_CASE("a line is in the journal with each field apart") {
  const Options options{.service = "rund", .instance = "1"};
  CHECK(JournalEntry(options, Level::kWarn, "container exited",
                     {{"container", "abc"}, {"needs restart", 3}}) ==
        "MESSAGE=container exited\nPRIORITY=4\nSYSLOG_IDENTIFIER=crisp-rund\nCRISP_INSTANCE=1\n"
        "CRISP_CONTAINER=abc\nCRISP_NEEDS_RESTART=3\n");
  CHECK(JournalEntry({}, Level::kFatal, "x", {{"error", "a\nb"}}) ==
        std::string("MESSAGE=x\nPRIORITY=2\nCRISP_ERROR\n\3\0\0\0\0\0\0\0a\nb\n", 45));
}

TEST_CASE("a line reaches the journal, and one that nobody takes is told so") {
  const testing::TestRoot root;
  const std::string path = root / "j.sock";
  CHECK_FALSE(SendToJournal(path, "MESSAGE=lost\n"));
  const FakeJournal journal(path);
  CHECK(SendToJournal(path, "MESSAGE=here\n"));
  CHECK(journal.Take() == "MESSAGE=here\n");
  CHECK_FALSE(SendToJournal(std::string(200, 'x'), "MESSAGE=long\n"));
}

TEST_CASE("stderr is the journal's only when it is the very stream that systemd names") {
  const testing::TestRoot root;
  const os::UniqueFd file(::open(root.Write("f", "").c_str(), O_RDONLY | O_CLOEXEC));
  struct stat info {};
  REQUIRE(fstat(file.get(), &info) == 0);
  const std::string own = fmt::format("{}:{}", info.st_dev, info.st_ino);
  CHECK(IsJournalStream(file.get(), own.c_str()));
  CHECK_FALSE(IsJournalStream(file.get(), "1:2"));
  CHECK_FALSE(IsJournalStream(file.get(), nullptr));
  CHECK_FALSE(IsJournalStream(-1, own.c_str()));
}

}  // namespace crisp::log
