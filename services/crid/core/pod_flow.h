#pragma once

#include <chrono>
#include <string>

#include "cri/v1/api.pb.h"
#include "libs/base/call_context.h"
#include "libs/base/ids.h"
#include "libs/base/result.h"
#include "libs/work/flights.h"
#include "services/crid/core/backends.h"
#include "services/crid/core/view.h"
#include "services/crid/metrics.h"

namespace crisp::crid {

struct FlowOptions {
  std::chrono::nanoseconds run_pod_timeout = std::chrono::seconds(240);
  std::chrono::nanoseconds create_timeout = std::chrono::seconds(240);
  /// Of a stop, a remove or a start, and of each undo.
  std::chrono::nanoseconds end_timeout = std::chrono::seconds(180);
};

/// The life of a pod over rund, netd and imaged. Each call runs as a flight: a second call for the
/// same pod joins it, a caller's leaving ends only its wait, a retry finds what was achieved.
class PodFlow {
 public:
  PodFlow(View& view, Backends& backends, work::Pool& pool, IdSource& ids, Metrics& metrics,
          const FlowOptions& options);

  /// The new pod's id, or that of the pod which has the same key already. On failure all is undone
  /// and the first cause is told. kAlreadyExists: there, but stopped.
  Result<std::string> Run(const CallContext& cc, const runtime::v1::RunPodSandboxRequest& request);
  /// Undoes the half-made pods that no call of this process is at: an earlier one was killed in the
  /// middle of them, and nobody has come back. Ask when a retry would have come.
  void UndoAbandoned(const CallContext& cc);
  /// Idempotent; unknown is success. Each failed step is repeated by the next call.
  Status Stop(const CallContext& cc, const std::string& id);
  /// Stops, then forgets the pod and its containers. Idempotent; unknown is success.
  Status Remove(const CallContext& cc, const std::string& id);

 private:
  struct Nothing {};
  using Attaching = Pending<netd::v1::AttachResponse>;
  Result<std::string> RunNow(const CallContext& cc,
                             const runtime::v1::RunPodSandboxRequest& request);
  Status Build(const CallContext& cc, Rund& rund, const std::string& id,
               const runtime::v1::RunPodSandboxRequest& request, Attaching attaching);
  /// kAborted: it is not half made, and stays as it is.
  Status Undo(const CallContext& cc, Rund& rund, const std::string& id, bool host_network);
  /// The id of a pod that runs after all. kAborted: it is undone.
  Result<std::string> UndoHalfMade(const CallContext& cc, const Record& pod);
  void UndoNetwork(const CallContext& cc, const std::string& id);
  Status Down(const CallContext& cc, Rund& rund, const Record& pod);
  Status RemoveNow(const CallContext& cc, const Record& pod);
  Result<std::shared_ptr<Rund>> Choose(const CallContext& cc, const std::string& key);
  Result<RecordPtr> FindForEnd(const CallContext& cc, const std::string& id);

  View& view_;
  Backends& backends_;
  IdSource& ids_;
  Metrics& metrics_;
  const FlowOptions options_;
  work::Flights<std::string, std::string> runs_;
  work::Flights<std::string, Nothing> ends_;
};

/// Gives a container's snapshot back; a failure is left to the reconcile.
void ReleaseSnapshot(const CallContext& cc, Imaged& imaged, Metrics& metrics,
                     const std::string& container_id);

}  // namespace crisp::crid
