#pragma once

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
  /// Those whose client has gone, or has its answer, until their helper has ended and is reaped.
  using Leaving = std::set<std::shared_ptr<ExecTarget>>;

  /// `pool`: for the files of the exec, in the end. `leaving` outlives it.
  static std::shared_ptr<ExecTarget> Make(loop::Loop& loop, work::Pool& pool, Leaving& leaving,
                                          ExecProcess process);
  ~ExecTarget() override;

  void Begin(RemoteStreams streams, std::function<void(const Outcome&)> on_end) override;
  void Resize(TerminalSize size) override;
  void Close() override;

 private:
  ExecTarget(loop::Loop& loop, work::Pool& pool, Leaving& leaving, ExecProcess process);
  void AwaitReport();
  void OnConsole();
  void BeginTerminal(os::UniqueFd terminal);
  void OnReport();
  void OnHelperGone();
  void OnStdinEnd();
  DescriptorPtr Take(os::UniqueFd fd);
  std::shared_ptr<OutPump> Pump(const DescriptorPtr& from, const StreamPtr& to);
  void CheckEnd();
  void ApplySize();

  loop::Loop& loop_;
  work::Pool& pool_;
  Leaving& leaving_;
  std::shared_ptr<ExecProcess> process_;
  RemoteStreams streams_;
  std::function<void(const Outcome&)> on_end_;
  DescriptorPtr in_, out_, err_, report_, console_, terminal_;
  std::shared_ptr<InPump> in_pump_;
  std::shared_ptr<OutPump> out_pump_, err_pump_;
  loop::FdWatch helper_watch_;
  std::optional<TerminalSize> size_;
  std::optional<Outcome> outcome_;
  bool over_ = false;
};

}  // namespace crisp::rund::streaming
