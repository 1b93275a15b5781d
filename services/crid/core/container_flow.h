#pragma once

#include <string>

#include "cri/v1/api.pb.h"
#include "libs/base/call_context.h"
#include "libs/base/clock.h"
#include "libs/base/ids.h"
#include "libs/base/result.h"
#include "libs/work/flights.h"
#include "services/crid/core/backends.h"
#include "services/crid/core/pod_flow.h"
#include "services/crid/core/view.h"
#include "services/crid/metrics.h"

namespace crisp::crid {

/// The life of a container over rund and imaged; flights, as in PodFlow. What a runtime may hold up
/// (creates and starts) has threads of its own, and so has what ends: neither waits for the other.
/// (StopContainer is passed on by rpc/: it needs nobody but rund, and waits long.)
class ContainerFlow {
 public:
  ContainerFlow(View& view, Backends& backends, work::Pool& pool, IdSource& ids, Metrics& metrics,
                const FlowOptions& options);

  using Answer = PodFlow::Answer;

  /// Answers with the new container's id, or that of the one which has the same (pod, name,
  /// attempt) already, once and on any thread; waits on this one only for a rund that is away.
  /// kNotFound: no such pod or image. kFailedPrecondition: the pod is stopped.
  void Create(const CallContext& cc, const runtime::v1::CreateContainerRequest& request,
              const Answer& answer);
  /// kFailedPrecondition: not CREATED.
  Status Start(const CallContext& cc, const std::string& id);
  /// Idempotent, in whatever state; unknown is success.
  Status Remove(const CallContext& cc, const std::string& id);

 private:
  struct Nothing {};
  Status CreateLater(const CallContext& cc, const runtime::v1::CreateContainerRequest& request,
                     const Answer& answer);
  /// The container whose PIDs are to be joined may be named by the beginning of its id, as all are.
  /// kInvalidArgument: there is none.
  Result<runtime::v1::CreateContainerRequest> WithFullTarget(
      const CallContext& cc, const runtime::v1::CreateContainerRequest& request);
  Result<std::string> CreateNow(const CallContext& cc, const Record& pod,
                                const runtime::v1::CreateContainerRequest& request);
  Result<rund::v1::CreateContainerResponse> Build(
      const CallContext& cc, Rund& rund, const std::string& id,
      const runtime::v1::CreateContainerRequest& request);
  void Undo(const CallContext& cc, Rund& rund, const std::string& id);
  Status StartNow(const CallContext& cc, const Record& container);
  Status RemoveNow(const CallContext& cc, const Record& container);

  View& view_;
  Backends& backends_;
  IdSource& ids_;
  Metrics& metrics_;
  const FlowOptions options_;
  const WallTime began_;
  work::Flights<std::string, std::string> creates_;
  work::Flights<std::string, Nothing> starts_;
  work::Flights<std::string, Nothing> ends_;
};

}  // namespace crisp::crid
