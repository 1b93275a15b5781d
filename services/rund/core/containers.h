#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>

#include "crisp/rund/v1/rund.pb.h"
#include "libs/base/call_context.h"
#include "libs/base/clock.h"
#include "libs/base/guarded.h"
#include "libs/base/result.h"
#include "services/rund/core/lifecycle.h"
#include "services/rund/core/parts.h"

namespace crisp::rund {

/// What tells the retry of a start from a second one (StartContainerRequest). Unix nanoseconds, 0:
/// not known.
struct StartAsked {
  std::int64_t at = 0;
  std::int64_t caller_began = 0;

  /// The container runs, or ran, by a start whose answer its caller may never have had.
  bool MayHaveStarted(const ContainerRecord& container) const;
};

/// What the front asks of containers (protos/crisp/rund/v1/rund.proto says what each means). Calls
/// block; those that change something go on when their caller leaves. Each answers the number of
/// the change.
class Containers {
 public:
  Containers(Parts& parts, Lifecycle& lifecycle)
      : p_(parts), lifecycle_(lifecycle), began_(parts.clock.Wall().time_since_epoch().count()) {}

  Result<v1::ReserveContainerResponse> Reserve(const v1::ReserveContainerRequest& request);
  Result<std::uint64_t> Create(const CallContext& cc, const v1::CreateContainerRequest& request);
  Result<std::uint64_t> Start(const CallContext& cc, const ContainerId& id,
                              const StartAsked& asked = {});
  /// Lifecycle::Stop; the number is that of the last change.
  void Stop(const ContainerId& id, std::chrono::seconds grace,
            std::function<void(Result<std::uint64_t>)> done);
  Result<std::uint64_t> Remove(const CallContext& cc, const ContainerId& id) {
    return RemoveIf(cc, id, nullptr);
  }
  /// Only while `still` says so (null = always), asked when nobody else can change the record.
  /// kAborted: it does not.
  Result<std::uint64_t> RemoveIf(const CallContext& cc, const ContainerId& id,
                                 const std::function<bool(const ContainerRecord&)>& still);
  Result<runtime::v1::ContainerStatusResponse> GetStatus(const ContainerId& id, bool verbose);
  Status ReopenLog(const CallContext& cc, const ContainerId& id);
  /// `asked_at`: the timeout of the command counts from then on. kResourceExhausted: kMaxExecs run
  /// in that container already.
  Result<runtime::v1::ExecSyncResponse> ExecSync(
      const CallContext& cc, const runtime::v1::ExecSyncRequest& request,
      SteadyTime asked_at = std::chrono::steady_clock::now());
  /// Commands of ExecSync in one container: those that hang there take nobody else's turn.
  static constexpr int kMaxExecs = 64;

 private:
  struct Plan;
  Result<Plan> MakePlan(const v1::CreateContainerRequest& request, const PodRef& pod);
  Status RecordIntent(const v1::CreateContainerRequest& request, const Plan& plan);
  /// Beside what the caller does next: the runtime soon moves its child into a cgroup.
  void WarmUpCgroups(const CallContext& cc);
  Result<std::uint64_t> DoCreate(const CallContext& cc, const v1::CreateContainerRequest& request,
                                 const Plan& plan);
  bool MayHaveStarted(const ContainerRecord& container, const StartAsked& asked);
  Result<std::uint64_t> DoStart(const CallContext& cc, const ContainerId& id,
                                const StartAsked& asked);
  /// Its processes, of the checkpoint that is staged for it.
  Result<Monitored> Restore(const CallContext& cc, const ContainerId& id,
                            const OciRuntime& runtime);
  Result<std::uint64_t> DoRestore(const CallContext& cc, const ContainerId& id,
                                  const OciRuntime& runtime);
  Result<Monitored> Monitor(const CallContext& cc, const PodRecord& pod, const ContainerId& id,
                            const OciRuntime& runtime, bool restore);
  Result<std::uint64_t> FailStart(const CallContext& cc, const ContainerId& id,
                                  const Status& failure);

  Parts& p_;
  Lifecycle& lifecycle_;
  Guarded<std::map<std::string, int>> execs_;  // running, by container
  /// An earlier run of ours may have started it and not said so: the first Start is told that it
  /// has.
  const std::int64_t began_;
  Guarded<std::set<std::string>> retried_;
};

}  // namespace crisp::rund
