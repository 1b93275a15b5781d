#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <map>
#include <string>
#include <thread>

#include <catch2/catch.hpp>

#include "libs/os/files.h"
#include "libs/os/unique_fd.h"
#include "libs/testing/test_root.h"

namespace crisp::imaged::testing {

/// Debian's docker-registry on a port of its own, ended and removed with the object.
class RealRegistry {
 public:
  RealRegistry() {
    port_ = FreePort();
    const std::string config = root_.Write(
        "config.yml",
        fmt::format("version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
                    "storage: {{filesystem: {{rootdirectory: {}}}}}\n"
                    "http: {{addr: \"127.0.0.1:{}\"}}\n",
                    root_ / "data", port_));
    const std::string program = "/usr/bin/docker-registry";
    const std::string serve = "serve";
    std::array<char*, 4> argv = {const_cast<char*>(program.c_str()),
                                 const_cast<char*>(serve.c_str()),
                                 const_cast<char*>(config.c_str()), nullptr};
    REQUIRE(::posix_spawn(&pid_, program.c_str(), nullptr, nullptr, argv.data(), nullptr) == 0);
    for (int i = 0; i < 500 && !Answers(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(20));  // a foreign program's start
    REQUIRE(Answers());
  }
  RealRegistry(const RealRegistry&) = delete;
  RealRegistry& operator=(const RealRegistry&) = delete;
  ~RealRegistry() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

  std::string Host() const { return fmt::format("127.0.0.1:{}", port_); }

  void PushBlobs(const std::string& repository, const std::map<std::string, std::string>& blobs) {
    for (const auto& [digest, blob] : blobs) {
      const std::string opened = Exchange(
          fmt::format("POST /v2/{}/blobs/uploads/ HTTP/1.1\r\nContent-Length: 0\r\n", repository),
          "");
      const std::size_t at = opened.find("Location: ");
      REQUIRE(at != std::string::npos);
      std::string location = opened.substr(at + 10, opened.find('\r', at) - at - 10);
      location = location.substr(location.find('/', 8));
      const std::string put = Exchange(
          fmt::format("PUT {}&digest={} HTTP/1.1\r\nContent-Type: application/octet-stream\r\n"
                      "Content-Length: {}\r\n",
                      location, digest, blob.size()),
          blob);
      REQUIRE(put.starts_with("HTTP/1.1 201"));
    }
  }
  void PushManifest(const std::string& repository, const std::string& text, const std::string& type,
                    const std::string& tag) {
    const std::string put =
        Exchange(fmt::format("PUT /v2/{}/manifests/{} HTTP/1.1\r\nContent-Type: {}\r\n"
                             "Content-Length: {}\r\n",
                             repository, tag, type, text.size()),
                 text);
    REQUIRE(put.starts_with("HTTP/1.1 201"));
  }

 private:
  static int FreePort() {
    const os::UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    socklen_t size = sizeof address;
    ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size);
    return ntohs(address.sin_port);
  }
  os::UniqueFd Connect() const {
    os::UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<std::uint16_t>(port_));
    if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) fd.reset();
    return fd;
  }
  bool Answers() const { return Connect().valid(); }
  std::string Exchange(const std::string& head, const std::string& body) {
    const os::UniqueFd fd = Connect();
    REQUIRE(fd.valid());
    const std::string bytes = head + "Host: " + Host() + "\r\nConnection: close\r\n\r\n" + body;
    REQUIRE(os::WriteAll(fd.get(), bytes, "registry").ok());
    return os::ReadAll(fd.get(), "registry").value_or("");
  }

  crisp::testing::TestRoot root_;
  int port_ = 0;
  pid_t pid_ = -1;
};

}  // namespace crisp::imaged::testing
