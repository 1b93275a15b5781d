#include "libs/rpc/listener.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <future>
#include <optional>
#include <vector>

#include "libs/os/files.h"
#include "libs/rpc/acceptor.h"
#include "libs/rpc/goodbye.h"
#include "libs/testing/test_root.h"

namespace crisp::rpc {
namespace {

os::UniqueFd Connected(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  os::UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const auto* generic = reinterpret_cast<const sockaddr*>(&address);
  if (connect(fd.get(), generic, sizeof address) != 0) fd.reset();
  return fd;
}

struct stat Stat(const std::string& path) {
  struct stat found {};
  REQUIRE(stat(path.c_str(), &found) == 0);
  return found;
}

}  // namespace

TEST_CASE("A listener's file has its mode, takes connections at once, and goes with it") {
  const testing::TestRoot root;
  {
    const auto listener = Listener::Bind(root / "s", 0620);
    REQUIRE(listener.ok());
    CHECK((Stat(root / "s").st_mode & 07777U) == 0620U);
    CHECK(Connected(root / "s"));
    CHECK(Listener::Bind(root / "s", 0600).code() == Code::kFailedPrecondition);
    CHECK(os::ListDir(root.path())->size() == 1);
  }
  CHECK_FALSE(os::Exists(root / "s"));
}

TEST_CASE("A listener takes the place of a dead one, and leaves alone what came after it") {
  const testing::TestRoot root;
  std::optional<Listener> first(*Listener::Bind(root / "s", 0600));
  // Dead: the file is there, nobody listens.
  REQUIRE(link((root / "s").c_str(), (root / "kept").c_str()) == 0);
  first.reset();
  REQUIRE(rename((root / "kept").c_str(), (root / "s").c_str()) == 0);
  CHECK_FALSE(Connected(root / "s"));
  root.Write("s~", "of one that died while it made its socket");

  std::optional<Listener> second(*Listener::Bind(root / "s", 0600));
  CHECK(Connected(root / "s"));
  REQUIRE(unlink((root / "s").c_str()) == 0);
  const auto third = Listener::Bind(root / "s", 0600);
  REQUIRE(third.ok());
  second.reset();
  CHECK(Connected(root / "s"));
}

TEST_CASE("A path that is no socket's is refused, and stays as it is") {
  const testing::TestRoot root;
  CHECK(Listener::Bind(root.Write("file", "text"), 0600).code() == Code::kFailedPrecondition);
  CHECK(root.Read("file") == "text");
  CHECK(Listener::Bind("", 0600).code() == Code::kInvalidArgument);
  const std::string longest = root / std::string(kMaxSocketPath - root.path().size() - 1, 'x');
  CHECK(Listener::Bind(longest + "x", 0600).code() == Code::kInvalidArgument);
  CHECK(Listener::Bind(longest, 0600).ok());
  CHECK(Listener::Bind(root / "none/s", 0600).code() == Code::kNotFound);
}

TEST_CASE("Only a unix socket that listens is inherited") {
  const testing::TestRoot root;
  const auto listener = Listener::Bind(root / "s", 0600);
  {
    const auto inherited = Listener::Inherit(os::UniqueFd(dup(listener->fd())));
    REQUIRE(inherited.ok());
  }
  CHECK(Connected(root / "s"));  // it was not the heir's to take away
  CHECK(Listener::Inherit(os::UniqueFd(socket(AF_UNIX, SOCK_STREAM, 0))).code() ==
        Code::kInvalidArgument);
  CHECK(Listener::Inherit(os::UniqueFd(socket(AF_INET, SOCK_STREAM, 0))).code() ==
        Code::kInvalidArgument);
  CHECK_FALSE(Listener::Inherit(os::UniqueFd(dup(STDERR_FILENO))).ok());
}

TEST_CASE("Who comes between two acceptors of an inherited socket waits for the second") {
  const testing::TestRoot root;
  const auto holder = Listener::Bind(root / "s", 0600);
  const auto serve = [&holder](std::promise<int>& taken) {
    std::vector<Listener> listeners;
    listeners.push_back(*Listener::Inherit(os::UniqueFd(dup(holder->fd()))));
    return *Acceptor::Start(std::move(listeners),
                            [&taken](const os::UniqueFd& fd) { taken.set_value(fd.get()); });
  };
  std::promise<int> one;
  auto acceptor = serve(one);
  const os::UniqueFd first = Connected(root / "s");
  CHECK(one.get_future().get() >= 0);
  acceptor.reset();
  const os::UniqueFd second = Connected(root / "s");
  CHECK(second);
  std::promise<int> two;
  acceptor = serve(two);
  CHECK(two.get_future().get() >= 0);
}

TEST_CASE("A client is told to go in HTTP/2's words; who does not read is not waited for") {
  std::array<int, 2> ends{};
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0);
  std::vector<os::UniqueFd> connections;
  connections.emplace_back(ends[0]);
  os::UniqueFd client(ends[1]);
  auto heard = std::async(std::launch::async, [&client] {
    std::array<unsigned char, 64> bytes{};
    const ssize_t got = read(client.get(), bytes.data(), bytes.size());
    client.reset();
    return std::vector<unsigned char>(bytes.begin(), bytes.begin() + std::max<ssize_t>(got, 0));
  });
  SayGoodbye(connections, std::chrono::seconds(60));
  CHECK(HungUp(connections.front()));
  CHECK(heard.get() ==
        std::vector<unsigned char>{0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0});

  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0);
  connections.emplace_back(ends[0]);
  const os::UniqueFd deaf(ends[1]);
  SayGoodbye(connections, std::chrono::milliseconds(5));
  CHECK_FALSE(HungUp(connections.back()));
}

}  // namespace crisp::rpc
