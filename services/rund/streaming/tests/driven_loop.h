#pragma once

#include <functional>

#include "libs/loop/loop.h"

namespace crisp::rund::streaming {

/// A loop without a thread of its own: the test's thread runs it, so that a test may touch whatever
/// lives on it.
class DrivenLoop {
 public:
  loop::Loop& operator*() { return loop_; }
  /// Runs handlers until `done`, which is asked after each; false when it does not come in half a
  /// minute.
  bool Until(const std::function<bool()>& done);
  /// Runs what can run without waiting.
  void Settle();

 private:
  loop::Loop loop_;
};

}  // namespace crisp::rund::streaming
