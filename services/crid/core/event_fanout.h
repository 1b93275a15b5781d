#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "cri/v1/api.pb.h"
#include "libs/base/clock.h"
#include "services/crid/core/view.h"

namespace crisp::crid {

/// A step in the life of a pod or a container, as GetContainerEvents tells it.
struct Step {
  runtime::v1::ContainerEventType type = runtime::v1::CONTAINER_CREATED_EVENT;
  RecordPtr record;  // as it is now; of what is gone: as it was last
};

/// The steps that lead from `before` (null: not known) to `after` (null: gone), each of them once,
/// also those that nobody saw one by one because a rund was away meanwhile. Nothing for a change
/// that makes no step.
std::vector<Step> StepsOf(const RecordPtr& before, const RecordPtr& after);

/// Brings steps of several objects at once into an order: pods come up before their containers, and
/// go down after them.
void SortSteps(std::vector<Step>& steps);

/// Makes the events of GetContainerEvents from the steps that the view sees. As the view only ever
/// goes forward, each step is told once, whichever runds restart meanwhile; a step and the statuses
/// with it belong to the same state of the view. The view calls Tell, in order, under its lock.
class EventFanout {
 public:
  /// `wanted`: whether anybody listens; `tell` gets a serialised ContainerEventResponse. Both may
  /// only put or look something up.
  EventFanout(Clock& clock, std::function<bool()> wanted,
              std::function<void(const std::string&)> tell)
      : clock_(clock), wanted_(std::move(wanted)), tell_(std::move(tell)) {}

  bool wanted() const { return wanted_(); }
  /// `pod`: of the step, never null; `containers`: all that the pod has now.
  void Tell(const Step& step, const Record& pod, const std::vector<RecordPtr>& containers);

 private:
  Clock& clock_;
  const std::function<bool()> wanted_;
  const std::function<void(const std::string&)> tell_;
  std::int64_t last_ = 0;  // Unix nanoseconds of the last event: the next one's are more
};

}  // namespace crisp::crid
