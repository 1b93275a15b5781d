#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/clock.h"
#include "libs/base/status.h"

// What a daemon is doing now, step by step, and what has failed: for `crispctl why`, and for the
// error of a call whose deadline has passed. It costs a short lock at the begin and the end of each
// step; all else is done when somebody asks.
namespace crisp::work {

/// One step of an operation as it was when somebody asked.
struct StageView {
  std::string what = {};             // "plugin bridge: ADD"
  std::string peer = {};             // the daemon that it waits for: "netd/1"
  std::string how_far = {};          // "12 kB of 3.4 MB, 400 B/s"; empty where nobody counts
  pid_t process = 0;                 // the program that it waits (or has waited) for
  pid_t thread = 0;                  // of ours that does it; 0: none is held
  int parent = -1;                   // the step that it is a part of, by its place in the list
  std::chrono::nanoseconds began{};  // after the operation's
  std::chrono::nanoseconds took{};   // until now, as long as it is under way
  bool under_way = false;
};

struct OperationView {
  std::string kind = {};
  std::vector<std::string> subjects = {};
  std::string request_id = {};
  WallTime started = {};
  std::chrono::nanoseconds took{};
  pid_t thread = 0;  // that runs it; 0: none (yet)
  std::vector<StageView> stages = {};
  Status outcome = {};  // what its caller has been told; Ok: nothing, so far
  int times = 1;        // that this has failed in a row
};

/// "ReservePod of rund/1 3 ms, Attach of netd/1 239.9 s (plugin bridge: ADD 239.8 s, process 12)":
/// where the time went. Steps without weight are left out.
std::string StagesText(const OperationView& operation);
/// "3 ms", "1.2 s", "4 min 5 s".
std::string TimeText(std::chrono::nanoseconds time);

class Operations;
struct OperationsState;

/// One thing that a daemon does for somebody: a call, or work of its own. It is under way for as
/// long as anybody holds it: CallContext carries it to all who work for it, on any thread.
class Operation {
 public:
  struct About {
    std::string kind = {};  // "RunPodSandbox"
    /// Whom it is about: ids and names of pods and containers ("default/web"), images.
    std::vector<std::string> subjects = {};
    std::string request_id = {};
  };

  Operation(const Operation&) = delete;
  Operation& operator=(const Operation&) = delete;
  ~Operation();

  /// Learnt on the way.
  void AddSubject(std::string subject);
  /// It waits for a thread of the lane from now on, until Runs().
  void Queued(std::string_view lane);
  /// The calling thread works for it from now on.
  void Runs();
  /// Keeps `outcome` for those who ask, and gives it back: a kDeadlineExceeded with where the time
  /// went. `ask_peers`: those that it waits for are asked too (Operations::ExplainPeersBy), which
  /// blocks for a moment.
  Status Answer(Status outcome, bool ask_peers = false);

  OperationView View() const;

 private:
  friend class Operations;
  friend class Stage;
  friend class ProcessStage;

  struct Entry {
    std::string what = {};
    std::string peer = {};
    std::function<std::string()> how_far = nullptr;
    std::string was_far = {};  // what `how_far` said at the end
    std::shared_ptr<const Operation> joined = nullptr;
    pid_t process = 0;
    pid_t thread = 0;   // that began it: what it begins meanwhile is a part of this
    bool held = false;  // the thread stays with it
    const Entry* parent = nullptr;
    SteadyTime began = {};
    SteadyTime ended = SteadyTime::max();
  };
  using Entries = std::list<Entry>;

  Operation(About about, std::shared_ptr<OperationsState> registry);
  Entries::iterator Begin(Entry entry);
  void End(Entries::iterator entry);
  /// The calling thread's step that it is in the middle of; end() when there is none. The caller
  /// holds the mutex.
  Entries::iterator Innermost();
  /// Makes room by giving up a short step that is over. The caller holds the mutex.
  void Shrink();
  std::string PeersText() const;

  const About about_;
  const std::shared_ptr<OperationsState> registry_;
  const WallTime started_;
  const SteadyTime began_;
  mutable std::mutex mutex_;  // of what follows
  std::vector<std::string> more_subjects_;
  Entries entries_;
  Entries::iterator queued_;
  pid_t thread_ = 0;
  Status outcome_;
};

/// A step of the operation that a call is part of, from here to the end of the block. Of no
/// operation it does nothing. Steps that a thread begins in the middle of another one are parts of
/// that. May be handed to another thread, which then ends it.
class [[nodiscard]] Stage {
 public:
  Stage(const CallContext& cc, std::string what);
  /// Waits for another daemon.
  static Stage OfPeer(const CallContext& cc, std::string what, std::string peer);
  /// Is under way elsewhere, at `peer` if that is another daemon: no thread of ours is with it.
  static Stage Elsewhere(const CallContext& cc, std::string what, std::string peer = {});
  /// Waits for an equal call; null is allowed.
  static Stage OfSameCall(const CallContext& cc, std::shared_ptr<const Operation> same);

  Stage(Stage&& other) noexcept;
  Stage& operator=(Stage&&) = delete;
  ~Stage();

  /// `tell` says how far it is: called by whoever asks, on any thread, also a moment after the end.
  /// Memory work only.
  void HowFar(std::function<std::string()> tell);

 private:
  Stage(const std::shared_ptr<Operation>& operation, Operation::Entry entry);

  std::shared_ptr<Operation> operation_;  // null: of none
  Operation::Entries::iterator entry_;
};

/// The program that the calling thread waits for in the step that it is in; where it is in none, a
/// step "run <program>".
class [[nodiscard]] ProcessStage {
 public:
  ProcessStage(const CallContext& cc, std::string_view program, pid_t pid);
  ProcessStage(const ProcessStage&) = delete;
  ProcessStage& operator=(const ProcessStage&) = delete;
  ~ProcessStage();

 private:
  std::shared_ptr<Operation> operation_;
  Operation::Entries::iterator own_;
};

/// For what is learnt in the middle of a call; of no operation it does nothing.
void AddSubject(const CallContext& cc, const std::string& subject);

/// All operations of a daemon that are under way, and the last that have failed. Any thread.
class Operations {
 public:
  /// Failures that are kept.
  static constexpr std::size_t kKept = 64;

  Operations();

  std::shared_ptr<Operation> Begin(Operation::About about);
  /// The call as an operation of its own, with the call's request id in place of `about`'s.
  CallContext Track(const CallContext& cc, Operation::About about);

  /// The oldest first.
  std::vector<OperationView> UnderWay() const;
  /// The latest first. Not those that were cancelled, and nothing that was merely not there.
  std::vector<OperationView> Failed() const;

  /// What another daemon says of the part of a request that it has: for answers about deadlines.
  /// "" when it says nothing. Null: nobody is asked.
  using PeerWords = std::function<std::string(const std::string& peer, const std::string& request)>;
  void ExplainPeersBy(PeerWords words);

 private:
  std::shared_ptr<OperationsState> state_;
};

}  // namespace crisp::work
