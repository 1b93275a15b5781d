#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <variant>

#include "cri/v1/api.pb.h"
#include "libs/loop/loop.h"
#include "libs/work/pool.h"
#include "services/rund/streaming/attach_hub.h"
#include "services/rund/streaming/backend.h"
#include "services/rund/streaming/channels.h"
#include "services/rund/streaming/exec_target.h"
#include "services/rund/streaming/stream.h"
#include "services/rund/streaming/target.h"
#include "services/rund/streaming/wire.h"

namespace crisp::rund::streaming {

/// What all sessions share; outlives them.
struct Env {
  Env(loop::Loop& on, work::Pool& threads, const Backend& calls)
      : loop(on), pool(threads), backend(calls) {}

  loop::Loop& loop;
  work::Pool& pool;
  const Backend& backend;
  PumpShare pumps{loop};
  ExecTarget::Share execs{loop, pool, pumps};
  AttachHub::Share attaches{loop, pool, backend};
  /// From the upgrade until all streams that the request names are there.
  std::chrono::nanoseconds creation_timeout = std::chrono::seconds(30);
};

using Request = std::variant<runtime::v1::ExecRequest, runtime::v1::AttachRequest,
                             runtime::v1::PortForwardRequest>;

/// One upgraded connection of a client. Streaming thread only.
class Session {
 public:
  virtual ~Session() = default;
  /// `on_over` once, when the connection is gone.
  virtual void Begin(std::function<void()> on_over) = 0;
  /// Tells the client why, as far as its protocol can, and ends.
  virtual void Stop(const Status& why) = 0;
  virtual Connection& connection() = 0;
};
using SessionPtr = std::shared_ptr<Session>;

/// The protocol that the client and we have agreed upon.
struct Agreed {
  std::string name;        // as the client wrote it; "" = it named none
  bool websocket = false;  // else SPDY
};

/// Among the client's, in its order; kInvalidArgument when there is none that we know, or when it
/// has not enough channels for the request.
Result<Agreed> Agree(const Request& request, bool websocket,
                     const std::vector<std::string>& offered);

SessionPtr MakeSession(Env& env, const Request& request, const Agreed& agreed,
                       std::shared_ptr<Wire> wire);

// By kind; MakeSession calls them.
SessionPtr MakeRemoteSession(Env& env, const Request& request, const Agreed& agreed,
                             std::shared_ptr<Wire> wire);
SessionPtr MakePortForwardSession(Env& env, const runtime::v1::PortForwardRequest& request,
                                  const Agreed& agreed, std::shared_ptr<Wire> wire);

/// What goes to the error stream. From version 4 on a meta/v1 Status as JSON, always; before, a
/// sentence when something failed.
std::string ErrorStreamText(const Outcome& outcome, int version);
/// {"Width":80,"Height":24}; nothing when it is something else, or a side is 0.
std::optional<TerminalSize> ParseSize(std::string_view text);

}  // namespace crisp::rund::streaming
