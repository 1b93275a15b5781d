#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "cri/v1/api.grpc.pb.h"
#include "libs/rpc/broadcast.h"
#include "libs/rpc/forward.h"
#include "libs/rpc/unary.h"
#include "libs/work/pool.h"
#include "services/crid/core/event_fanout.h"
#include "services/crid/core/view.h"
#include "services/crid/rpc/peers.h"

namespace crisp::crid {

/// The CRI methods that only look: statistics, metrics, events, and lists in pieces. Answers of
/// several instances of rund are joined as bytes: a list message is its elements one after the
/// other.
class Observer {
 public:
  using Context = grpc::CallbackServerContext;
  using Raw = grpc::ByteBuffer;
  using Unary = grpc::ServerUnaryReactor;
  using Stream = grpc::ServerWriteReactor<grpc::ByteBuffer>;
  /// A serialised list answer, whose only field is the repeated field 1.
  using MakeList = std::function<Result<std::string>(const CallContext&)>;

  Observer(std::shared_ptr<View> view, Peers& peers, work::Pool& pool);
  Observer(const Observer&) = delete;
  Observer& operator=(const Observer&) = delete;
  ~Observer();

  /// Asks the rund that has the object; `request` gets its full id.
  Unary* AskOne(Context* context, Raw* response, Kind kind, const std::string& id,
                std::function<Raw(const std::string& id)> request, const std::string& method);
  /// Asks any rund.
  Unary* AskAny(Context* context, const Raw* request, Raw* response, const std::string& method);
  /// Asks every rund.
  Unary* AskAll(Context* context, const Raw* request, Raw* response, const std::string& method);

  /// The same in pieces, as a stream.
  Stream* StreamAll(Context* context, const Raw* request, const std::string& method);
  /// The pods or containers of the view, in pieces.
  Stream* StreamPods(Context* context, const Raw* request);
  Stream* StreamContainers(Context* context, const Raw* request);

  /// GetContainerEvents: from now on, until the reader leaves or falls too far behind. Restarts of
  /// runds do not end it.
  Stream* Events(Context* context) { return readers_.Open(context); }
  std::size_t event_readers() const { return readers_.readers(); }
  /// Ends the streams of events, for the server to stop.
  void Close() { readers_.Close(Unavailable("crid stops")); }

 private:
  Result<std::string> AskAllNow(const CallContext& cc, const std::string& method,
                                const Raw& request);
  Result<std::string> FreshList(
      const CallContext& cc,
      const std::function<std::shared_ptr<const std::string>(const View&)>& list) const;

  const std::shared_ptr<View> view_;
  Peers& peers_;
  work::Pool& pool_;
  rpc::Broadcast<grpc::ByteBuffer> readers_;
  EventFanout events_;
};

/// A stream of what `make` gives (on a thread of the pool), cut between its elements into messages
/// of about 1 MiB, each of which parses as an answer of the stream.
Observer::Stream* StreamInPieces(work::Pool& pool, grpc::CallbackServerContext* context,
                                 Observer::MakeList make);

/// The methods of the CRI that an Observer answers, on top of `Base`.
template <typename Base>
class ObservedMethods : public Base {
 public:
  using Raw = Observer::Raw;
  using Unary = Observer::Unary;
  using Stream = Observer::Stream;
  using Context = Observer::Context;

  ObservedMethods(std::shared_ptr<View> view, Peers& peers, work::Pool& pool)
      : observer_(std::move(view), peers, pool) {}

  Observer& observer() { return observer_; }

  Unary* ContainerStats(Context* context, const Raw* request, Raw* response) override {
    return Ask<runtime::v1::ContainerStatsRequest>(
        context, request, response, Kind::kContainer,
        &runtime::v1::ContainerStatsRequest::container_id,
        &runtime::v1::ContainerStatsRequest::mutable_container_id, "ContainerStats");
  }
  Unary* PodSandboxStats(Context* context, const Raw* request, Raw* response) override {
    return Ask<runtime::v1::PodSandboxStatsRequest>(
        context, request, response, Kind::kPod,
        &runtime::v1::PodSandboxStatsRequest::pod_sandbox_id,
        &runtime::v1::PodSandboxStatsRequest::mutable_pod_sandbox_id, "PodSandboxStats");
  }
  Unary* ListContainerStats(Context* context, const Raw* request, Raw* response) override {
    return observer_.AskAll(context, request, response, Path("ListContainerStats"));
  }
  Unary* ListPodSandboxStats(Context* context, const Raw* request, Raw* response) override {
    return observer_.AskAll(context, request, response, Path("ListPodSandboxStats"));
  }
  Unary* ListMetricDescriptors(Context* context, const Raw* request, Raw* response) override {
    return observer_.AskAny(context, request, response, Path("ListMetricDescriptors"));
  }
  Unary* ListPodSandboxMetrics(Context* context, const Raw* request, Raw* response) override {
    return observer_.AskAll(context, request, response, Path("ListPodSandboxMetrics"));
  }

  Stream* GetContainerEvents(Context* context, const Raw* /*request*/) override {
    return observer_.Events(context);
  }
  Stream* StreamPodSandboxes(Context* context, const Raw* request) override {
    return observer_.StreamPods(context, request);
  }
  Stream* StreamContainers(Context* context, const Raw* request) override {
    return observer_.StreamContainers(context, request);
  }
  Stream* StreamContainerStats(Context* context, const Raw* request) override {
    return observer_.StreamAll(context, request, Path("ListContainerStats"));
  }
  Stream* StreamPodSandboxStats(Context* context, const Raw* request) override {
    return observer_.StreamAll(context, request, Path("ListPodSandboxStats"));
  }
  Stream* StreamPodSandboxMetrics(Context* context, const Raw* request) override {
    return observer_.StreamAll(context, request, Path("ListPodSandboxMetrics"));
  }

 private:
  template <typename Request>
  Unary* Ask(Context* context, const Raw* request, Raw* response, Kind kind,
             const std::string& (Request::*id)() const, std::string* (Request::*mutable_id)(),
             const std::string& method) {
    Request message;
    if (auto parsed = rpc::ParseBytes(*request, message); !parsed.ok()) {
      return rpc::Finish(context, parsed);
    }
    return observer_.AskOne(
        context, response, kind, (message.*id)(),
        [message, mutable_id](const std::string& full) {
          Request asked = message;
          *(asked.*mutable_id)() = full;
          return rpc::ToBytes(asked);
        },
        Path(method));
  }

  static std::string Path(const std::string& method) { return "/crisp.rund.v1.Stats/" + method; }

  Observer observer_;
};

namespace internal {
using Runtime = runtime::v1::RuntimeService;
/// The same methods with their messages as bytes.
template <typename Base>
using RawObserved =
    Runtime::WithRawCallbackMethod_ContainerStats<Runtime::WithRawCallbackMethod_ListContainerStats<
        Runtime::WithRawCallbackMethod_PodSandboxStats<
            Runtime::WithRawCallbackMethod_ListPodSandboxStats<
                Runtime::WithRawCallbackMethod_ListMetricDescriptors<
                    Runtime::WithRawCallbackMethod_ListPodSandboxMetrics<
                        Runtime::WithRawCallbackMethod_StreamPodSandboxes<
                            Runtime::WithRawCallbackMethod_StreamContainers<
                                Runtime::WithRawCallbackMethod_StreamContainerStats<
                                    Runtime::WithRawCallbackMethod_StreamPodSandboxStats<
                                        Runtime::WithRawCallbackMethod_StreamPodSandboxMetrics<
                                            Runtime::WithRawCallbackMethod_GetContainerEvents<
                                                Base>>>>>>>>>>>>;
}  // namespace internal

}  // namespace crisp::crid
