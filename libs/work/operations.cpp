#include "libs/work/operations.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <unordered_map>
#include <utility>

namespace crisp::work {
namespace {

using std::chrono::nanoseconds;

/// Of one operation: a pull of many layers has some for each.
constexpr std::size_t kMaxStages = 256;
/// Steps that took less are not worth a word, and neither are parts with little weight in theirs.
constexpr std::chrono::milliseconds kWorthAWord{1};
constexpr int kWeight = 10;
/// Of what a step says about itself at its end.
constexpr std::chrono::seconds kLong{1};

pid_t OwnThread() {
  static thread_local const pid_t kId = ::gettid();
  return kId;
}

/// Nobody asks after these: a caller that went, and what was only looked for.
bool IsWorthKeeping(const OperationView& operation) {
  switch (operation.outcome.code()) {
    case Code::kOk:
    case Code::kCancelled:
    case Code::kUnimplemented: return false;
    case Code::kNotFound: return !operation.stages.empty();
    default: return true;
  }
}

std::string ProcessText(const StageView& stage) {
  return stage.process == 0 ? "" : fmt::format(", process {}", stage.process);
}

class TextOfStages {
 public:
  explicit TextOfStages(const std::vector<StageView>& stages) : stages_(stages) {}

  /// The steps that are parts of `parent`, which took `whole`.
  std::string Of(int parent, nanoseconds whole) const {
    std::string text;
    for (std::size_t i = 0; i < stages_.size(); ++i) {
      const StageView& stage = stages_[i];
      if (stage.parent != parent || !HasWeight(stage, whole)) continue;
      if (!text.empty()) text += ", ";
      text += fmt::format("{} {}{}", stage.what, TimeText(stage.took), ProcessText(stage));
      std::string inner = Of(static_cast<int>(i), stage.took);
      if (!stage.how_far.empty()) inner = stage.how_far + (inner.empty() ? "" : "; ") + inner;
      if (!inner.empty()) text += fmt::format(" ({})", inner);
    }
    return text;
  }

 private:
  static bool HasWeight(const StageView& stage, nanoseconds whole) {
    if (stage.under_way) return true;
    return stage.took >= kWorthAWord && (stage.parent < 0 || stage.took * kWeight >= whole);
  }

  const std::vector<StageView>& stages_;
};

}  // namespace

std::string TimeText(nanoseconds time) {
  const double seconds = std::chrono::duration<double>(time).count();
  constexpr double kMinute = 60;
  constexpr double kTwoMinutes = 120;
  if (seconds < 1) return fmt::format("{:.0f} ms", seconds * 1000);
  if (seconds < kTwoMinutes) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<std::int64_t>(seconds);
  return fmt::format("{} min {} s", whole / 60, whole % static_cast<std::int64_t>(kMinute));
}

std::string StagesText(const OperationView& operation) {
  return TextOfStages(operation.stages).Of(-1, operation.took);
}

struct OperationsState {
  mutable std::mutex mutex;
  std::unordered_map<const Operation*, std::weak_ptr<const Operation>> under_way;
  std::list<OperationView> failed;  // the latest first
  Operations::PeerWords peer_words;

  void Keep(OperationView operation) {
    if (!IsWorthKeeping(operation)) return;
    std::lock_guard lock(mutex);
    // Callers try again and again: the same failure is kept once.
    const auto same = std::find_if(failed.begin(), failed.end(), [&](const OperationView& other) {
      return other.kind == operation.kind && other.subjects == operation.subjects &&
             other.outcome.code() == operation.outcome.code();
    });
    if (same != failed.end()) {
      operation.times += same->times;
      failed.erase(same);
    }
    failed.push_front(std::move(operation));
    if (failed.size() > Operations::kKept) failed.pop_back();
  }
};

// --- Operation ---

Operation::Operation(About about, std::shared_ptr<OperationsState> registry)
    : about_(std::move(about)),
      registry_(std::move(registry)),
      started_(Clock::System().Wall()),
      began_(std::chrono::steady_clock::now()),
      queued_(entries_.end()) {}

Operation::~Operation() {
  {
    std::lock_guard lock(registry_->mutex);
    registry_->under_way.erase(this);
  }
  if (!outcome_.ok()) registry_->Keep(View());
}

void Operation::AddSubject(std::string subject) {
  std::lock_guard lock(mutex_);
  more_subjects_.push_back(std::move(subject));
}

void Operation::Queued(std::string_view lane) {
  const Entries::iterator entry =
      Begin({.what = fmt::format("wait for a thread of lane {}", lane)});
  std::lock_guard lock(mutex_);
  queued_ = entry;
}

void Operation::Runs() {
  std::lock_guard lock(mutex_);
  thread_ = OwnThread();
  if (queued_ == entries_.end()) return;
  queued_->ended = std::chrono::steady_clock::now();
  // The usual case, of which nobody wants to hear.
  if (queued_->ended - queued_->began < kWorthAWord) entries_.erase(queued_);
  queued_ = entries_.end();
}

Status Operation::Answer(Status outcome, bool ask_peers) {
  if (outcome.code() == Code::kDeadlineExceeded) {
    const OperationView view = View();
    if (const std::string stages = StagesText(view); !stages.empty()) {
      outcome = Status(outcome.code(),
                       fmt::format("{}; {} took {}: {}{}", outcome.message(), view.kind,
                                   TimeText(view.took), stages, ask_peers ? PeersText() : ""));
    }
  }
  std::lock_guard lock(mutex_);
  outcome_ = outcome;
  return outcome;
}

std::string Operation::PeersText() const {
  Operations::PeerWords words;
  {
    std::lock_guard lock(registry_->mutex);
    words = registry_->peer_words;
  }
  if (!words) return {};
  std::vector<std::string> peers;
  {
    std::lock_guard lock(mutex_);
    for (const Entry& entry : entries_) {
      const bool waits = entry.ended == SteadyTime::max() || &entry == &entries_.back();
      if (waits && !entry.peer.empty()) peers.push_back(entry.peer);
    }
  }
  std::string text;
  for (const std::string& peer : peers) {
    const std::string said = words(peer, about_.request_id);
    if (said.empty()) continue;
    text += fmt::format("; {}: {}", peer, said);
  }
  return text;
}

OperationView Operation::View() const {
  OperationView view{.kind = about_.kind,
                     .subjects = about_.subjects,
                     .request_id = about_.request_id,
                     .started = started_};
  std::vector<std::function<std::string()>> how_far;
  std::vector<std::shared_ptr<const Operation>> joined;
  {
    std::lock_guard lock(mutex_);
    const SteadyTime now = std::chrono::steady_clock::now();
    view.took = now - began_;
    view.thread = thread_;
    view.outcome = outcome_;
    view.subjects.insert(view.subjects.end(), more_subjects_.begin(), more_subjects_.end());
    std::vector<const Entry*> places;
    for (const Entry& entry : entries_) {
      const bool under_way = entry.ended == SteadyTime::max();
      const auto parent = std::find(places.begin(), places.end(), entry.parent);
      view.stages.push_back(
          {.what = entry.what,
           .peer = entry.peer,
           .how_far = entry.was_far,
           .process = entry.process,
           .thread = under_way && entry.held ? entry.thread : 0,
           .parent = parent == places.end() ? -1 : static_cast<int>(parent - places.begin()),
           .began = entry.began - began_,
           .took = (under_way ? now : entry.ended) - entry.began,
           .under_way = under_way});
      places.push_back(&entry);
      how_far.push_back(under_way ? entry.how_far : nullptr);
      joined.push_back(under_way ? entry.joined : nullptr);
    }
  }
  // Without the lock: they have locks of their own.
  for (std::size_t i = 0; i < view.stages.size(); ++i) {
    if (how_far[i]) view.stages[i].how_far = how_far[i]();
    if (joined[i]) view.stages[i].how_far = StagesText(joined[i]->View());
  }
  return view;
}

Operation::Entries::iterator Operation::Begin(Entry entry) {
  entry.thread = OwnThread();
  entry.began = std::chrono::steady_clock::now();
  std::lock_guard lock(mutex_);
  if (entries_.size() >= kMaxStages) Shrink();
  if (const auto around = Innermost(); around != entries_.end()) entry.parent = &*around;
  return entries_.insert(entries_.end(), std::move(entry));
}

void Operation::End(Entries::iterator entry) {
  const SteadyTime now = std::chrono::steady_clock::now();
  std::string was_far;
  if (now - entry->began >= kLong) {
    // Nobody else writes these two, and they are told without the lock.
    if (entry->how_far) was_far = entry->how_far();
    if (entry->joined) was_far = StagesText(entry->joined->View());
  }
  std::function<std::string()> how_far;
  std::shared_ptr<const Operation> joined;
  std::lock_guard lock(mutex_);
  entry->ended = now;
  entry->was_far = std::move(was_far);
  how_far.swap(entry->how_far);
  joined.swap(entry->joined);
}

Operation::Entries::iterator Operation::Innermost() {
  for (auto entry = entries_.end(); entry != entries_.begin();) {
    --entry;
    if (entry->held && entry->thread == OwnThread() && entry->ended == SteadyTime::max()) {
      return entry;
    }
  }
  return entries_.end();
}

void Operation::Shrink() {
  auto shortest = entries_.end();
  for (auto entry = entries_.begin(); entry != entries_.end(); ++entry) {
    if (entry->ended == SteadyTime::max()) continue;
    if (shortest == entries_.end() ||
        entry->ended - entry->began < shortest->ended - shortest->began) {
      shortest = entry;
    }
  }
  if (shortest == entries_.end()) return;
  for (Entry& entry : entries_) {
    if (entry.parent == &*shortest) entry.parent = shortest->parent;
  }
  entries_.erase(shortest);
}

// --- Stage ---

Stage::Stage(const std::shared_ptr<Operation>& operation, Operation::Entry entry)
    : operation_(operation) {
  if (operation_ != nullptr) entry_ = operation_->Begin(std::move(entry));
}

Stage::Stage(const CallContext& cc, std::string what)
    : Stage(cc.operation(), {.what = std::move(what), .held = true}) {}

Stage Stage::OfPeer(const CallContext& cc, std::string what, std::string peer) {
  return {cc.operation(), {.what = std::move(what), .peer = std::move(peer), .held = true}};
}

Stage Stage::Elsewhere(const CallContext& cc, std::string what, std::string peer) {
  return {cc.operation(), {.what = std::move(what), .peer = std::move(peer)}};
}

Stage Stage::OfSameCall(const CallContext& cc, std::shared_ptr<const Operation> same) {
  return {cc.operation(),
          {.what = "wait for the same call, which is under way already",
           .joined = std::move(same),
           .held = true}};
}

Stage::Stage(Stage&& other) noexcept
    : operation_(std::exchange(other.operation_, nullptr)), entry_(other.entry_) {}

Stage::~Stage() {
  if (operation_ != nullptr) operation_->End(entry_);
}

void Stage::HowFar(std::function<std::string()> tell) {
  if (operation_ == nullptr) return;
  std::lock_guard lock(operation_->mutex_);
  entry_->how_far = std::move(tell);
}

ProcessStage::ProcessStage(const CallContext& cc, std::string_view program, pid_t pid)
    : operation_(cc.operation()) {
  if (operation_ == nullptr) return;
  {
    std::lock_guard lock(operation_->mutex_);
    own_ = operation_->entries_.end();
    if (const auto around = operation_->Innermost(); around != operation_->entries_.end()) {
      around->process = pid;
      return;
    }
  }
  own_ = operation_->Begin({.what = fmt::format("run {}", program), .process = pid, .held = true});
}

ProcessStage::~ProcessStage() {
  if (operation_ != nullptr && own_ != operation_->entries_.end()) operation_->End(own_);
}

void AddSubject(const CallContext& cc, const std::string& subject) {
  if (cc.operation() != nullptr) cc.operation()->AddSubject(subject);
}

// --- Operations ---

Operations::Operations() : state_(std::make_shared<OperationsState>()) {}

std::shared_ptr<Operation> Operations::Begin(Operation::About about) {
  // The constructor is nobody else's.
  std::shared_ptr<Operation> operation(new Operation(std::move(about), state_));
  std::lock_guard lock(state_->mutex);
  state_->under_way.emplace(operation.get(), operation);
  return operation;
}

CallContext Operations::Track(const CallContext& cc, Operation::About about) {
  about.request_id = cc.request_id();
  return cc.PartOf(Begin(std::move(about)));
}

std::vector<OperationView> Operations::UnderWay() const {
  // Ours may be the last hold of one: it ends without the lock, which its destructor takes.
  std::vector<std::shared_ptr<const Operation>> operations;
  {
    std::lock_guard lock(state_->mutex);
    for (const auto& [address, operation] : state_->under_way) {
      operations.push_back(operation.lock());
    }
  }
  std::vector<OperationView> views;
  for (const auto& operation : operations) {
    if (operation != nullptr) views.push_back(operation->View());
  }
  std::sort(views.begin(), views.end(), [](const OperationView& one, const OperationView& other) {
    return one.took > other.took;
  });
  return views;
}

std::vector<OperationView> Operations::Failed() const {
  std::lock_guard lock(state_->mutex);
  return {state_->failed.begin(), state_->failed.end()};
}

void Operations::ExplainPeersBy(PeerWords words) {
  std::lock_guard lock(state_->mutex);
  state_->peer_words = std::move(words);
}

}  // namespace crisp::work
