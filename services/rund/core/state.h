#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "crisp/rund/v1/rund.pb.h"
#include "libs/base/call_context.h"
#include "libs/base/clock.h"
#include "libs/base/ids.h"
#include "libs/base/result.h"
#include "services/rund/store/records.h"

namespace crisp::rund {

using PodRef = std::shared_ptr<const PodRecord>;
using ContainerRef = std::shared_ptr<const ContainerRecord>;
using EventRef = std::shared_ptr<const v1::WatchEvent>;

/// Every pod and container of this instance: the records on disk, the same records in memory, and
/// the stream of their changes. A change is stored first, then visible, then told. Records in
/// memory are immutable: who holds a reference sees that moment. Any thread; reads never wait for
/// the disk, changes are made one at a time.
class State {
 public:
  /// Loads all. `clock` gives timestamps and the first sequence number.
  static Result<std::unique_ptr<State>> Open(Records records, Clock& clock);

  PodRef FindPod(const PodId& id) const;
  ContainerRef FindContainer(const ContainerId& id) const;
  std::vector<PodRef> Pods() const;
  std::vector<ContainerRef> Containers() const;
  std::vector<ContainerRef> ContainersOf(const PodId& pod) const;
  /// A pod (null: there is none) and its containers as they are between two changes, the oldest
  /// first.
  struct PodView {
    PodRef pod;
    std::vector<ContainerRef> containers;
  };
  PodView FindAllOf(const PodId& pod) const;
  /// The number of the last change.
  std::uint64_t seq() const;

  /// What a pod's key stands for: the record that has it, or `fresh`, stored under it, unless
  /// `may_be_new` refuses that. `touched_at` of a pod that is not started is renewed.
  struct ReservedPod {
    PodRef pod;
    std::uint64_t seq;
  };
  Result<ReservedPod> ReservePod(const PodRecord& fresh, const Status& may_be_new = {});
  /// The same in a pod. kNotFound: no such pod; kFailedPrecondition: it takes no new containers.
  struct ReservedContainer {
    ContainerRef container;
    std::uint64_t seq;
  };
  Result<ReservedContainer> ReserveContainer(const ContainerRecord& fresh);

  /// `change` gets a copy of the record and alters it, looking at nothing that blocks. Its failure
  /// is returned and changes nothing. Gives the number of the change. kNotFound: no such record.
  Result<std::uint64_t> ChangePod(const PodId& id, const std::function<Status(PodRecord&)>& change);
  Result<std::uint64_t> ChangeContainer(const ContainerId& id,
                                        const std::function<Status(ContainerRecord&)>& change);
  /// Forgets it. Absent = Ok.
  Result<std::uint64_t> ErasePod(const PodId& id);
  Result<std::uint64_t> EraseContainer(const ContainerId& id);

  /// Wall time in nanoseconds, never the same twice, and after all that a record has.
  std::int64_t NextTimestamp();
  /// `wanted` (a time that somebody else took down), or the nanosecond after `earlier` when it is
  /// not later than that: clocks differ in grain, and can be set back.
  std::int64_t TimestampAfter(std::int64_t earlier, std::int64_t wanted);

  /// `told` gets the id of each container that changed or went, after that can be seen. It may do
  /// memory work only, and call nothing here. One; null = none.
  void OnContainerChange(std::function<void(const std::string&)> told);

  /// `tell` gets each change from now on, in order. Called under a lock: it may only put the event
  /// somewhere. One listener; null = none.
  using Tell = std::function<void(const EventRef&)>;
  void SetListener(Tell tell);
  /// Hands `take` one event with everything in it, as it is between two changes: what the listener
  /// hears next follows on it without a gap. Under the same lock.
  void WithSnapshot(const std::function<void(const EventRef&)>& take) const;

  /// How many records could not be read at the start.
  std::size_t unreadable() const { return unreadable_; }
  Records& records() { return records_; }  // for start-up only

 private:
  State(Records records, Clock& clock) : records_(std::move(records)), clock_(clock) {}
  std::uint64_t Publish(v1::WatchEvent event, const std::function<void()>& apply);
  std::uint64_t ShowPod(const PodRef& pod);
  std::uint64_t ShowContainer(const ContainerRef& container);

  Records records_;  // under write_
  std::size_t unreadable_ = 0;
  Clock& clock_;
  std::mutex write_;  // held over the disk; taken before view_
  std::map<std::string, std::string> pod_keys_, container_keys_;  // key → id; under write_

  mutable std::mutex view_;  // memory only
  std::unordered_map<std::string, PodRef> pods_;
  std::unordered_map<std::string, ContainerRef> containers_;
  Tell listener_;
  std::function<void(const std::string&)> on_container_;  // under write_
  std::uint64_t seq_ = 0;
  std::int64_t last_timestamp_ = 0;
};

}  // namespace crisp::rund
