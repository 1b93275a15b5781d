#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "libs/base/result.h"

// The client's end of exec, attach and port-forward: WebSocket with v5.channel.k8s.io.
namespace crisp::ctl {

struct RemoteOptions {
  bool stdin_open = false;
  bool tty = false;
  /// Ctrl-P Ctrl-Q ends the session: for attach, whose container goes on.
  bool detach_keys = false;
};

/// Puts our stdin, stdout, stderr and terminal at the other end of `url` until the session ends.
/// The exit code of what ran there. kUnavailable: the session broke.
Result<int> RunRemote(const std::string& url, const RemoteOptions& options);

/// The outcome that a session tells on its error channel: an exit code, or why there is none.
Result<int> ParseOutcome(std::string_view status_json);

struct PortPair {
  std::uint16_t local = 0;  // 0: any
  std::uint16_t remote = 0;
};
/// "8080:80", "80" (the same on both sides), ":80" (any local one).
Result<PortPair> ParsePorts(std::string_view text);

/// One connection, from an accepted socket to the pod's port behind `url`. Blocks until it ends.
Status ForwardConnection(const std::string& url, int socket);

/// Finds Ctrl-P Ctrl-Q in what is typed, over any number of pieces.
class DetachKeys {
 public:
  /// Takes the sequence (and its first half, until it is known to be something else) out of
  /// `typed`. True when it was whole.
  bool Filter(std::string& typed);

 private:
  bool half_ = false;
};

}  // namespace crisp::ctl
