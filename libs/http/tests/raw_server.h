#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace crisp::http::testing {

/// A server on loopback that says exactly the bytes it is told to, so that it can also lie, stall
/// and hang up. One thread a connection; all end with the object.
class RawServer {
 public:
  struct Answer {
    std::string bytes;                  // head and body
    bool hang_up = false;               // close after them
    bool stall = false;                 // keep the connection open and silent after them
    std::chrono::milliseconds drip{0};  // not silent: a byte each time
    std::string endless;                // after them, again and again until the client leaves
  };
  /// Called with the head of each request and its body, on the connection's thread.
  using Handler = std::function<Answer(const std::string& head)>;

  explicit RawServer(Handler handler) : handler_(std::move(handler)) {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address);
    ::listen(listener_, 64);
    socklen_t size = sizeof address;
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    accepter_ = std::thread([this] { Accept(); });
  }
  RawServer(const RawServer&) = delete;
  RawServer& operator=(const RawServer&) = delete;
  ~RawServer() {
    stopping_ = true;
    accepter_.join();
    for (std::thread& thread : connections_) thread.join();
    ::close(listener_);
  }

  std::atomic<bool> hangs_up_on_tls = false;

  int port() const { return port_; }
  std::string HostPort() const { return "127.0.0.1:" + std::to_string(port_); }
  int connection_count() const { return count_; }

  static std::string Ok(const std::string& body, const std::string& headers = "") {
    return "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" + headers +
           "\r\n" + body;
  }

 private:
  bool WaitReadable(int fd) const {
    while (!stopping_) {
      pollfd poll{fd, POLLIN, 0};
      if (::poll(&poll, 1, 20) > 0) return true;
    }
    return false;
  }
  void Accept() {
    while (WaitReadable(listener_)) {
      const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) continue;
      ++count_;
      connections_.emplace_back([this, fd] {
        Serve(fd);
        ::close(fd);
      });
    }
  }
  void Serve(int fd) {
    std::string input;
    std::array<char, 4096> buffer;
    while (WaitReadable(fd)) {
      const ssize_t got = ::recv(fd, buffer.data(), buffer.size(), 0);
      if (got <= 0) return;
      input.append(buffer.data(), static_cast<std::size_t>(got));
      // A TLS greeting, which never has a blank line: what Go's server says to it.
      if (input.front() == '\x16') {
        if (hangs_up_on_tls) return;
        const std::string_view answer = "HTTP/1.0 400 Bad Request\r\n\r\n";
        static_cast<void>(::send(fd, answer.data(), answer.size(), MSG_NOSIGNAL));
        return;
      }
      std::size_t end = 0;
      while ((end = input.find("\r\n\r\n")) != std::string::npos) {
        std::size_t whole = end + 4;
        if (const std::size_t at = input.find("\r\nContent-Length: "); at < end)
          whole += std::stoul(input.substr(at + 18));
        if (input.size() < whole) break;
        const std::string head = input.substr(0, whole);
        input.erase(0, whole);
        const Answer answer = handler_(head);
        std::size_t sent = 0;
        while (sent < answer.bytes.size()) {
          const ssize_t count =
              ::send(fd, answer.bytes.data() + sent, answer.bytes.size() - sent, MSG_NOSIGNAL);
          if (count <= 0) return;
          sent += static_cast<std::size_t>(count);
        }
        if (!answer.endless.empty()) {
          while (!stopping_ &&
                 ::send(fd, answer.endless.data(), answer.endless.size(), MSG_NOSIGNAL) > 0) {
          }
          return;
        }
        if (answer.drip.count() > 0) {
          pollfd poll{fd, POLLIN, 0};
          while (!stopping_ && ::send(fd, "x", 1, MSG_NOSIGNAL) == 1)
            ::poll(&poll, 0, static_cast<int>(answer.drip.count()));
          return;
        }
        if (answer.stall) {
          while (WaitReadable(fd) && ::recv(fd, buffer.data(), buffer.size(), 0) > 0) {
          }
          return;
        }
        if (answer.hang_up) return;
      }
    }
  }

  Handler handler_;
  int listener_ = -1;
  int port_ = 0;
  std::atomic<bool> stopping_ = false;
  std::atomic<int> count_ = 0;
  std::thread accepter_;
  std::vector<std::thread> connections_;  // touched by the accepter, then by the destructor
};

}  // namespace crisp::http::testing
