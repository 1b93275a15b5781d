#pragma once

#include <memory>
#include <string>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/process/command.h"

namespace crisp::process {

/// A program that was started before its input is known: it comes up meanwhile, and waits for its
/// stdin. One that is never finished is killed by the destructor; when we are killed it sees the
/// end of an empty input.
class Held {
 public:
  /// `command` without stdin_data and in_fd. Errors: those with which Run cannot start it.
  static Result<Held> Start(const CallContext& cc, Command command, const RunOptions& options = {});
  Held(Held&&) noexcept;
  Held& operator=(Held&&) noexcept;
  ~Held();

  /// Once: gives it the whole input, and waits for its end as Run does, with the call of Start.
  Result<Output> Finish(std::string input);

 private:
  struct Impl;
  explicit Held(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;  // null once it is finished
};

}  // namespace crisp::process
