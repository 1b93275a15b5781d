#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "libs/base/result.h"
#include "libs/loop/loop.h"
#include "services/rund/streaming/options.h"
#include "services/rund/streaming/wire.h"

namespace crisp::rund::streaming {

/// A client that asks to leave HTTP.
struct UpgradeRequest {
  std::string path;  // "/exec/TOKEN"
  bool websocket = false;
  bool spdy = false;
  std::vector<std::string> protocols;  // as the client offers them, in its order
};

struct UpgradeAnswer {
  int status = 101;
  std::string text;      // for a person; with another status
  std::string protocol;  // agreed upon; "" = none is named
  std::function<void(std::shared_ptr<Wire>)> on_wire;
};

namespace internal {
struct Tls;
}
/// kInvalidArgument names the file. Reads files: not on the loop.
Result<std::shared_ptr<internal::Tls>> LoadTls(const TlsFiles& files);

/// "IP:port", the host of an IPv6 address in brackets; kInvalidArgument else.
Status CheckAddress(const std::string& address);

/// Listens, takes requests for upgrades and makes wires of them. Everything else is refused. Its
/// handlers run on the loop.
class Front {
 public:
  using Handler = std::function<UpgradeAnswer(const UpgradeRequest&)>;
  /// "host:port" with a numeric host; port 0: any. `tls` null: plain HTTP.
  /// kFailedPrecondition and others: the address cannot be had.
  static Result<std::unique_ptr<Front>> Listen(loop::Loop& loop, const std::string& address,
                                               std::shared_ptr<internal::Tls> tls, Handler handler,
                                               const EndTimes& times = {});
  /// Close().
  ~Front();
  Front(const Front&) = delete;
  Front& operator=(const Front&) = delete;

  /// For connections from now on. On the loop.
  void SetTls(std::shared_ptr<internal::Tls> tls);
  /// "http://127.0.0.1:40001": where a client on this machine finds it.
  const std::string& url() const { return url_; }
  /// No new connections; those that are wires already stay. On the loop, or when it has stopped.
  void Close();

 private:
  struct State;
  Front(std::shared_ptr<State> state, std::string url)
      : state_(std::move(state)), url_(std::move(url)) {}
  std::shared_ptr<State> state_;
  std::string url_;
};

}  // namespace crisp::rund::streaming
