#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "libs/loop/loop.h"
#include "services/rund/streaming/descriptor.h"
#include "services/rund/streaming/stream.h"

// Between a client's stream and a descriptor, one way each. Streaming thread only.
namespace crisp::rund::streaming {

/// What all pumps of the streaming thread share; outlives them.
struct PumpShare {
  loop::Loop& loop;
  std::vector<char> buffer = {};  // of the one that reads just now; made by the first
};

/// From the client to the descriptor. What the descriptor does not take at once is kept, and counts
/// against the client's window until it does.
class InPump : public std::enable_shared_from_this<InPump> {
 public:
  /// `on_end` once: the client has ended and all before it was written, or (see broken()) the
  /// descriptor takes nothing any more. Whoever holds the pump may drop it at any time: nothing is
  /// called then.
  InPump(StreamPtr stream, DescriptorPtr to, std::function<void()> on_end)
      : stream_(std::move(stream)), to_(std::move(to)), on_end_(std::move(on_end)) {}
  /// `on_gone`: the stream is gone. `on_room`: for the OutPump that has the same stream.
  void Begin(std::function<void()> on_gone, std::function<void()> on_room = nullptr);
  /// The reader of the descriptor has gone: what still comes is thrown away.
  bool broken() const { return broken_; }
  /// The last byte that the client sent; 0 before the first.
  char last_byte() const { return last_byte_; }
  /// More for the descriptor once the client has ended: now, or when it takes something again.
  void Append(std::string_view bytes);

 private:
  void OnData(std::string_view bytes);
  std::size_t WriteNow(std::string_view bytes);
  void AwaitRoom();
  void Write();
  void Break();
  void CheckEnd();
  void End();

  StreamPtr stream_;
  DescriptorPtr to_;
  std::function<void()> on_end_;
  std::string pending_;  // what the descriptor has not taken
  std::size_t own_ = 0;  // the last so many of them are not the client's
  char last_byte_ = 0;
  bool waiting_ = false;
  bool ended_ = false;
  bool broken_ = false;
};

/// From the descriptor to the client, as fast as the client takes it.
class OutPump : public std::enable_shared_from_this<OutPump> {
 public:
  /// `stream` null, or gone: what comes is read and thrown away. `on_end` once, when there is
  /// nothing more to come and all was handed to the stream.
  OutPump(PumpShare& share, DescriptorPtr from, StreamPtr stream, std::function<void()> on_end)
      : share_(share),
        from_(std::move(from)),
        stream_(std::move(stream)),
        on_end_(std::move(on_end)) {}
  void Begin();
  /// The stream has room, or has gone.
  void OnRoom() { Read(); }
  /// The writer has ended, though others may hold the descriptor open: what is there after `drain`
  /// is the rest.
  void ExpectEnd(std::chrono::nanoseconds drain);
  bool ended() const { return ended_; }
  /// It was no orderly end: the other side of a socket reset the connection.
  bool broken() const { return broken_; }

 private:
  void Read();
  void Wait();
  void OnDrained();
  void SetEnded();

  PumpShare& share_;
  DescriptorPtr from_;
  StreamPtr stream_;
  std::function<void()> on_end_;
  loop::Timer drain_;
  std::uint64_t total_ = 0;
  std::uint64_t last_byte_ = UINT64_MAX;  // once drained: where the rest ends
  bool waiting_ = false;
  bool ended_ = false;
  bool broken_ = false;
};

}  // namespace crisp::rund::streaming
