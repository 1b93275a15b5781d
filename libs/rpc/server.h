#pragma once

#include <grpcpp/impl/service_type.h>
#include <sys/types.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/status.h"
#include "libs/base/units.h"
#include "libs/rpc/listener.h"

namespace crisp::rpc {

/// Hears of each call that ends, of whatever kind (unary, forwarded, streaming). On gRPC's threads:
/// memory work only.
class CallObserver {
 public:
  virtual ~CallObserver() = default;
  /// `method` is "/package.Service/Method".
  virtual void OnCallStarted(std::string_view method) = 0;
  virtual void OnCallDone(std::string_view method, Code code, std::chrono::nanoseconds took) = 0;
};

struct ServerOptions {
  /// Unix sockets to listen on: one is usual. Each one's directory exists. See Listener::Bind.
  std::vector<std::string> sockets;
  mode_t socket_mode = 0660;
  Bytes max_message = MiB(80);
  /// May be null; must outlive the server.
  CallObserver* observer = nullptr;
};

/// Serves gRPC on unix sockets, with health (grpc.health.v1) and reflection. Failed calls are
/// logged once, with method, code, request id and duration, never with contents.
class Server {
 public:
  explicit Server(ServerOptions options);
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  /// Shutdown without grace.
  ~Server();

  /// Before Start. The service must outlive the server.
  void AddService(grpc::Service* service);
  /// Before Start: serves here too; a path of the options that it has already is not made anew.
  void AddListener(Listener listener);
  /// Listens. A stale socket file is replaced. kInvalidArgument: path too long for a unix socket.
  /// kFailedPrecondition: a living server is there. Health is NOT_SERVING until SetServing(true).
  Status Start();
  void SetServing(bool serving);
  /// Takes no more connections, and tells the clients so; calls on those that are there are served
  /// still. Returns when the clients have heard it, soon in any case: a client makes its next call
  /// on a new connection, which the next server takes, and none is lost. Before Shutdown.
  /// Idempotent.
  void Close();
  /// Takes no more calls, waits for those in flight until `grace` is over, cancels the rest.
  /// Idempotent.
  void Shutdown(std::chrono::nanoseconds grace);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace crisp::rpc
