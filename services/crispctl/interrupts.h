#pragma once

#include <stop_token>

#include "libs/base/status.h"
#include "libs/loop/loop.h"

namespace crisp::ctl {

/// SIGINT, SIGTERM and SIGHUP as requests to end, for a verb that has something to put in order
/// first. While it lives these signals end nothing by themselves, and a write that nobody reads is
/// an error in place of SIGPIPE (that stays so afterwards). A third signal ends the program at
/// once, as it is. Made and used on the verb's thread; the tokens are requested on a thread of its
/// own.
class Interrupts {
 public:
  Interrupts();
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;

  /// Requested by the first signal, or by End.
  std::stop_token told() const { return told_.get_token(); }
  /// Requested by the second signal: there is no patience any more.
  std::stop_token told_twice() const { return told_twice_.get_token(); }
  /// As a first signal, for an end that has another cause.
  void End() { told_.request_stop(); }
  /// kCancelled once told, else Ok: between two steps.
  Status Check() const;

 private:
  void OnSignal(int signal);

  std::stop_source told_;
  std::stop_source told_twice_;
  int signals_ = 0;  // the loop's
  loop::Loop loop_;
  loop::SignalWatch watch_;
};

}  // namespace crisp::ctl
