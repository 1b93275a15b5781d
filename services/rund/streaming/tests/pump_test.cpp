#include "services/rund/streaming/pump.h"

#include <fcntl.h>
#include <malloc.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <vector>

#include "libs/os/pipe.h"
#include "services/rund/streaming/tests/driven_loop.h"
#include "services/rund/streaming/tests/fake_stream.h"

namespace crisp::rund::streaming {
namespace {

constexpr std::size_t kBlock = std::size_t{64} << 10U;

struct Rig {
  Rig() { std::signal(SIGPIPE, SIG_IGN); }  // as the daemons do
  DescriptorPtr Take(os::UniqueFd fd) { return std::make_shared<Descriptor>(*loop, std::move(fd)); }
  std::shared_ptr<InPump> In(os::UniqueFd to) {
    auto pump = std::make_shared<InPump>(stream, Take(std::move(to)), [this] { ++ends; });
    pump->Begin(nullptr);
    return pump;
  }
  std::shared_ptr<OutPump> Out(os::UniqueFd from) {
    auto pump = std::make_shared<OutPump>(share, Take(std::move(from)), stream, [this] { ++ends; });
    stream->Discard([weak = std::weak_ptr(pump)] {
      if (const auto self = weak.lock()) self->OnRoom();
    });
    pump->Begin();
    return pump;
  }

  DrivenLoop loop;
  PumpShare share{*loop};
  std::shared_ptr<FakeStream> stream = std::make_shared<FakeStream>();
  int ends = 0;
};

/// What is there, without waiting.
std::string ReadSome(int fd) {
  std::string all(std::size_t{1} << 20U, '\0');
  const ssize_t n = read(fd, all.data(), all.size());
  all.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
  return all;
}

std::size_t HeapInUse() { return mallinfo2().uordblks + mallinfo2().hblkhd; }

struct Terminal {
  Terminal() : master(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC)) {
    grantpt(master.get());
    unlockpt(master.get());
    slave.reset(open(ptsname(master.get()), O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
    termios raw{};
    tcgetattr(slave.get(), &raw);
    cfmakeraw(&raw);
    tcsetattr(slave.get(), TCSANOW, &raw);
  }
  os::UniqueFd master, slave;
};

}  // namespace

TEST_CASE("A slow reader of stdin costs what is under way, not all that ever came") {
  Rig rig;
  os::Pipe pipe = os::MakePipe().value();
  REQUIRE(os::SetNonBlocking(pipe.read.get()).ok());
  const auto pump = rig.In(std::move(pipe.write));
  const std::string block(kBlock, 'x');
  const std::size_t before = HeapInUse();
  std::size_t most = 0;
  std::size_t read_bytes = 0;
  constexpr std::size_t kTotal = std::size_t{64} << 20U;
  while (read_bytes < kTotal) {
    // The client keeps to its window.
    while (rig.stream->came < kTotal && rig.stream->came - rig.stream->took < 2 * kBlock) {
      rig.stream->Come(block);
    }
    most = std::max(most, HeapInUse() - std::min(before, HeapInUse()));
    // Never so much that the pump gets rid of all it has.
    int there = 0;
    REQUIRE(
        rig.loop.Until([&] { return ioctl(pipe.read.get(), FIONREAD, &there) == 0 && there > 0; }));
    std::string some(kBlock / 2, '\0');
    const ssize_t n = read(pipe.read.get(), some.data(), some.size());
    if (n > 0) read_bytes += static_cast<std::size_t>(n);
  }
  CHECK(most < std::size_t{4} << 20U);
  CHECK(rig.stream->took == kTotal);
  rig.stream->ComeEnd();
  CHECK(rig.ends == 1);
  CHECK_FALSE(pump->broken());
}

TEST_CASE("The end of the client comes after all that it sent") {
  Rig rig;
  os::Pipe pipe = os::MakePipe().value();
  REQUIRE(os::SetNonBlocking(pipe.read.get()).ok());
  const auto pump = rig.In(std::move(pipe.write));
  rig.stream->Come(std::string(10 * kBlock, 'x'));
  rig.stream->ComeEnd();
  CHECK(rig.ends == 0);
  std::size_t read_bytes = 0;
  CHECK(rig.loop.Until([&] {
    read_bytes += ReadSome(pipe.read.get()).size();
    return rig.ends == 1;
  }));
  read_bytes += ReadSome(pipe.read.get()).size();
  CHECK(read_bytes == 10 * kBlock);
}

TEST_CASE(
    "What is appended comes behind all that the client sent, and is not counted as the client's") {
  const bool reader_goes = GENERATE(false, true);
  Rig rig;
  os::Pipe pipe = os::MakePipe().value();
  REQUIRE(os::SetNonBlocking(pipe.read.get()).ok());
  const auto pump = rig.In(std::move(pipe.write));
  rig.stream->Come(std::string(10 * kBlock, 'x'));
  rig.stream->ComeEnd();
  CHECK(pump->last_byte() == 'x');
  pump->Append("end");
  std::string read;
  if (reader_goes) {
    pipe.read.reset();
    CHECK(rig.loop.Until([&] { return pump->broken(); }));
    pump->Append("more");
  } else {
    CHECK(rig.loop.Until([&] {
      read += ReadSome(pipe.read.get());
      return read.ends_with("end");
    }));
    CHECK(read.size() == 10 * kBlock + 3);
    pump->Append("!");
    CHECK(ReadSome(pipe.read.get()) == "!");
  }
  CHECK(rig.stream->took == 10 * kBlock);
  CHECK(rig.ends == 1);
}

TEST_CASE("A reader that goes is an end, also when the client has ended before with input left") {
  const bool client_ends = GENERATE(true, false);
  Rig rig;
  os::Pipe pipe = os::MakePipe().value();
  const auto pump = rig.In(std::move(pipe.write));
  rig.stream->Come(std::string(10 * kBlock, 'x'));
  if (client_ends) rig.stream->ComeEnd();
  CHECK(rig.ends == 0);
  pipe.read.reset();
  CHECK(rig.loop.Until([&] { return rig.ends == 1; }));
  CHECK(pump->broken());
  CHECK(rig.stream->took == rig.stream->came);
  rig.stream->Come("more");
  CHECK(rig.stream->took == rig.stream->came);
  CHECK(rig.ends == 1);
}

TEST_CASE("Output is read as far as the client has room") {
  Rig rig;
  rig.stream->room = 10;
  os::Pipe pipe = os::MakePipe().value();
  const auto pump = rig.Out(std::move(pipe.read));
  REQUIRE(write(pipe.write.get(), "hello, world", 12) == 12);
  CHECK(rig.loop.Until([&] { return rig.stream->sent == "hello, wor"; }));
  pipe.write.reset();
  rig.loop.Settle();
  CHECK(rig.ends == 0);
  rig.stream->Open(100);
  CHECK(rig.loop.Until([&] { return rig.ends == 1; }));
  CHECK(rig.stream->sent == "hello, world");
  CHECK_FALSE(pump->broken());
}

TEST_CASE("Whoever keeps a pipe open does not keep its output from ending, and loses none of it") {
  Rig rig;
  rig.stream->room = 0;
  os::Pipe pipe = os::MakePipe().value();
  const auto pump = rig.Out(std::move(pipe.read));
  REQUIRE(write(pipe.write.get(), "last words", 10) == 10);
  pump->ExpectEnd(std::chrono::nanoseconds(1));
  rig.loop.Settle();
  CHECK(rig.ends == 0);
  rig.stream->Open(100);
  CHECK(rig.loop.Until([&] { return rig.ends == 1; }));
  CHECK(rig.stream->sent == "last words");
}

TEST_CASE("The rest of a terminal's output is all of it") {
  Rig rig;
  rig.stream->room = 0;
  Terminal terminal;
  const auto pump = rig.Out(std::move(terminal.master));
  // As much as the kernel takes: more than it counts for the other side.
  const std::string block(1000, 'x');
  std::size_t written = 0;
  for (ssize_t n = 1; n > 0;) {
    n = write(terminal.slave.get(), block.data(), block.size());
    if (n > 0) written += static_cast<std::size_t>(n);
  }
  REQUIRE(written > 4096);
  pump->ExpectEnd(std::chrono::nanoseconds(1));
  std::size_t opened = 0;
  CHECK(rig.loop.Until([&] {
    if (opened++ > 10) rig.stream->Open(SIZE_MAX / 4);
    return rig.ends == 1;
  }));
  CHECK(rig.stream->total == written);
}

TEST_CASE("A background process that writes to a terminal for ever does not keep it") {
  Rig rig;
  Terminal terminal;
  const auto pump = rig.Out(std::move(terminal.master));
  pump->ExpectEnd(std::chrono::nanoseconds(1));
  const std::string block(1000, 'x');
  CHECK(rig.loop.Until([&] {
    static_cast<void>(write(terminal.slave.get(), block.data(), block.size()) > 0);
    return rig.ends == 1;
  }));
}

TEST_CASE("A connection that was reset is no orderly end") {
  Rig rig;
  int pair[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
  os::UniqueFd far(pair[1]);
  const auto pump = rig.Out(os::UniqueFd(pair[0]));
  // Closed with bytes unread.
  REQUIRE(write(pair[0], "x", 1) == 1);
  far.reset();
  CHECK(rig.loop.Until([&] { return rig.ends == 1; }));
  CHECK(pump->broken());
}

}  // namespace crisp::rund::streaming
