#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "libs/base/result.h"

namespace crisp::loop {
class Loop;
}

// A small server for a few local readers: GET and HEAD, no bodies in, 8 KiB of headers, keep-alive,
// 30 s of idleness, 64 connections.
namespace crisp::http {

struct ServerRequest {
  std::string method;
  std::string target;  // "/metrics?x=y", as it came
};

struct ServerResponse {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
};

/// Answers one request. Called once, on any thread, at once or later.
using Respond = std::function<void(ServerResponse)>;
/// Runs on the loop: it must not block.
using Handler = std::function<void(const ServerRequest&, Respond)>;

class Server {
 public:
  /// Listens on a unix socket (a stale file is replaced) or on "host:port" (port 0: any). The loop
  /// must outlive the server, and be stopped or running on destruction.
  /// kAlreadyExists / kFailedPrecondition: somebody listens there.
  static Result<std::unique_ptr<Server>> ListenUnix(loop::Loop& loop, const std::string& path,
                                                    mode_t mode, Handler handler);
  static Result<std::unique_ptr<Server>> ListenTcp(loop::Loop& loop, const std::string& address,
                                                   Handler handler);
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  /// Closes the listener and the connections; removes the socket file.
  ~Server();

  /// 0 for a unix socket.
  std::uint16_t port() const;

 private:
  struct Impl;
  explicit Server(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

/// GET `target` from an HTTP server on a unix socket, on the loop, without blocking; `done` runs on
/// the loop. At most 16 MiB. kUnavailable: nobody there. kDeadlineExceeded.
void GetUnix(loop::Loop& loop, const std::string& socket_path, const std::string& target,
             std::chrono::nanoseconds timeout, std::function<void(Result<ServerResponse>)> done);

}  // namespace crisp::http
