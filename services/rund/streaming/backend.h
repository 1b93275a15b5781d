#pragma once

#include <functional>
#include <string>

#include "cri/v1/api.pb.h"
#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "services/rund/runtime/exec_process.h"
#include "services/rund/streaming/attach_target.h"

namespace crisp::rund::streaming {

/// Sockets of a pod's network namespace, not connected; invalid for a family that it has not.
struct PodSockets {
  os::UniqueFd v4;
  os::UniqueFd v6;
};

/// What sessions need of containers and pods. Called on pool threads; may block. The objects were
/// there when the URL was given out, and may have gone since.
struct Backend {
  std::function<Result<ExecProcess>(const CallContext&, const runtime::v1::ExecRequest&)> exec;
  std::function<Result<AttachedContainer>(const CallContext&, const runtime::v1::AttachRequest&)>
      attach;
  std::function<Result<PodSockets>(const CallContext&, const std::string& pod_id)> sockets;
};

}  // namespace crisp::rund::streaming
