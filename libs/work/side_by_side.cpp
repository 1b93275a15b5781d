#include "libs/work/side_by_side.h"

#include <condition_variable>
#include <memory>
#include <mutex>
#include <utility>

#include "libs/work/tell_exceptions.h"

namespace crisp::work {
namespace {

/// Kept by each thread that may come, also by one that comes when all is over.
class Batch {
 public:
  Batch(CallContext cc, std::vector<std::function<Status()>> tasks)
      : cc_(std::move(cc)), tasks_(std::move(tasks)), outcomes_(tasks_.size()) {}

  /// Takes one after the other until none is left that has not begun.
  void Work() {
    std::unique_lock lock(mutex_);
    while (begun_ < tasks_.size()) {
      const std::size_t index = begun_++;
      lock.unlock();
      Status outcome = cc_.Check();
      if (outcome.ok()) outcome = TellExceptions(tasks_[index]);
      lock.lock();
      outcomes_[index] = std::move(outcome);
      ++ended_;
    }
    changed_.notify_all();
  }

  Status Wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return ended_ == tasks_.size(); });
    for (const Status& outcome : outcomes_) {
      if (!outcome.ok()) return outcome;
    }
    return Status::Ok();
  }

 private:
  const CallContext cc_;
  const std::vector<std::function<Status()>> tasks_;
  std::mutex mutex_;  // of what follows
  std::condition_variable changed_;
  std::vector<Status> outcomes_;
  std::size_t begun_ = 0;
  std::size_t ended_ = 0;
};

}  // namespace

Status SideBySide(Pool& pool, Lane lane, const CallContext& cc,
                  std::vector<std::function<Status()>> tasks) {
  const std::size_t count = tasks.size();
  const auto batch = std::make_shared<Batch>(cc, std::move(tasks));
  for (std::size_t i = 1; i < count; ++i) {
    if (!pool.Submit(lane, cc, [batch] { batch->Work(); }).ok()) break;
  }
  batch->Work();
  return batch->Wait();
}

}  // namespace crisp::work
