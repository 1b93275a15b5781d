#include "services/netd/tests/traffic.h"

#include <arpa/inet.h>
#include <endian.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cerrno>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "libs/os/namespaces.h"

namespace crisp::netd {
namespace {

struct Address {
  sockaddr_storage storage = {};
  socklen_t size = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

Address AddressOf(const std::string& text, int port) {
  Address address;
  auto* four = reinterpret_cast<sockaddr_in*>(&address.storage);
  auto* six = reinterpret_cast<sockaddr_in6*>(&address.storage);
  if (::inet_pton(AF_INET, text.c_str(), &four->sin_addr) == 1) {
    four->sin_family = AF_INET;
    four->sin_port = htons(static_cast<std::uint16_t>(port));
    address.size = sizeof(*four);
  } else if (::inet_pton(AF_INET6, text.c_str(), &six->sin6_addr) == 1) {
    six->sin6_family = AF_INET6;
    six->sin6_port = htons(static_cast<std::uint16_t>(port));
    address.size = sizeof(*six);
  }
  return address;
}

Status In(const std::string& netns, const std::function<Status()>& fn) {
  return netns.empty() ? fn() : os::RunInNamespace(netns, fn);
}

bool WaitFor(int fd, short events, int milliseconds) {
  pollfd poll = {fd, events, 0};
  return ::poll(&poll, 1, milliseconds) == 1;
}

constexpr int kPatience = 2000;  // ms
constexpr int kRetry = 300;      // ms; the first packets wait for neighbours

bool ExchangeTcp(const Address& address, int listener) {
  const os::UniqueFd client(
      ::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  static_cast<void>(::connect(client.get(), address.get(), address.size) == 0);
  if (!WaitFor(listener, POLLIN, kPatience)) return false;
  const os::UniqueFd server(::accept(listener, nullptr, nullptr));
  char byte = 'x';
  return WaitFor(client.get(), POLLOUT, kPatience) && ::write(client.get(), &byte, 1) == 1 &&
         WaitFor(server.get(), POLLIN, kPatience) && ::read(server.get(), &byte, 1) == 1 &&
         ::write(server.get(), &byte, 1) == 1 && WaitFor(client.get(), POLLIN, kPatience) &&
         ::read(client.get(), &byte, 1) == 1;
}

/// `client` is connected. What a refusal has left in its queue is not looked at.
bool ExchangeUdp(int client, int listener) {
  char byte = 'x';
  for (int waited = 0; waited < kPatience; waited += kRetry) {
    if (::send(client, &byte, 1, 0) != 1) continue;
    if (!WaitFor(listener, POLLIN, kRetry)) continue;
    Address from;
    from.size = sizeof(from.storage);
    auto* peer = reinterpret_cast<sockaddr*>(&from.storage);
    if (::recvfrom(listener, &byte, 1, 0, peer, &from.size) != 1) return false;
    if (::sendto(listener, &byte, 1, 0, peer, from.size) != 1) return false;
    return WaitFor(client, POLLIN, kPatience) && ::recv(client, &byte, 1, 0) == 1;
  }
  return false;
}

os::UniqueFd ConnectUdp(const Address& address) {
  os::UniqueFd client(::socket(address.storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (::connect(client.get(), address.get(), address.size) != 0) client.reset();
  return client;
}

/// SCTP's checksum, CRC-32C.
std::uint32_t Crc32c(const unsigned char* data, std::size_t size) {
  constexpr std::uint32_t kPolynomial = 0x82f63b78;
  constexpr int kBits = 8;
  std::uint32_t crc = ~0U;
  for (std::size_t i = 0; i < size; ++i) {
    crc ^= data[i];
    for (int bit = 0; bit < kBits; ++bit) crc = (crc >> 1U) ^ ((crc & 1U) != 0 ? kPolynomial : 0);
  }
  return ~crc;
}

/// The common header and an INIT chunk: RFC 9260, sections 3.1 and 3.3.2.
struct SctpInit {
  std::uint16_t source_port;
  std::uint16_t destination_port;
  std::uint32_t verification_tag = 0;
  std::uint32_t checksum = 0;
  std::uint8_t type = 1;
  std::uint8_t flags = 0;
  std::uint16_t length = htons(20);
  std::uint32_t tag = htonl(7);
  std::uint32_t window = htonl(65536);
  std::uint16_t streams_out = htons(1);
  std::uint16_t streams_in = htons(1);
  std::uint32_t first = htonl(1);
};
static_assert(sizeof(SctpInit) == 32);

/// Whether a packet for the port comes to the raw socket in time.
bool GetsInit(int socket, int port) {
  std::array<unsigned char, 2048> packet;
  while (WaitFor(socket, POLLIN, kRetry)) {
    const ssize_t got = ::recv(socket, packet.data(), packet.size(), 0);
    iphdr ip = {};
    if (got < static_cast<ssize_t>(sizeof(ip))) continue;
    std::memcpy(&ip, packet.data(), sizeof(ip));
    const std::size_t head = std::size_t{ip.ihl} * 4;
    std::uint16_t to = 0;
    if (static_cast<std::size_t>(got) < head + sizeof(SctpInit)) continue;
    std::memcpy(&to, packet.data() + head + sizeof(to), sizeof(to));
    if (ntohs(to) == port) return true;
  }
  return false;
}

}  // namespace

os::UniqueFd Listen(const std::string& netns, int family, int type, int port) {
  os::UniqueFd socket;
  const auto listen = [&socket, family, type, port] {
    socket = os::UniqueFd(::socket(family, type | SOCK_CLOEXEC, 0));
    const int on = 1;  // the connection of before may still be on its way out
    const bool again = ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0;
    const Address any = AddressOf(family == AF_INET ? "0.0.0.0" : "::", port);
    const bool bound = again && ::bind(socket.get(), any.get(), any.size) == 0;
    if (!bound || (type == SOCK_STREAM && ::listen(socket.get(), 8) != 0)) {
      return Status::Errno(errno, "listen");
    }
    return Status::Ok();
  };
  const Status done = In(netns, listen);
  INFO(done.ToString());
  CHECK(done.ok());
  return socket;
}

bool Reaches(const std::string& netns, const std::string& address, int type, int port,
             const os::UniqueFd& listener) {
  bool reached = false;
  const auto exchange = [&] {
    const Address to = AddressOf(address, port);
    reached = type == SOCK_STREAM ? ExchangeTcp(to, listener.get())
                                  : ExchangeUdp(ConnectUdp(to).get(), listener.get());
    return Status::Ok();
  };
  return In(netns, exchange).ok() && reached;
}

UdpClient::UdpClient(const std::string& netns, const std::string& address, int port) {
  const auto connect = [this, &address, port] {
    socket_ = ConnectUdp(AddressOf(address, port));
    return Status::Ok();
  };
  CHECK(os::RunInNamespace(netns, connect).ok());
  CHECK(socket_.valid());
}

void UdpClient::Send() const {
  const char byte = 'x';
  static_cast<void>(::send(socket_.get(), &byte, 1, 0) == 1);
}

bool UdpClient::Reaches(const os::UniqueFd& listener) const {
  return ExchangeUdp(socket_.get(), listener.get());
}

bool SctpArrives(const std::string& netns, const std::string& address, int port,
                 const std::string& pod_netns, int pod_port) {
  const auto raw = [](const std::string& where) {
    os::UniqueFd socket;
    const auto open = [&socket] {
      socket = os::UniqueFd(::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_SCTP));
      return Status::Ok();
    };
    CHECK(In(where, open).ok());
    CHECK(socket.valid());
    return socket;
  };
  const os::UniqueFd listener = raw(pod_netns);
  const os::UniqueFd client = raw(netns);
  constexpr int kClientPort = 40123;
  SctpInit init{.source_port = htons(kClientPort),
                .destination_port = htons(static_cast<std::uint16_t>(port))};
  init.checksum = htole32(Crc32c(reinterpret_cast<const unsigned char*>(&init), sizeof(init)));
  const Address to = AddressOf(address, 0);
  for (int waited = 0; waited < kPatience; waited += kRetry) {
    if (::sendto(client.get(), &init, sizeof(init), 0, to.get(), to.size) < 0) continue;
    if (GetsInit(listener.get(), pod_port)) return true;
  }
  return false;
}

std::chrono::nanoseconds TransferTime(const std::string& netns, const std::string& address,
                                      int port, const os::UniqueFd& listener, std::size_t bytes) {
  os::UniqueFd client;
  const auto connect = [&client, &address, port] {
    const Address to = AddressOf(address, port);
    client = os::UniqueFd(::socket(to.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (::connect(client.get(), to.get(), to.size) == 0) return Status::Ok();
    return Status::Errno(errno, "connect");
  };
  const auto start = std::chrono::steady_clock::now();
  const Status connected = In(netns, connect);
  INFO(connected.ToString());
  REQUIRE(connected.ok());
  const os::UniqueFd server(::accept(listener.get(), nullptr, nullptr));
  std::jthread sender([&client, bytes] {
    const std::vector<char> chunk(std::size_t{64} << 10U);
    for (std::size_t sent = 0; sent < bytes;) {
      const ssize_t n = ::write(client.get(), chunk.data(), std::min(chunk.size(), bytes - sent));
      if (n <= 0) break;
      sent += static_cast<std::size_t>(n);
    }
    client.reset();
  });
  std::array<char, 65536> buffer;
  std::size_t read = 0;
  constexpr int kSlow = 20'000;  // ms
  while (WaitFor(server.get(), POLLIN, kSlow)) {
    const ssize_t n = ::read(server.get(), buffer.data(), buffer.size());
    if (n <= 0) break;
    read += static_cast<std::size_t>(n);
  }
  CHECK(read == bytes);
  return std::chrono::steady_clock::now() - start;
}

}  // namespace crisp::netd
