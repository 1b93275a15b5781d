#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "libs/loop/loop.h"
#include "libs/work/pool.h"
#include "services/rund/runtime/exec_process.h"
#include "services/rund/streaming/descriptor.h"
#include "services/rund/streaming/pump.h"
#include "services/rund/streaming/target.h"

namespace crisp::rund::streaming {

/// A command in a container. When the client goes its streams are closed, so that it sees the end
/// of its input, SIGPIPE, or the hang-up of its terminal; it is not killed.
class ExecTarget final : public Target, public std::enable_shared_from_this<ExecTarget> {
 public:
  /// What all of them share; outlives them.
  struct Share {
    loop::Loop& loop;
    work::Pool& pool;  // for files and kills
    PumpShare& pumps;
    /// For the runtime, from its start until the command runs.
    std::chrono::nanoseconds start_timeout = std::chrono::seconds(120);
    /// Those whose client has gone, or has its answer, until their helper has ended and is reaped.
    std::set<std::shared_ptr<ExecTarget>> leaving = {};
    /// How many these are, for any thread.
    std::atomic<std::size_t> leaving_count = 0;
  };

  static std::shared_ptr<ExecTarget> Make(Share& share, ExecProcess process);
  ~ExecTarget() override;

  void Begin(RemoteStreams streams, std::function<void(const Outcome&)> on_end) override;
  void Resize(TerminalSize size) override;
  void Close() override;

 private:
  ExecTarget(Share& share, ExecProcess process);
  void AwaitReport();
  void AwaitConsole();
  void OnConsole();
  void AwaitTerminal();
  void OnTerminal();
  void BeginTerminal(os::UniqueFd terminal);
  void OnReport();
  void OnStarted();
  void OnFailedStart();
  void OnStartTimeout();
  void OnOutcome(Outcome outcome);
  void WatchHelper();
  void OnHelperGone();
  void OnStdinEnd();
  DescriptorPtr Take(os::UniqueFd fd);
  std::shared_ptr<OutPump> Pump(const DescriptorPtr& from, const StreamPtr& to);
  void CheckEnd();
  void ApplySize();

  Share& share_;
  std::shared_ptr<ExecProcess> process_;
  RemoteStreams streams_;
  std::function<void(const Outcome&)> on_end_;
  DescriptorPtr in_, out_, err_, report_, console_, terminal_;
  DescriptorPtr sender_;  // the runtime's connection to the console socket
  std::shared_ptr<InPump> in_pump_;
  std::shared_ptr<OutPump> out_pump_, err_pump_;
  loop::FdWatch helper_watch_;
  loop::Timer start_, again_;
  std::optional<TerminalSize> size_;
  std::optional<Outcome> outcome_;
  bool started_ = false;
  bool over_ = false;
};

}  // namespace crisp::rund::streaming
