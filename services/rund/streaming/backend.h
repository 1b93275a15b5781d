#pragma once

#include <functional>
#include <string>

#include "cri/v1/api.pb.h"
#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/os/unique_fd.h"
#include "services/rund/runtime/exec_process.h"

namespace crisp::rund::streaming {

/// A connection to a container's monitor.
struct AttachedContainer {
  os::UniqueFd socket;   // SOCK_SEQPACKET, connected
  os::UniqueFd control;  // the monitor's fifo
  bool tty = false;
  bool takes_stdin = false;
  bool stdin_once = false;  // the container's stdin ends with its first client's
};

/// Sockets of a pod's network namespace, not connected; invalid for a family that it has not.
struct PodSockets {
  os::UniqueFd v4;
  os::UniqueFd v6;
};

/// What sessions need of containers and pods. Called on pool threads; may block. The objects were
/// there when the URL was given out, and may have gone since.
struct Backend {
  std::function<Result<ExecProcess>(const CallContext&, const runtime::v1::ExecRequest&)> exec;
  std::function<Result<AttachedContainer>(const CallContext&, const std::string& container_id)>
      attach;
  std::function<Result<PodSockets>(const CallContext&, const std::string& pod_id)> sockets;
};

}  // namespace crisp::rund::streaming
