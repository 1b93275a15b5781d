#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "libs/base/clock.h"
#include "libs/base/result.h"
#include "libs/work/pool.h"
#include "services/rund/streaming/backend.h"
#include "services/rund/streaming/options.h"
#include "services/rund/streaming/session.h"

namespace crisp::rund::streaming {

/// The streaming server: gives out URLs and serves what comes for them, on a thread of its own.
class Server {
 public:
  /// kInvalidArgument: the address is none. An address that is taken, and a certificate that is not
  /// there or no good, are no failures: they are tried again, and until then problem() says so.
  static Result<std::unique_ptr<Server>> Start(ServerOptions options, Backend backend,
                                               work::Pool& pool, Clock& clock);
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  ~Server();

  /// Where a client finds this request, once and soon. Any thread; memory work only.
  /// kResourceExhausted: too many URLs that nobody has used, or, for an exec, too many left();
  /// kUnavailable: it does not listen.
  Result<std::string> UrlFor(Request request);
  /// Takes no new connections and ends the sessions, telling their clients why; waits a moment for
  /// them to hear it. Any thread but its own.
  void EndAll(const Status& why);

  std::size_t sessions() const;
  /// Execs whose commands run on after their clients have gone.
  std::size_t left() const;
  /// Not Ok: it does not listen, and why.
  Status problem() const;

 private:
  struct Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace crisp::rund::streaming
