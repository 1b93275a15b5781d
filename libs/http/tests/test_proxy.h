#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace crisp::http::testing {

/// A proxy on loopback, for SOCKS 5 and CONNECT alike, that leads whatever is asked for to one port
/// of 127.0.0.1. One thread a connection; all end with the object.
class TestProxy {
 public:
  struct Options {
    int target = 0;    // 0: every way is refused
    std::string user;  // wanted, unless empty (SOCKS only)
    std::string password;
    std::string smuggled;  // said right after the answer to CONNECT
  };

  explicit TestProxy(Options options) : options_(std::move(options)) {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = Loopback(0);
    ::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address);
    ::listen(listener_, 16);
    socklen_t size = sizeof address;
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    accepter_ = std::thread([this] {
      while (Readable(listener_)) {
        const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
        if (fd < 0) continue;
        connections_.emplace_back([this, fd] {
          Serve(fd);
          ::close(fd);
        });
      }
    });
  }
  TestProxy(const TestProxy&) = delete;
  TestProxy& operator=(const TestProxy&) = delete;
  ~TestProxy() {
    stopping_ = true;
    accepter_.join();
    for (std::thread& thread : connections_) thread.join();
    ::close(listener_);
  }

  std::string HostPort() const { return "127.0.0.1:" + std::to_string(port_); }
  /// "host:port" of each way that was wanted.
  std::vector<std::string> asked_for() const {
    const std::lock_guard lock(mutex_);
    return asked_for_;
  }

 private:
  static sockaddr_in Loopback(int port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    return address;
  }
  bool Readable(int fd) const {
    while (!stopping_) {
      pollfd poll{fd, POLLIN, 0};
      if (::poll(&poll, 1, 20) > 0) return true;
    }
    return false;
  }
  /// Exactly `count` bytes; fewer at the end.
  std::string Read(int fd, std::size_t count) const {
    std::string bytes;
    std::array<char, 512> buffer;
    while (bytes.size() < count && Readable(fd)) {
      const ssize_t got =
          ::recv(fd, buffer.data(), std::min(count - bytes.size(), buffer.size()), 0);
      if (got <= 0) break;
      bytes.append(buffer.data(), static_cast<std::size_t>(got));
    }
    return bytes;
  }
  static void Send(int fd, const std::string& bytes) {
    static_cast<void>(::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL));
  }
  void Note(const std::string& wanted) {
    const std::lock_guard lock(mutex_);
    asked_for_.push_back(wanted);
  }

  /// The way's answer is sent by whoever knows its form.
  bool Socks(int fd) {
    const std::string methods = Read(fd, static_cast<unsigned char>(Read(fd, 1).at(0)));
    const bool login = !options_.user.empty();
    if (login && methods.find('\x02') == std::string::npos) {
      Send(fd, "\x05\xFF");
      return false;
    }
    Send(fd, login ? std::string("\x05\x02") : std::string("\x05\0", 2));
    if (login) {
      Read(fd, 1);
      const std::string user = Read(fd, static_cast<unsigned char>(Read(fd, 1).at(0)));
      const std::string password = Read(fd, static_cast<unsigned char>(Read(fd, 1).at(0)));
      const bool right = user == options_.user && password == options_.password;
      Send(fd, right ? std::string("\x01\0", 2) : std::string("\x01\x01"));
      if (!right) return false;
    }
    const std::string head = Read(fd, 4);
    const std::string host = Read(fd, static_cast<unsigned char>(Read(fd, 1).at(0)));
    const std::string port = Read(fd, 2);
    Note(host + ":" +
         std::to_string(static_cast<unsigned char>(port.at(0)) * 256 +
                        static_cast<unsigned char>(port.at(1))));
    std::string answer("\x05\0\0\x01\0\0\0\0\0\0", 10);
    if (options_.target == 0) answer[1] = 5;
    Send(fd, answer);
    return options_.target != 0;
  }
  bool Connect(int fd, std::string head) {
    while (head.find("\r\n\r\n") == std::string::npos) {
      const std::string more = Read(fd, 1);
      if (more.empty()) return false;
      head += more;
    }
    Note(head.substr(8, head.find(' ', 8) - 8));
    Send(fd, options_.target == 0 ? "HTTP/1.1 502 Bad Gateway\r\n\r\n"
                                  : "HTTP/1.1 200 OK\r\n\r\n" + options_.smuggled);
    return options_.target != 0;
  }
  void Serve(int fd) {
    const std::string first = Read(fd, 1);
    if (first.empty()) return;
    if (!(first[0] == 5 ? Socks(fd) : Connect(fd, first))) return;
    const int out = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = Loopback(options_.target);
    if (::connect(out, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) Splice(fd, out);
    ::close(out);
  }
  void Splice(int a, int b) const {
    std::array<char, 65536> buffer;
    while (!stopping_) {
      std::array<pollfd, 2> polls = {pollfd{a, POLLIN, 0}, pollfd{b, POLLIN, 0}};
      if (::poll(polls.data(), 2, 20) <= 0) continue;
      for (const auto& [from, to] : {std::pair(polls[0], b), std::pair(polls[1], a)}) {
        if (from.revents == 0) continue;
        const ssize_t got = ::recv(from.fd, buffer.data(), buffer.size(), 0);
        if (got <= 0) return;
        Send(to, std::string(buffer.data(), static_cast<std::size_t>(got)));
      }
    }
  }

  const Options options_;
  int listener_ = -1;
  int port_ = 0;
  std::atomic<bool> stopping_ = false;
  mutable std::mutex mutex_;
  std::vector<std::string> asked_for_;
  std::thread accepter_;
  std::vector<std::thread> connections_;  // touched by the accepter, then by the destructor
};

}  // namespace crisp::http::testing
