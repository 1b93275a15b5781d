#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <future>
#include <string>

#include "libs/base/guarded.h"
#include "libs/os/files.h"
#include "libs/os/pipe.h"
#include "libs/testing/test_root.h"
#include "services/rund/streaming/session.h"
#include "services/rund/streaming/tests/driven_loop.h"
#include "services/rund/streaming/tests/spdy_peer.h"

namespace crisp::rund::streaming {
namespace {

using std::chrono::seconds;
constexpr std::size_t kMegabyte = std::size_t{1} << 20U;
enum : std::uint32_t { kError = 1, kIn = 3, kOut = 5, kErr = 7, kSize = 7 };

runtime::v1::ExecRequest ExecOf(bool tty = false) {
  runtime::v1::ExecRequest request;
  request.set_container_id("c");
  request.add_cmd("x");
  request.set_stdin(true);
  request.set_stdout(true);
  request.set_stderr(!tty);
  request.set_tty(tty);
  return request;
}

/// An exec whose helper is a script of the test's in place of crisp-exec: $1 is the pid file, 3 the
/// report.
struct Rig : SpdyPeer {
  explicit Rig(const std::string& script, bool tty = false, seconds start_timeout = seconds(120)) {
    std::signal(SIGPIPE, SIG_IGN);  // as the daemons do
    helper = root.Script("helper", script);
    REQUIRE(mkfifo((root / "go").c_str(), 0600) == 0);
    env.execs.start_timeout = start_timeout;
    session = MakeSession(env, ExecOf(tty), {"v4.channel.k8s.io", false}, wire);
    session->Begin([this] { over = true; });
  }
  ~Rig() {
    wire->Close();
    // Scripts see the end of their input.
    CHECK(loop.Until([&] { return env.execs.leaving.empty(); }));
    session.reset();
    loop.Settle();
    pool.Stop();
    pool.WaitEnded(seconds(10));
  }
  Rig(const Rig&) = delete;
  Rig& operator=(const Rig&) = delete;

  void OpenAll(bool tty = false) const {
    Open(kError, {{"streamtype", "error"}});
    Open(kIn, {{"streamtype", "stdin"}});
    Open(kOut, {{"streamtype", "stdout"}});
    Open(kErr, {{"streamtype", tty ? "resize" : "stderr"}});
  }
  /// To a script that reads the fifo "go".
  bool Go() const {
    const os::UniqueFd fifo(open((root / "go").c_str(), O_WRONLY | O_CLOEXEC));
    return write(fifo.get(), "x\n", 2) == 2;
  }
  std::string Outcome() {
    CHECK(loop.Until([&] { return wire->finished; }));
    return See().data[kError];
  }

  testing::TestRoot root;
  DrivenLoop loop;
  work::Pool pool;
  /// Of the command, once it has been started.
  std::string Scratch() const { return *scratch.lock(); }

  std::string helper;
  Guarded<std::string> scratch;  // written by the pool
  Backend backend{.exec = [this](const CallContext&,
                                 const runtime::v1::ExecRequest& request) -> Result<ExecProcess> {
                    auto process = StartExec({.runtime = "/bin/false",
                                              .runtime_options = {},
                                              .container_id = "c",
                                              .process_json = "{}",
                                              .scratch_dir = root.path(),
                                              .helper = helper},
                                             {.in = request.stdin(),
                                              .out = request.stdout(),
                                              .err = request.stderr(),
                                              .tty = request.tty()});
                    if (process.ok()) *scratch.lock() = process->scratch.dir.path();
                    return process;
                  },
                  .attach = nullptr,
                  .sockets = nullptr};
  Env env{*loop, pool, backend};
  SessionPtr session;
  bool over = false;
};

/// As runtimes do: connected before there is anything to send.
class Console {
 public:
  explicit Console(const std::string& path) : fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    REQUIRE(connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  }
  void Send(int fd) const {
    char byte = 'x';
    iovec data{&byte, 1};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof fd)> control{};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
    REQUIRE(sendmsg(fd_.get(), &message, 0) == 1);
  }
  void Close() { fd_.reset(); }

 private:
  os::UniqueFd fd_;
};

/// A terminal whose reader waits for lines; without echo.
struct LineTerminal {
  LineTerminal() : master(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK)) {
    REQUIRE(grantpt(master.get()) == 0);
    REQUIRE(unlockpt(master.get()) == 0);
    slave.reset(open(ptsname(master.get()), O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
    termios settings{};
    REQUIRE(tcgetattr(slave.get(), &settings) == 0);
    settings.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    REQUIRE(tcsetattr(slave.get(), TCSANOW, &settings) == 0);
  }
  /// Empty lines, until it takes none.
  void Fill() const {
    pollfd room{master.get(), POLLOUT, 0};
    while (poll(&room, 1, 100) > 0) {
      while (write(master.get(), "\n", 1) == 1) {
      }
    }
  }
  os::UniqueFd master, slave;
};

constexpr const char* kStarted = "echo 4242 > $1; ";

}  // namespace

TEST_CASE("An exec: streams, the end of stdin, the exit code") {
  Rig rig(kStarted + std::string("cat; echo e >&2; echo 'exit 7' >&3"));
  rig.OpenAll();
  rig.Send(kIn, "hello");
  rig.Send(kIn, "", true);
  CHECK(rig.Outcome().find(R"("message":"7")") != std::string::npos);
  const auto seen = rig.See();
  CHECK(seen.data.at(kOut) == "hello");
  CHECK(seen.data.at(kErr) == "e\n");
  for (const std::uint32_t id : {kError, kOut, kErr}) CHECK(seen.fins.contains(id));
  rig.wire->Close();
  CHECK(rig.over);
}

TEST_CASE("Creates that hang keep no command from its start") {
  Rig rig(kStarted + std::string("cat; echo 'exit 0' >&3"));
  std::promise<void> gate;
  const std::shared_future<void> open = gate.get_future().share();
  for (std::size_t i = 0; i < work::PoolOptions{}.mutate.cap; ++i) {
    const auto cc = CallContext::Background(seconds(60));
    REQUIRE(rig.pool.Submit(work::Lane::kMutate, cc, [open] { open.wait(); }).ok());
  }
  rig.OpenAll();
  rig.Send(kIn, "hello", true);
  CHECK(rig.loop.Until([&] { return rig.See().data[kOut] == "hello"; }));
  gate.set_value();
}

TEST_CASE("Stdin beyond what the command reads pauses the client, and is not given up") {
  Rig rig(kStarted + std::string("read x; cat > /dev/null; echo 'exit 0' >&3"));
  rig.OpenAll();
  while (!rig.wire->paused) rig.Send(kIn, std::string(kMegabyte / 8, 'x'));
  SteadyTime now{};
  for (int i = 0; i < 10; ++i) rig.session->connection().Check(now += seconds(60));
  CHECK(rig.See().resets.empty());
  // More of a line than the shell reads at a time: it ends with it.
  CHECK(rig.loop.Until([&] { return !rig.wire->paused; }));
  rig.Send(kIn, "\n", true);
  CHECK(rig.Outcome().find("Success") != std::string::npos);
}

TEST_CASE("A client that goes on sending after the end does not keep it from ending") {
  Rig rig(kStarted + std::string("exec <&-; echo done; echo 'exit 0' >&3"));
  rig.wire->Come(spdy::Settings(spdy::kSettingInitialWindow, 2));
  rig.OpenAll();
  CHECK(rig.loop.Until([&] { return rig.See().data[kOut] == "do"; }));
  for (int i = 0; i < 10; ++i) rig.Send(kIn, std::string(kMegabyte, 'x'));
  CHECK(rig.loop.Until([&] {
    rig.wire->Come(spdy::WindowUpdate(kOut, 10) + spdy::WindowUpdate(kError, 1000));
    return rig.wire->finished;
  }));
  CHECK_FALSE(rig.wire->paused);
  CHECK(rig.See().data[kOut] == "done\n");
}

TEST_CASE("What the runtime says when it cannot start a command is the outcome") {
  Rig rig(
      "echo '{\"level\":\"error\",\"msg\":\"no \\\\\"such\\\\\"\\\\nthing\"}' > ${1%/*}/log;"
      "echo 'runtime 1' >&3");
  rig.OpenAll();
  const std::string outcome = rig.Outcome();
  CHECK(outcome.find(R"(no \"such\"\nthing)") != std::string::npos);
  CHECK(outcome.find("Failure") != std::string::npos);
}

TEST_CASE("What a runtime writes when it fails is the outcome, and none of the command's output") {
  Rig rig("echo 'no such thing' >&2; echo 'runtime 1' >&3");
  rig.OpenAll();
  CHECK(rig.Outcome().find(R"("message":"no such thing")") != std::string::npos);
  CHECK_FALSE(rig.See().data.contains(kErr));
}

TEST_CASE("What a command writes to stderr comes while it runs") {
  Rig rig(kStarted + std::string("echo 'started 4242' >&3; echo e >&2; cat; echo 'exit 3' >&3"));
  rig.OpenAll();
  CHECK(rig.loop.Until([&] { return rig.See().data[kErr] == "e\n"; }));
  rig.Send(kIn, "x", true);
  CHECK(rig.Outcome().find(R"("message":"3")") != std::string::npos);
  CHECK(rig.See().data[kOut] == "x");
}

TEST_CASE("A runtime that hangs is killed, and the client told") {
  Rig rig("sleep 1000 & sleep 1000", false, seconds(0));
  rig.OpenAll();
  CHECK(rig.Outcome().find("did not start the command") != std::string::npos);
  CHECK(rig.loop.Until([&] { return rig.env.execs.leaving.empty(); }));
  rig.session.reset();
  CHECK(rig.loop.Until([&] { return !os::Exists(rig.Scratch()); }));
}

TEST_CASE("A command that runs is nobody's to kill") {
  Rig rig(kStarted + std::string("echo up; cat; echo 'exit 0' >&3"), false, seconds(1));
  rig.OpenAll();
  CHECK(rig.loop.Until([&] { return rig.See().data[kOut] == "up\n"; }));
  rig.Send(kIn, "x", true);
  CHECK(rig.Outcome().find("Success") != std::string::npos);
}

TEST_CASE("A terminal that comes late holds up nobody; its size is the last one that came before") {
  Rig rig(kStarted + std::string("read x < ${0%/*}/go; echo 'exit 0' >&3"), true);
  rig.OpenAll(true);
  rig.Send(kSize, R"({"Width":1,"Height":2}{"Width":80,"Height":25}{"Wid)");
  CHECK(rig.loop.Until([&] { return !rig.Scratch().empty(); }));
  Console console(rig.Scratch() + "/c");
  // The loop goes on all the while.
  bool turned = false;
  (*rig.loop).Post([&turned] { turned = true; });
  rig.loop.Settle();
  CHECK(turned);
  const os::UniqueFd master(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  REQUIRE(grantpt(master.get()) == 0);
  REQUIRE(unlockpt(master.get()) == 0);
  os::UniqueFd slave(open(ptsname(master.get()), O_RDWR | O_NOCTTY | O_CLOEXEC));
  console.Send(master.get());
  winsize size{};
  CHECK(rig.loop.Until([&] {
    return ioctl(slave.get(), TIOCGWINSZ, &size) == 0 && size.ws_col == 80 && size.ws_row == 25;
  }));
  REQUIRE(write(slave.get(), "last words", 10) == 10);
  REQUIRE(rig.Go());
  CHECK(rig.Outcome().find("Success") != std::string::npos);
  rig.Send(kSize, R"({"Width":90,"Height":30})");  // for nobody any more
  CHECK(rig.See().data[kOut] == "last words");
}

TEST_CASE(
    "The end of stdin is one for who reads a terminal's lines, finished or not, full or not") {
  const std::string last = GENERATE("", "line\n", "no end", "ended\x04", "full");
  Rig rig(kStarted + std::string("read x < ${0%/*}/go; echo 'exit 0' >&3"), true);
  rig.OpenAll(true);
  CHECK(rig.loop.Until([&] { return !rig.Scratch().empty(); }));
  const Console console(rig.Scratch() + "/c");
  const LineTerminal terminal;
  if (last == "full") {
    terminal.Fill();
  } else {
    rig.Send(kIn, last);
  }
  console.Send(terminal.master.get());
  rig.Send(kIn, "", true);
  std::string seen;
  CHECK(rig.loop.Until([&] {
    std::array<char, 100> some{};
    ssize_t n = 0;
    while ((n = read(terminal.slave.get(), some.data(), some.size())) > 0) {
      seen.append(some.data(), static_cast<std::size_t>(n));
    }
    return n == 0;
  }));
  // What the client pressed is not read, but ends its line.
  if (last != "full") CHECK(seen == last.substr(0, last.find('\x04')));
  REQUIRE(rig.Go());
  CHECK(rig.Outcome().find("Success") != std::string::npos);
}

TEST_CASE("A runtime that ends without sending its terminal does not keep the session") {
  const bool connects = GENERATE(true, false);
  Rig rig(kStarted + std::string("read x < ${0%/*}/go; echo 'exit 3' >&3"), true);
  rig.OpenAll(true);
  CHECK(rig.loop.Until([&] { return !rig.Scratch().empty(); }));
  if (connects) {
    Console console(rig.Scratch() + "/c");
    rig.loop.Settle();
    console.Close();
  }
  REQUIRE(rig.Go());
  CHECK(rig.Outcome().find(R"("message":"3")") != std::string::npos);
}

TEST_CASE("A client that does not open all its streams is told so") {
  Rig rig("exit 0");
  rig.wire->Close();  // the one of the rig's; this one's time is short
  SpdyPeer late;
  rig.env.creation_timeout = std::chrono::milliseconds(1);
  const auto session = MakeSession(rig.env, ExecOf(), {"v4.channel.k8s.io", false}, late.wire);
  session->Begin([] {});
  late.Open(1, {{"streamtype", "error"}});
  CHECK(rig.loop.Until([&] { return late.wire->finished; }));
  CHECK(late.See().data[1].find("did not open its streams in time") != std::string::npos);
}

TEST_CASE("A great many sizes at once are read in one go") {
  Rig rig(kStarted + std::string("echo 'exit 0' >&3"), true);
  rig.OpenAll(true);
  std::string sizes;
  while (sizes.size() < 8 * kMegabyte) sizes += "}";
  rig.Send(kSize, sizes);
  CHECK(rig.See().windows[kSize] == sizes.size());
  CHECK(rig.Outcome().find("Success") != std::string::npos);
}

}  // namespace crisp::rund::streaming
