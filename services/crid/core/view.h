#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cri/v1/api.pb.h"
#include "crisp/rund/v1/rund.pb.h"
#include "libs/base/call_context.h"
#include "libs/base/clock.h"
#include "libs/base/result.h"
#include "libs/base/status.h"

namespace crisp::crid {

class EventFanout;

enum class Kind { kPod, kContainer };

/// What the front keeps of a pod or a container: enough to find it, to filter lists by it and to
/// put its list item, as its rund serialised it, into an answer. Immutable.
struct Record {
  Kind kind = Kind::kPod;
  std::string id;
  std::string instance;       // of rund: "1"
  std::string pod_id;         // containers only
  std::string key;            // PodKey or ContainerKey
  bool host_network = false;  // pods only
  bool listed = false;        // half-made objects are invisible
  bool half_made = false;     // pods only: reserved or prepared, and not running yet
  int state = 0;              // PodSandboxState or ContainerState
  std::map<std::string, std::string> labels;
  std::string item;    // one element of the list answer: tag, length, message
  std::string status;  // PodSandboxStatus or ContainerStatus, serialised
};
using RecordPtr = std::shared_ptr<const Record>;

/// What makes a pod unique: namespace, name, uid and attempt.
std::string PodKey(const runtime::v1::PodSandboxMetadata& metadata);
/// What makes a container unique: pod, name and attempt.
std::string ContainerKey(const std::string& pod_id, const runtime::v1::ContainerMetadata& metadata);

/// Which pods and containers exist, as the rund instances tell it in their Watch streams; lists
/// are answered from here without a call. An instance whose stream broke is stale until its next
/// snapshot. Nothing is answered from a part of the instances: who needs all of them waits at most
/// `peer_wait`. After that an instance that is away counts as it was seen last, as long as another
/// one is there (it must not take the node with it); if none is, or one was never seen, the answer
/// is kUnavailable with the name of the one that is away. Any thread.
class View {
 public:
  explicit View(std::chrono::nanoseconds peer_wait) : peer_wait_(peer_wait) {}

  // What the streams tell.
  void Add(const std::string& instance);
  void Apply(const std::string& instance, const rund::v1::WatchEvent& event);
  void Lost(const std::string& instance);
  /// Its socket is gone: forgotten if it has nothing, else it stays (stale: its containers run).
  /// True when forgotten.
  bool Forget(const std::string& instance);
  /// Ends all waits, also those that come later: the daemon stops.
  void Close();

  /// Gets every step that a change makes, under the view's lock; null = nobody. It must outlive the
  /// view, or be taken away first.
  void SetEvents(EventFanout* events);

  // Freshness.
  /// Every known instance is seen as it is now.
  bool Fresh() const;
  /// Until lists can be answered: kUnavailable when they cannot within `peer_wait`.
  Status WaitFresh(const CallContext& cc) const;
  /// Returns when the instance's view shows the change `seq`, at the latest when its stream breaks
  /// (what comes then is newer) or when the call is over.
  void WaitSeq(const CallContext& cc, const std::string& instance, std::uint64_t seq) const;
  /// The same without a thread: `fn` runs once, here or on the stream's thread.
  void WhenSeq(const std::string& instance, std::uint64_t seq, std::function<void()> fn);

  // Finding one. Full ids and unique prefixes. kInvalidArgument: empty, with a slash, ambiguous.
  // kNotFound: unknown, or not listed (unless `hidden`).
  /// Nothing when the answer has to wait for an instance that is away.
  std::optional<Result<RecordPtr>> TryResolve(Kind kind, const std::string& text,
                                              bool hidden = false) const;
  Result<RecordPtr> Resolve(const CallContext& cc, Kind kind, const std::string& text,
                            bool hidden = false) const;
  /// Pods that are half made, of the instances that are there.
  std::vector<RecordPtr> HalfMadePods() const;
  /// By key, listed or not; null without one.
  RecordPtr FindKey(Kind kind, const std::string& key) const;

  // Lists: serialised ListPodSandboxResponse and ListContainersResponse. Null when there is to be
  // waited (WaitFresh).
  std::shared_ptr<const std::string> All(Kind kind) const;
  std::shared_ptr<const std::string> Pods(const runtime::v1::PodSandboxFilter& filter) const;
  std::shared_ptr<const std::string> Containers(const runtime::v1::ContainerFilter& filter) const;

  struct InstanceInfo {
    std::string name;
    bool fresh = false;
    std::size_t pods = 0;
    std::size_t containers = 0;
  };
  std::vector<InstanceInfo> Instances() const;
  /// Ids of all that exists, half-made ones too; nothing unless every instance is fresh.
  std::optional<std::vector<std::string>> LiveIds(Kind kind) const;

  std::chrono::nanoseconds peer_wait() const { return peer_wait_; }

 private:
  struct Instance {
    bool fresh = false;
    bool seen = false;  // has told all it has at least once
    SteadyTime lost;    // when its stream broke last
    std::uint64_t seq = 0;
    std::size_t pods = 0;
    std::size_t containers = 0;
  };
  struct Waiter {
    std::string instance;
    std::uint64_t seq = 0;
    std::function<void()> fn;
  };
  using Table = std::map<std::string, RecordPtr>;

  const Table& table(Kind kind) const { return kind == Kind::kPod ? pods_ : containers_; }
  Table& table(Kind kind) { return kind == Kind::kPod ? pods_ : containers_; }
  static std::size_t& Count(Instance& instance, Kind kind) {
    return kind == Kind::kPod ? instance.pods : instance.containers;
  }
  void Put(RecordPtr record);
  /// What it was, when it is gone now.
  RecordPtr Erase(Kind kind, const std::string& id, const std::string& instance);
  RecordPtr FindLocked(Kind kind, const std::string& id) const;
  /// Objects by kind and id; null for those that are not known.
  using Before = std::map<std::pair<Kind, std::string>, RecordPtr>;
  /// What there was of the objects that the change is about.
  Before ChangeLocked(const std::string& instance, const rund::v1::WatchEvent& event,
                      std::vector<RecordPtr> records);
  void TellLocked(const Before& before, bool newcomers) const;
  bool FreshLocked() const;
  bool AnswersLocked() const;
  std::string AwayLocked() const;
  bool ReachedLocked(const std::string& instance, std::uint64_t seq) const;
  std::vector<std::function<void()>> TakeReachedLocked();
  template <typename Match>
  std::shared_ptr<const std::string> Splice(Kind kind, const std::string& id_prefix,
                                            Match match) const;

  const std::chrono::nanoseconds peer_wait_;
  mutable std::mutex mutex_;
  mutable std::condition_variable_any changed_;
  std::map<std::string, Instance> instances_;
  Table pods_;
  Table containers_;
  std::map<std::string, std::string> pod_keys_;        // key → id
  std::map<std::string, std::string> container_keys_;  // key → id
  mutable std::shared_ptr<const std::string> all_pods_;
  mutable std::shared_ptr<const std::string> all_containers_;
  EventFanout* events_ = nullptr;
  std::vector<Waiter> waiters_;
  bool closed_ = false;
};

}  // namespace crisp::crid
