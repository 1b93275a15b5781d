#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "libs/base/call_context.h"
#include "libs/base/status.h"

namespace crisp::work {

/// One action for many, such as the sync of a file that all have written to: a call returns after a
/// run of the action that began after the call did. Those who come while one is under way share the
/// next. Runs on the callers' threads, one at a time. Any thread.
class GroupRun {
 public:
  /// `what` it is, for those who ask what a call waits for: "sync the records".
  GroupRun(std::string what, std::function<Status()> action)
      : what_(std::move(what)), action_(std::move(action)) {}

  /// The outcome of the action. kDeadlineExceeded, kCancelled: the call was over before another
  /// caller's run had ended (it goes on).
  Status Run(const CallContext& cc);

 private:
  struct Round {
    bool done = false;
    Status outcome;
  };
  const std::string what_;
  const std::function<Status()> action_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  bool running_ = false;
  std::shared_ptr<Round> next_ = std::make_shared<Round>();  // of those who come now
};

}  // namespace crisp::work
