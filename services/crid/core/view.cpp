#include "services/crid/core/view.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "libs/base/ids.h"
#include "libs/base/try.h"
#include "libs/work/operations.h"
#include "services/crid/core/event_fanout.h"
#include "services/crid/core/framing.h"

namespace crisp::crid {
namespace {

using rund::v1::ContainerEntry;
using rund::v1::PodEntry;

std::string_view Noun(Kind kind) { return kind == Kind::kPod ? "pod" : "container"; }

/// An element of both list answers.
std::string Framed(const std::string& item) {
  std::string out;
  AppendField(1, item, out);
  return out;
}

/// What lists need of a record, from its serialised list item; nothing while it is not listed.
template <typename Item>
void TakeListItem(const std::string& bytes, Record& record) {
  Item item;
  if (bytes.empty() || !item.ParseFromString(bytes)) return;
  record.listed = true;
  record.state = item.state();
  record.labels = {item.labels().begin(), item.labels().end()};
  record.item = Framed(bytes);
}

RecordPtr PodRecord(const std::string& instance, const PodEntry& entry) {
  auto record = std::make_shared<Record>();
  record->kind = Kind::kPod;
  record->id = entry.id();
  record->instance = instance;
  record->key = PodKey(entry.metadata());
  record->host_network = entry.host_network();
  record->half_made = entry.phase() == rund::v1::RESERVED || entry.phase() == rund::v1::PREPARED;
  record->status = entry.status();
  TakeListItem<runtime::v1::PodSandbox>(entry.list_item(), *record);
  return record;
}

RecordPtr ContainerRecord(const std::string& instance, const ContainerEntry& entry) {
  auto record = std::make_shared<Record>();
  record->kind = Kind::kContainer;
  record->id = entry.id();
  record->instance = instance;
  record->pod_id = entry.pod_id();
  record->key = ContainerKey(entry.pod_id(), entry.metadata());
  record->status = entry.status();
  TakeListItem<runtime::v1::Container>(entry.list_item(), *record);
  return record;
}

template <typename Selector>
bool LabelsMatch(const Record& record, const Selector& selector) {
  return std::all_of(selector.begin(), selector.end(), [&record](const auto& wanted) {
    auto found = record.labels.find(wanted.first);
    return found != record.labels.end() && found->second == wanted.second;
  });
}

}  // namespace

std::string PodKey(const runtime::v1::PodSandboxMetadata& metadata) {
  using std::string_view_literals::operator""sv;
  return fmt::format("{}{}{}{}{}{}{}", metadata.namespace_(), "\0"sv, metadata.name(), "\0"sv,
                     metadata.uid(), "\0"sv, metadata.attempt());
}

std::string ContainerKey(const std::string& pod_id,
                         const runtime::v1::ContainerMetadata& metadata) {
  using std::string_view_literals::operator""sv;
  return fmt::format("{}{}{}{}{}", pod_id, "\0"sv, metadata.name(), "\0"sv, metadata.attempt());
}

void View::Add(const std::string& instance) {
  std::lock_guard lock(mutex_);
  instances_.try_emplace(instance);
}

void View::Close() {
  std::vector<std::function<void()>> reached;
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
    reached = TakeReachedLocked();
  }
  changed_.notify_all();
  for (auto& fn : reached) fn();
}

void View::Put(RecordPtr record) {
  Instance& owner = instances_[record->instance];
  auto& keys = record->kind == Kind::kPod ? pod_keys_ : container_keys_;
  RecordPtr& slot = table(record->kind)[record->id];
  const bool moves = slot != nullptr && slot->instance != record->instance;
  if (moves) --Count(instances_[slot->instance], slot->kind);
  if (slot == nullptr || moves) ++Count(owner, record->kind);
  if (slot != nullptr && slot->key != record->key) {
    if (auto key = keys.find(slot->key); key != keys.end() && key->second == slot->id) {
      keys.erase(key);
    }
  }
  keys[record->key] = record->id;
  slot = std::move(record);
}

RecordPtr View::FindLocked(Kind kind, const std::string& id) const {
  const auto found = table(kind).find(id);
  return found == table(kind).end() ? nullptr : found->second;
}

RecordPtr View::Erase(Kind kind, const std::string& id, const std::string& instance) {
  auto found = table(kind).find(id);
  if (found == table(kind).end() || found->second->instance != instance) return nullptr;
  auto& keys = kind == Kind::kPod ? pod_keys_ : container_keys_;
  if (auto key = keys.find(found->second->key); key != keys.end() && key->second == id) {
    keys.erase(key);
  }
  --Count(instances_[instance], kind);
  RecordPtr gone = std::move(found->second);
  table(kind).erase(found);
  return gone;
}

void View::SetEvents(EventFanout* events) {
  std::lock_guard lock(mutex_);
  events_ = events;
}

/// `newcomers`: whether what was not known before has come into being just now.
void View::TellLocked(const Before& before, bool newcomers) const {
  std::vector<Step> steps;
  std::map<std::string, RecordPtr> gone_pods;
  for (const auto& [key, was] : before) {
    if (was == nullptr && !newcomers) continue;
    const RecordPtr is = FindLocked(key.first, key.second);
    if (is == nullptr && key.first == Kind::kPod) gone_pods[key.second] = was;
    for (Step& step : StepsOf(was, is)) steps.push_back(std::move(step));
  }
  SortSteps(steps);
  for (const Step& step : steps) {
    const bool is_pod = step.record->kind == Kind::kPod;
    const std::string& pod_id = is_pod ? step.record->id : step.record->pod_id;
    RecordPtr pod = is_pod ? step.record : FindLocked(Kind::kPod, pod_id);
    if (pod == nullptr) pod = gone_pods[pod_id];
    if (pod == nullptr) continue;
    std::vector<RecordPtr> containers;
    for (const auto& [id, container] : containers_) {
      if (container->pod_id == pod_id && container->listed) containers.push_back(container);
    }
    events_->Tell(step, *pod, containers);
  }
}

View::Before View::ChangeLocked(const std::string& instance, const rund::v1::WatchEvent& event,
                                std::vector<RecordPtr> records) {
  Before before;
  const auto erase = [&](Kind kind, const std::string& id) {
    if (RecordPtr gone = Erase(kind, id, instance)) before[{kind, id}] = std::move(gone);
  };
  if (event.snapshot()) {
    for (Kind kind : {Kind::kPod, Kind::kContainer}) {
      std::vector<std::string> gone;
      for (const auto& [id, record] : table(kind)) {
        if (record->instance == instance) gone.push_back(id);
      }
      for (const std::string& id : gone) erase(kind, id);
    }
  }
  for (RecordPtr& record : records) {
    before.try_emplace({record->kind, record->id}, FindLocked(record->kind, record->id));
    Put(std::move(record));
  }
  for (const std::string& id : event.removed_pod_ids()) erase(Kind::kPod, id);
  for (const std::string& id : event.removed_container_ids()) erase(Kind::kContainer, id);
  return before;
}

void View::Apply(const std::string& instance, const rund::v1::WatchEvent& event) {
  // Parsing happens outside of the lock.
  std::vector<RecordPtr> records;
  records.reserve(static_cast<std::size_t>(event.pods_size() + event.containers_size()));
  for (const PodEntry& entry : event.pods()) records.push_back(PodRecord(instance, entry));
  for (const ContainerEntry& entry : event.containers()) {
    records.push_back(ContainerRecord(instance, entry));
  }
  std::vector<std::function<void()>> reached;
  {
    std::lock_guard lock(mutex_);
    Instance& owner = instances_[instance];
    // What a snapshot has told already.
    if (!event.snapshot() && event.seq() <= owner.seq) return;
    const Before before = ChangeLocked(instance, event, std::move(records));
    if (event.snapshot()) {
      owner.fresh = true;
      owner.seq = 0;
      all_pods_ = nullptr;
      all_containers_ = nullptr;
    }
    if (event.pods_size() + event.removed_pod_ids_size() > 0) all_pods_ = nullptr;
    if (event.containers_size() + event.removed_container_ids_size() > 0) all_containers_ = nullptr;
    owner.seq = std::max(owner.seq, event.seq());
    // What an instance has when we meet it first may be old: it is no news.
    const bool newcomers = std::exchange(owner.seen, true);
    if (events_ != nullptr && events_->wanted()) TellLocked(before, newcomers);
    reached = TakeReachedLocked();
  }
  changed_.notify_all();
  for (auto& fn : reached) fn();
}

void View::Lost(const std::string& instance) {
  std::vector<std::function<void()>> reached;
  {
    std::lock_guard lock(mutex_);
    auto found = instances_.find(instance);
    if (found == instances_.end()) return;
    if (std::exchange(found->second.fresh, false)) {
      found->second.lost = std::chrono::steady_clock::now();
    }
    reached = TakeReachedLocked();
  }
  changed_.notify_all();
  for (auto& fn : reached) fn();
}

bool View::Forget(const std::string& instance) {
  std::vector<std::function<void()>> reached;
  {
    std::lock_guard lock(mutex_);
    auto found = instances_.find(instance);
    if (found == instances_.end()) return true;
    if (found->second.pods + found->second.containers > 0) return false;
    instances_.erase(found);
    reached = TakeReachedLocked();
  }
  changed_.notify_all();
  for (auto& fn : reached) fn();
  return true;
}

bool View::FreshLocked() const {
  return !instances_.empty() && std::all_of(instances_.begin(), instances_.end(),
                                            [](const auto& one) { return one.second.fresh; });
}

bool View::AnswersLocked() const {
  const auto patience = std::chrono::steady_clock::now() - peer_wait_;
  bool any = false;
  for (const auto& [name, one] : instances_) {
    if (!one.fresh && (!one.seen || one.lost > patience)) return false;
    any = any || one.fresh;
  }
  return any;
}

std::string View::AwayLocked() const {
  for (const auto& [name, instance] : instances_) {
    if (!instance.fresh) return fmt::format("rund/{} is away", name);
  }
  return "rund/1 is not running";
}

bool View::Fresh() const {
  std::lock_guard lock(mutex_);
  return FreshLocked();
}

Status View::WaitFresh(const CallContext& cc) const {
  const CallContext within = cc.Within(peer_wait_);
  std::unique_lock lock(mutex_);
  if (AnswersLocked()) return Status::Ok();
  const work::Stage stage(cc, fmt::format("wait: {}", AwayLocked()));
  changed_.wait_until(lock, cc.stop(), within.deadline(),
                      [this] { return closed_ || AnswersLocked(); });
  if (AnswersLocked()) return Status::Ok();
  if (cc.stop().stop_requested()) return cc.Check();
  return Unavailable("{}", AwayLocked());
}

bool View::ReachedLocked(const std::string& instance, std::uint64_t seq) const {
  auto found = instances_.find(instance);
  return closed_ || found == instances_.end() || !found->second.fresh || found->second.seq >= seq;
}

std::vector<std::function<void()>> View::TakeReachedLocked() {
  std::vector<std::function<void()>> reached;
  std::erase_if(waiters_, [this, &reached](Waiter& waiter) {
    if (!ReachedLocked(waiter.instance, waiter.seq)) return false;
    reached.push_back(std::move(waiter.fn));
    return true;
  });
  return reached;
}

void View::WaitSeq(const CallContext& cc, const std::string& instance, std::uint64_t seq) const {
  const CallContext within = cc.Within(peer_wait_);
  std::unique_lock lock(mutex_);
  if (ReachedLocked(instance, seq)) return;
  const work::Stage stage(cc, fmt::format("wait for the news of rund/{}", instance));
  changed_.wait_until(lock, cc.stop(), within.deadline(),
                      [this, &instance, seq] { return ReachedLocked(instance, seq); });
}

void View::WhenSeq(const std::string& instance, std::uint64_t seq, std::function<void()> fn) {
  {
    std::lock_guard lock(mutex_);
    if (!ReachedLocked(instance, seq)) {
      waiters_.push_back({instance, seq, std::move(fn)});
      return;
    }
  }
  fn();
}

std::optional<Result<RecordPtr>> View::TryResolve(Kind kind, const std::string& text,
                                                  bool hidden) const {
  if (text.empty()) return Result<RecordPtr>(InvalidArgument("the {} id is empty", Noun(kind)));
  if (text.find('/') != std::string::npos) {
    return Result<RecordPtr>(InvalidArgument("'{}' is no {} id", text.substr(0, 80), Noun(kind)));
  }
  std::lock_guard lock(mutex_);
  const Table& records = table(kind);
  if (!IsIdOrPrefix(text)) {
    if (!AnswersLocked()) return std::nullopt;
    return Result<RecordPtr>(NotFound("no {} with id '{}'", Noun(kind), text.substr(0, 80)));
  }
  if (auto exact = records.find(text);
      exact != records.end() && (hidden || exact->second->listed)) {
    return Result<RecordPtr>(exact->second);
  }
  if (!AnswersLocked()) return std::nullopt;
  RecordPtr match;
  for (auto at = records.lower_bound(text);
       at != records.end() && at->first.compare(0, text.size(), text) == 0; ++at) {
    if (!hidden && !at->second->listed) continue;
    if (match != nullptr) {
      return Result<RecordPtr>(InvalidArgument("the {} id '{}' is ambiguous: {} and {} begin so",
                                               Noun(kind), text, match->id.substr(0, 20),
                                               at->first.substr(0, 20)));
    }
    match = at->second;
  }
  if (match != nullptr) return Result<RecordPtr>(match);
  return Result<RecordPtr>(NotFound("no {} with id '{}'", Noun(kind), text));
}

Result<RecordPtr> View::Resolve(const CallContext& cc, Kind kind, const std::string& text,
                                bool hidden) const {
  const CallContext within = cc.Within(peer_wait_);
  for (;;) {
    if (auto found = TryResolve(kind, text, hidden)) return *std::move(found);
    CRISP_TRY(WaitFresh(within));
  }
}

std::vector<RecordPtr> View::HalfMadePods() const {
  std::lock_guard lock(mutex_);
  std::vector<RecordPtr> half_made;
  for (const auto& [id, pod] : pods_) {
    const auto instance = instances_.find(pod->instance);
    const bool there = instance != instances_.end() && instance->second.fresh;
    if (pod->half_made && there) half_made.push_back(pod);
  }
  return half_made;
}

RecordPtr View::FindKey(Kind kind, const std::string& key) const {
  std::lock_guard lock(mutex_);
  const auto& keys = kind == Kind::kPod ? pod_keys_ : container_keys_;
  auto id = keys.find(key);
  if (id == keys.end()) return nullptr;
  auto found = table(kind).find(id->second);
  return found == table(kind).end() ? nullptr : found->second;
}

template <typename Match>
std::shared_ptr<const std::string> View::Splice(Kind kind, const std::string& id_prefix,
                                                Match match) const {
  auto out = std::make_shared<std::string>();
  const Table& records = table(kind);
  for (auto at = records.lower_bound(id_prefix);
       at != records.end() && at->first.compare(0, id_prefix.size(), id_prefix) == 0; ++at) {
    if (at->second->listed && match(*at->second)) out->append(at->second->item);
  }
  return out;
}

std::shared_ptr<const std::string> View::All(Kind kind) const {
  std::lock_guard lock(mutex_);
  if (!AnswersLocked()) return nullptr;
  auto& cached = kind == Kind::kPod ? all_pods_ : all_containers_;
  if (cached == nullptr) cached = Splice(kind, "", [](const Record&) { return true; });
  return cached;
}

std::shared_ptr<const std::string> View::Pods(const runtime::v1::PodSandboxFilter& filter) const {
  std::lock_guard lock(mutex_);
  if (!AnswersLocked()) return nullptr;
  return Splice(Kind::kPod, filter.id(), [&filter](const Record& record) {
    return (!filter.has_state() || record.state == filter.state().state()) &&
           LabelsMatch(record, filter.label_selector());
  });
}

std::shared_ptr<const std::string> View::Containers(
    const runtime::v1::ContainerFilter& filter) const {
  std::lock_guard lock(mutex_);
  if (!AnswersLocked()) return nullptr;
  const std::string& pod = filter.pod_sandbox_id();
  return Splice(Kind::kContainer, filter.id(), [&filter, &pod](const Record& record) {
    return (!filter.has_state() || record.state == filter.state().state()) &&
           record.pod_id.compare(0, pod.size(), pod) == 0 &&
           LabelsMatch(record, filter.label_selector());
  });
}

std::vector<View::InstanceInfo> View::Instances() const {
  std::lock_guard lock(mutex_);
  std::vector<InstanceInfo> out;
  for (const auto& [name, one] : instances_) {
    out.push_back({name, one.fresh, one.pods, one.containers});
  }
  return out;
}

std::optional<std::vector<std::string>> View::LiveIds(Kind kind) const {
  std::lock_guard lock(mutex_);
  if (!FreshLocked()) return std::nullopt;
  std::vector<std::string> ids;
  for (const auto& [id, record] : table(kind)) ids.push_back(id);
  return ids;
}

}  // namespace crisp::crid
