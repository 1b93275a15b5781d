#pragma once

#include "crisp/rund/v1/rund.pb.h"
#include "libs/base/call_context.h"
#include "libs/base/ids.h"
#include "libs/base/result.h"
#include "services/rund/core/lifecycle.h"
#include "services/rund/core/parts.h"

namespace crisp::rund {

/// Checkpoints of containers: written to archives, and taken in for containers that are made from
/// them. (Containers::Create and Start do the rest of that.) Calls block.
class Checkpoints {
 public:
  explicit Checkpoints(Parts& parts) : p_(parts) {}

  /// CRI v1 CheckpointContainer of a running container: all of the archive or nothing; the
  /// container goes on, frozen in between so that its files and its processes belong together.
  /// Ends with its caller. Errors as protos/crisp/rund/v1/rund.proto has them.
  Status Write(const CallContext& cc, const runtime::v1::CheckpointContainerRequest& request);
  /// Takes a checkpoint in for a reserved container.
  Result<v1::StageCheckpointResponse> Stage(const CallContext& cc,
                                            const v1::StageCheckpointRequest& request);
  /// What an earlier run of ours has left of one that it was writing: its end is waited for, then
  /// it is undone.
  void TakeUp(const CallContext& cc, const ContainerId& id);

 private:
  Status RecordIntent(const CallContext& cc, const ContainerId& id, const std::string& location);
  Status DoWrite(const CallContext& cc, const ContainerRecord& container, const OciRuntime& runtime,
                 const std::string& location);
  Status WriteDumps(const ContainerRecord& container, const nlohmann::json& spec) const;

  Parts& p_;
};

/// Whoever holds the container's lock: ends a checkpoint that is recorded as being written, lets
/// the container go on, removes the files. None recorded is Ok.
Status UndoCheckpoint(const Parts& parts, const ContainerId& id);

/// The files of the checkpoint that is staged for a container to its root file system, and to its
/// spec what CRIU needs to find in it. kInvalidArgument: they do not fit together.
Status ApplyCheckpoint(const CallContext& cc, const Layout& layout, const ContainerId& id,
                       nlohmann::json& spec);

}  // namespace crisp::rund
