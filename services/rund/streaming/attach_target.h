#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "libs/loop/loop.h"
#include "services/rund/streaming/attach_hub.h"
#include "services/rund/streaming/outlet.h"
#include "services/rund/streaming/target.h"

namespace crisp::rund::streaming {

/// One client's attach: what a running container writes from now on, and its stdin.
///
/// A client that does not take the output is not waited for: beyond what is kept for it, output is
/// left out, and said so where it goes on, or at the end when only a program reads the output.
class AttachTarget final : public Target,
                           public AttachHub::Client,
                           public std::enable_shared_from_this<AttachTarget> {
 public:
  AttachTarget(AttachHub::Share& share, std::string container_id);

  void Begin(RemoteStreams streams, std::function<void(const Outcome&)> on_end) override;
  void Resize(TerminalSize size) override;
  void Close() override;

  void OnAttached() override { Write(); }
  void OnOutput(bool is_stderr, Packet& packet) override;
  void OnInputRoom() override { Write(); }
  bool behind() const override { return out_->behind() || err_->behind(); }
  void OnEnd(const Status& why) override { SetEnded(why); }

 private:
  std::unique_ptr<Outlet> MakeOutlet(const StreamPtr& stream);
  void OnRoom();
  void OnGap(std::uint64_t bytes);
  void Write();
  void OnStdinEnd();
  void EndWhenQuiet();
  void SetEnded(const Status& why);

  AttachHub::Share& share_;
  const std::string id_;
  std::shared_ptr<AttachHub> hub_;
  RemoteStreams streams_;
  std::unique_ptr<Outlet> out_, err_;
  std::function<void(const Outcome&)> on_end_;
  loop::Timer quiet_;
  std::optional<TerminalSize> size_;  // from before the begin
  std::string pending_;               // stdin that the container has not taken
  bool stdin_ended_ = false;
  std::uint64_t untold_ = 0;  // bytes left out, and no stream to say it on
  std::uint64_t packets_ = 0;
  bool over_ = false;
};

}  // namespace crisp::rund::streaming
