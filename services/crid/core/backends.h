#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cri/v1/api.pb.h"
#include "crisp/imaged/v1/imaged.pb.h"
#include "crisp/netd/v1/netd.pb.h"
#include "crisp/rund/v1/rund.pb.h"
#include "libs/base/call_context.h"
#include "libs/base/result.h"

// The other daemons as the flows see them. Every method is idempotent by id, waits for a daemon
// that is away (a restart must not fail calls) and tries again when one goes away in the middle;
// kUnavailable names the daemon. rpc/peers implements them over gRPC.
namespace crisp::crid {

/// An answer that is on its way; call it once to wait for it.
template <typename T>
using Pending = std::function<Result<T>()>;

/// One instance of rund.
class Rund {
 public:
  virtual ~Rund() = default;
  /// "1"
  virtual const std::string& instance() const = 0;
  virtual bool Ready() const = 0;
  virtual Result<rund::v1::ReservePodResponse> ReservePod(const CallContext& cc,
                                                          const rund::v1::ReservePodRequest& r) = 0;
  virtual Result<rund::v1::PreparePodResponse> PreparePod(const CallContext& cc,
                                                          const rund::v1::PreparePodRequest& r) = 0;
  virtual Result<rund::v1::StartPodResponse> StartPod(const CallContext& cc,
                                                      const rund::v1::StartPodRequest& r) = 0;
  virtual Result<rund::v1::StopPodResponse> StopPod(const CallContext& cc,
                                                    const rund::v1::StopPodRequest& r) = 0;
  virtual Result<rund::v1::RemovePodResponse> RemovePod(const CallContext& cc,
                                                        const rund::v1::RemovePodRequest& r) = 0;
  virtual Result<rund::v1::ReserveContainerResponse> ReserveContainer(
      const CallContext& cc, const rund::v1::ReserveContainerRequest& r) = 0;
  virtual Result<rund::v1::CreateContainerResponse> CreateContainer(
      const CallContext& cc, const rund::v1::CreateContainerRequest& r) = 0;
  virtual Result<rund::v1::StageCheckpointResponse> StageCheckpoint(
      const CallContext& cc, const rund::v1::StageCheckpointRequest& r) = 0;
  /// The one that is not tried again (a second start is an error).
  virtual Result<rund::v1::StartContainerResponse> StartContainer(
      const CallContext& cc, const rund::v1::StartContainerRequest& r) = 0;
  virtual Result<rund::v1::RemoveContainerResponse> RemoveContainer(
      const CallContext& cc, const rund::v1::RemoveContainerRequest& r) = 0;
  virtual Result<rund::v1::NodeStatusResponse> NodeStatus(const CallContext& cc) = 0;
};

/// netd, whichever instance is there.
class Netd {
 public:
  virtual ~Netd() = default;
  virtual bool Ready() const = 0;
  virtual Pending<netd::v1::AttachResponse> StartAttach(const CallContext& cc,
                                                        netd::v1::AttachRequest r) = 0;
  virtual Pending<netd::v1::DetachResponse> StartDetach(const CallContext& cc,
                                                        netd::v1::DetachRequest r) = 0;
  virtual Result<netd::v1::StatusResponse> Status(const CallContext& cc) = 0;
  virtual Result<netd::v1::ReconcileResponse> Reconcile(const CallContext& cc,
                                                        const netd::v1::ReconcileRequest& r) = 0;
};

/// imaged, whichever instance is there.
class Imaged {
 public:
  virtual ~Imaged() = default;
  virtual bool Ready() const = 0;
  virtual Result<imaged::v1::PrepareResponse> Prepare(const CallContext& cc,
                                                      const imaged::v1::PrepareRequest& r) = 0;
  virtual Result<imaged::v1::PrepareVolumeResponse> PrepareVolume(
      const CallContext& cc, const imaged::v1::PrepareVolumeRequest& r) = 0;
  virtual Result<imaged::v1::ReleaseResponse> Release(const CallContext& cc,
                                                      const imaged::v1::ReleaseRequest& r) = 0;
  virtual Result<imaged::v1::ReconcileResponse> Reconcile(
      const CallContext& cc, const imaged::v1::ReconcileRequest& r) = 0;
  /// Ok when it answers.
  virtual crisp::Status Check(const CallContext& cc) = 0;
};

class Backends {
 public:
  virtual ~Backends() = default;
  virtual std::vector<std::shared_ptr<Rund>> Runds() = 0;
  /// Null for an instance that is not known.
  virtual std::shared_ptr<Rund> RundOf(const std::string& instance) = 0;
  virtual Netd& netd() = 0;
  virtual Imaged& imaged() = 0;
};

}  // namespace crisp::crid
