#include "services/rund/core/state.h"

#include <algorithm>

#include "libs/base/try.h"
#include "libs/log/log.h"
#include "services/rund/core/status.h"

namespace crisp::rund {

Result<std::unique_ptr<State>> State::Open(Records records, Clock& clock) {
  std::unique_ptr<State> state(new State(std::move(records), clock));
  Records::All all = CRISP_TRY(state->records_.Load());
  for (const std::string& id : all.unreadable) {
    log::Error("a record cannot be read; what it was of is taken down", {{"id", id}});
  }
  state->unreadable_ = all.unreadable.size();
  for (PodRecord& pod : all.pods) {
    state->last_timestamp_ = std::max(state->last_timestamp_, pod.created_at());
    state->pod_keys_.emplace(KeyOf(pod), pod.id());
    const std::string id = pod.id();
    state->pods_.emplace(id, std::make_shared<const PodRecord>(std::move(pod)));
  }
  for (ContainerRecord& container : all.containers) {
    state->last_timestamp_ = std::max({state->last_timestamp_, container.created_at(),
                                       container.started_at(), container.finished_at()});
    state->container_keys_.emplace(KeyOf(container), container.id());
    const std::string id = container.id();
    state->containers_.emplace(id, std::make_shared<const ContainerRecord>(std::move(container)));
  }
  // Changes are far rarer than nanoseconds pass, so this run starts above all numbers of the last.
  state->seq_ = static_cast<std::uint64_t>(clock.Wall().time_since_epoch().count());
  return state;
}

PodRef State::FindPod(const PodId& id) const {
  const std::lock_guard lock(view_);
  const auto found = pods_.find(id.str());
  return found == pods_.end() ? nullptr : found->second;
}

ContainerRef State::FindContainer(const ContainerId& id) const {
  const std::lock_guard lock(view_);
  const auto found = containers_.find(id.str());
  return found == containers_.end() ? nullptr : found->second;
}

std::vector<PodRef> State::Pods() const {
  const std::lock_guard lock(view_);
  std::vector<PodRef> out;
  out.reserve(pods_.size());
  for (const auto& [id, pod] : pods_) out.push_back(pod);
  return out;
}

std::vector<ContainerRef> State::Containers() const {
  const std::lock_guard lock(view_);
  std::vector<ContainerRef> out;
  out.reserve(containers_.size());
  for (const auto& [id, container] : containers_) out.push_back(container);
  return out;
}

std::vector<ContainerRef> State::ContainersOf(const PodId& pod) const {
  const std::lock_guard lock(view_);
  std::vector<ContainerRef> out;
  for (const auto& [id, container] : containers_) {
    if (container->pod_id() == pod.str()) out.push_back(container);
  }
  return out;
}

State::PodView State::FindAllOf(const PodId& pod) const {
  PodView view;
  {
    const std::lock_guard lock(view_);
    if (const auto found = pods_.find(pod.str()); found != pods_.end()) view.pod = found->second;
    for (const auto& [id, container] : containers_) {
      if (container->pod_id() == pod.str()) view.containers.push_back(container);
    }
  }
  std::sort(view.containers.begin(), view.containers.end(),
            [](const ContainerRef& a, const ContainerRef& b) {
              return a->created_at() < b->created_at();
            });
  return view;
}

std::uint64_t State::seq() const {
  const std::lock_guard lock(view_);
  return seq_;
}

Result<State::ReservedPod> State::ReservePod(const PodRecord& fresh, const Status& may_be_new) {
  const std::lock_guard writing(write_);
  const std::string key = KeyOf(fresh);
  const auto known = pod_keys_.find(key);
  if (known == pod_keys_.end()) {
    CRISP_TRY(may_be_new);
    if (FindPod(PodId(fresh.id()))) {
      return AlreadyExists("the id {} belongs to another pod", fresh.id());
    }
    auto pod = std::make_shared<PodRecord>(fresh);
    CRISP_TRY(records_.Put(*pod));
    pod_keys_.emplace(key, pod->id());
    return ReservedPod{pod, ShowPod(pod)};
  }
  PodRef pod = FindPod(PodId(known->second));
  if (pod->phase() == v1::RESERVED || pod->phase() == v1::PREPARED) {
    // In memory only: it merely keeps the sweep of abandoned reservations away a little longer.
    auto touched = std::make_shared<PodRecord>(*pod);
    touched->set_touched_at(fresh.touched_at());
    const std::lock_guard lock(view_);
    pods_[touched->id()] = touched;
    pod = touched;
  }
  return ReservedPod{pod, seq()};
}

Result<State::ReservedContainer> State::ReserveContainer(const ContainerRecord& fresh) {
  const std::lock_guard writing(write_);
  const std::string key = KeyOf(fresh);
  const auto known = container_keys_.find(key);
  if (known != container_keys_.end()) {
    ContainerRef container = FindContainer(ContainerId(known->second));
    if (container->phase() == v1::RESERVED) {
      auto touched = std::make_shared<ContainerRecord>(*container);
      touched->set_touched_at(fresh.touched_at());
      const std::lock_guard lock(view_);
      containers_[touched->id()] = touched;
      container = touched;
    }
    return ReservedContainer{container, seq()};
  }
  const PodRef pod = FindPod(PodId(fresh.pod_id()));
  CRISP_TRY(CheckTakesContainers(pod.get(), fresh.pod_id()));
  if (FindContainer(ContainerId(fresh.id()))) {
    return AlreadyExists("the id {} belongs to another container", fresh.id());
  }
  auto container = std::make_shared<ContainerRecord>(fresh);
  CRISP_TRY(records_.Put(*container));
  container_keys_.emplace(key, container->id());
  return ReservedContainer{container, ShowContainer(container)};
}

Result<std::uint64_t> State::ChangePod(const PodId& id,
                                       const std::function<Status(PodRecord&)>& change) {
  const std::lock_guard writing(write_);
  const PodRef now = FindPod(id);
  if (!now) return NotFound("no pod {}", id);
  auto next = std::make_shared<PodRecord>(*now);
  CRISP_TRY(change(*next));
  CRISP_TRY(records_.Put(*next));
  return ShowPod(next);
}

Result<std::uint64_t> State::ChangeContainer(
    const ContainerId& id, const std::function<Status(ContainerRecord&)>& change) {
  const std::lock_guard writing(write_);
  const ContainerRef now = FindContainer(id);
  if (!now) return NotFound("no container {}", id);
  auto next = std::make_shared<ContainerRecord>(*now);
  CRISP_TRY(change(*next));
  CRISP_TRY(records_.Put(*next));
  return ShowContainer(next);
}

Result<std::uint64_t> State::ErasePod(const PodId& id) {
  const std::lock_guard writing(write_);
  const PodRef pod = FindPod(id);
  if (!pod) return seq();
  CRISP_TRY(records_.ErasePod(id.str()));
  pod_keys_.erase(KeyOf(*pod));
  v1::WatchEvent event;
  event.add_removed_pod_ids(id.str());
  return Publish(std::move(event), [&] { pods_.erase(id.str()); });
}

Result<std::uint64_t> State::EraseContainer(const ContainerId& id) {
  const std::lock_guard writing(write_);
  const ContainerRef container = FindContainer(id);
  if (!container) return seq();
  CRISP_TRY(records_.EraseContainer(id.str()));
  container_keys_.erase(KeyOf(*container));
  v1::WatchEvent event;
  event.add_removed_container_ids(id.str());
  const std::uint64_t gone = Publish(std::move(event), [&] { containers_.erase(id.str()); });
  if (on_container_) on_container_(id.str());
  return gone;
}

std::uint64_t State::ShowPod(const PodRef& pod) {
  v1::WatchEvent event;
  *event.add_pods() = EntryOf(*pod);
  return Publish(std::move(event), [&] { pods_[pod->id()] = pod; });
}

std::uint64_t State::ShowContainer(const ContainerRef& container) {
  v1::WatchEvent event;
  *event.add_containers() = EntryOf(*container);
  const std::uint64_t shown =
      Publish(std::move(event), [&] { containers_[container->id()] = container; });
  if (on_container_) on_container_(container->id());
  return shown;
}

std::uint64_t State::Publish(v1::WatchEvent event, const std::function<void()>& apply) {
  auto shared = std::make_shared<v1::WatchEvent>(std::move(event));
  std::uint64_t seq = 0;
  {
    const std::lock_guard lock(view_);
    apply();
    seq = ++seq_;
    shared->set_seq(seq);
    if (listener_) listener_(shared);
  }
  return seq;
}

std::int64_t State::NextTimestamp() {
  const std::int64_t wall = clock_.Wall().time_since_epoch().count();
  const std::lock_guard lock(view_);
  last_timestamp_ = std::max(wall, last_timestamp_ + 1);
  return last_timestamp_;
}

std::int64_t State::TimestampAfter(std::int64_t earlier, std::int64_t wanted) {
  const std::lock_guard lock(view_);
  const std::int64_t timestamp = std::max(wanted, earlier + 1);
  last_timestamp_ = std::max(last_timestamp_, timestamp);
  return timestamp;
}

void State::OnContainerChange(std::function<void(const std::string&)> told) {
  const std::lock_guard writing(write_);
  on_container_ = std::move(told);
}

void State::SetListener(Tell tell) {
  const std::lock_guard lock(view_);
  listener_ = std::move(tell);
}

void State::WithSnapshot(const std::function<void(const EventRef&)>& take) const {
  const std::lock_guard lock(view_);
  auto event = std::make_shared<v1::WatchEvent>();
  event->set_seq(seq_);
  event->set_snapshot(true);
  for (const auto& [id, pod] : pods_) *event->add_pods() = EntryOf(*pod);
  for (const auto& [id, container] : containers_) *event->add_containers() = EntryOf(*container);
  take(event);
}

}  // namespace crisp::rund
