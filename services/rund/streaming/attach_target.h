#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "libs/base/clock.h"
#include "libs/loop/loop.h"
#include "libs/os/unique_fd.h"
#include "services/rund/streaming/descriptor.h"
#include "services/rund/streaming/target.h"

namespace crisp::rund::streaming {

/// A connection to a container's monitor.
struct AttachedContainer {
  os::UniqueFd socket;   // SOCK_SEQPACKET, connected
  os::UniqueFd control;  // the monitor's fifo
  bool tty = false;
  bool takes_stdin = false;
  bool stdin_once = false;  // the container's stdin ends with its first client's
};

/// A running container's own streams: what it writes from now on, and its stdin.
///
/// The monitor writes to its clients one after the other and waits for each: a client that takes
/// nothing would stop the container and its log. So a client that is behind is waited for only
/// shortly, and a client that is behind again and again hardly; then what it does not take is left
/// out, and said so where it goes on, or at the end when only a program reads the output.
class AttachTarget final : public Target, public std::enable_shared_from_this<AttachTarget> {
 public:
  struct Times {
    /// How long the container may be kept waiting.
    std::chrono::nanoseconds patience = std::chrono::seconds(1);
    /// After the end of stdin: whoever still answers to it within this is heard.
    std::chrono::nanoseconds quiet = std::chrono::milliseconds(500);
  };
  AttachTarget(loop::Loop& loop, AttachedContainer container);
  AttachTarget(loop::Loop& loop, AttachedContainer container, const Times& times);

  void Begin(RemoteStreams streams, std::function<void(const Outcome&)> on_end) override;
  void Resize(TerminalSize size) override;
  void Close() override;

 private:
  void Read();
  void Wait();
  void OnRoom();
  /// False: there is none left.
  bool BeginPatience();
  void EndPatience();
  void OnPatienceEnd();
  StreamPtr StreamOf(char tag) const;
  bool HasRoom() const;
  void TellLeftOut();
  void OnData(std::string_view bytes);
  void Write();
  void OnStdinEnd();
  void EndWhenQuiet();
  void SetEnded();

  loop::Loop& loop_;
  AttachedContainer container_;
  RemoteStreams streams_;
  std::function<void(const Outcome&)> on_end_;
  DescriptorPtr socket_;
  loop::Timer patience_, quiet_;
  const Times times_;
  std::chrono::nanoseconds patience_left_;
  SteadyTime patience_since_;
  std::string pending_;  // stdin that the monitor has not taken
  bool stdin_ended_ = false;
  bool writing_ = false;
  bool waiting_ = false;
  bool leaving_out_ = false;
  std::uint64_t left_out_ = 0;
  std::uint64_t untold_ = 0;  // left out, and no stream to say it on
  std::uint64_t packets_ = 0;
  bool over_ = false;
};

}  // namespace crisp::rund::streaming
