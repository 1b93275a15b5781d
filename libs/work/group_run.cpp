#include "libs/work/group_run.h"

#include "libs/work/operations.h"
#include "libs/work/wait.h"

namespace crisp::work {

Status GroupRun::Run(const CallContext& cc) {
  std::unique_lock lock(mutex_);
  const std::shared_ptr<Round> mine = next_;
  const Stage stage(cc, what_);
  WaitUnlessOver(cc, lock, changed_, [this, &mine] { return mine->done || !running_; });
  if (mine->done) return mine->outcome;
  if (running_) {
    if (Status over = cc.Check(); !over.ok()) return over;
    return DeadlineExceeded("the deadline of the call has passed");
  }
  running_ = true;
  next_ = std::make_shared<Round>();
  lock.unlock();
  Status outcome = action_();
  lock.lock();
  running_ = false;
  mine->outcome = outcome;
  mine->done = true;
  changed_.notify_all();
  return outcome;
}

}  // namespace crisp::work
