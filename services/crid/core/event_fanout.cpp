#include "services/crid/core/event_fanout.h"

#include <algorithm>
#include <utility>

#include "services/crid/core/framing.h"

namespace crisp::crid {
namespace {

namespace cri = runtime::v1;

// Fields of ContainerEventResponse that are spliced in as the bytes that came from rund.
constexpr int kPodStatusField = 4;
constexpr int kContainerStatusesField = 5;

/// How far it has come.
enum Stage { kUnknown = 0, kCreated = 1, kStarted = 2, kStopped = 3, kGone = 4 };

Stage StageOf(const Record* record) {
  if (record == nullptr || !record->listed) return kUnknown;
  if (record->kind == Kind::kPod) {
    return record->state == cri::SANDBOX_READY ? kStarted : kStopped;
  }
  switch (record->state) {
    case cri::CONTAINER_CREATED: return kCreated;
    case cri::CONTAINER_EXITED: return kStopped;
    default: return kStarted;
  }
}

cri::ContainerEventType EventOf(int stage) {
  switch (stage) {
    case kCreated: return cri::CONTAINER_CREATED_EVENT;
    case kStarted: return cri::CONTAINER_STARTED_EVENT;
    case kStopped: return cri::CONTAINER_STOPPED_EVENT;
    default: return cri::CONTAINER_DELETED_EVENT;
  }
}

/// A container may end without ever having been started.
bool WasStarted(const Record& record) {
  if (record.kind == Kind::kPod) return true;
  cri::ContainerStatus status;
  return status.ParseFromString(record.status) && status.started_at() != 0;
}

/// A pod that went while nobody looked was told of last when it was still ready.
std::string StatusOfGonePod(const Record& pod) {
  cri::PodSandboxStatus status;
  if (!status.ParseFromString(pod.status)) return pod.status;
  status.set_state(cri::SANDBOX_NOTREADY);
  return status.SerializeAsString();
}

int Rank(const Step& step) {
  if (step.record->kind == Kind::kContainer) return 1;
  return step.type == cri::CONTAINER_CREATED_EVENT || step.type == cri::CONTAINER_STARTED_EVENT ? 0
                                                                                                : 2;
}

}  // namespace

std::vector<Step> StepsOf(const RecordPtr& before, const RecordPtr& after) {
  std::vector<Step> steps;
  const int from = StageOf(before.get());
  if (after == nullptr && from == kUnknown) return steps;
  const int to = after == nullptr ? kGone : StageOf(after.get());
  const RecordPtr& record = after == nullptr ? before : after;
  for (int stage = from + 1; stage <= to; ++stage) {
    if (stage == kStarted && to > kStarted && !WasStarted(*record)) continue;
    steps.push_back({EventOf(stage), record});
  }
  return steps;
}

void SortSteps(std::vector<Step>& steps) {
  std::stable_sort(steps.begin(), steps.end(),
                   [](const Step& a, const Step& b) { return Rank(a) < Rank(b); });
}

void EventFanout::Tell(const Step& step, const Record& pod,
                       const std::vector<RecordPtr>& containers) {
  const std::int64_t now = clock_.Wall().time_since_epoch().count();
  last_ = std::max(now, last_ + 1);
  cri::ContainerEventResponse event;
  event.set_container_id(step.record->id);
  event.set_container_event_type(step.type);
  event.set_created_at(last_);
  std::string bytes = event.SerializeAsString();
  const bool pod_goes =
      step.record->kind == Kind::kPod &&
      (step.type == cri::CONTAINER_STOPPED_EVENT || step.type == cri::CONTAINER_DELETED_EVENT);
  AppendField(kPodStatusField, pod_goes ? StatusOfGonePod(pod) : pod.status, bytes);
  for (const RecordPtr& container : containers) {
    AppendField(kContainerStatusesField, container->status, bytes);
  }
  tell_(bytes);
}

}  // namespace crisp::crid
