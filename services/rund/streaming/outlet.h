#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "services/rund/streaming/stream.h"

namespace crisp::rund::streaming {

/// A piece of output on its way to several clients: copied once at most, by the first one that
/// cannot take it at once. Valid as long as the bytes are.
class Packet {
 public:
  using Kept = std::shared_ptr<const std::string>;
  explicit Packet(std::string_view bytes) : bytes_(bytes) {}
  std::string_view bytes() const { return bytes_; }
  const Kept& Keep() {
    if (!kept_) kept_ = std::make_shared<const std::string>(bytes_);
    return kept_;
  }

 private:
  std::string_view bytes_;
  Kept kept_;
};

/// How many bytes may wait for clients.
struct OutletLimits {
  std::size_t always = std::size_t{256} << 10U;  // for each of them, whatever the others do
  std::size_t one = std::size_t{4} << 20U;       // for each, as long as all are below:
  std::size_t all = std::size_t{64} << 20U;
};

/// Output that does not wait for the client: what the client's stream has no room for is kept up to
/// a limit, and then left out until the client has taken all that was kept. Streaming thread only.
class Outlet {
 public:
  /// All of one server's; outlives them.
  struct Share {
    OutletLimits limits = {};
    std::size_t waiting = 0;  // in all of them
  };
  /// `stream` null: all is thrown away. `on_gap`: so many bytes were left out here, and what is put
  /// from now on comes again.
  Outlet(Share& share, StreamPtr stream, std::function<void(std::uint64_t)> on_gap)
      : share_(share), stream_(std::move(stream)), on_gap_(std::move(on_gap)) {}
  ~Outlet() { Clear(); }
  Outlet(const Outlet&) = delete;
  Outlet& operator=(const Outlet&) = delete;

  void Put(Packet& packet);
  /// Short, and not to be left out.
  void Say(std::string_view text);
  /// The stream has room, or has gone.
  void OnRoom();
  /// Nothing more comes: hands over what waits, whatever the room.
  void Finish();
  /// Forgets what waits.
  void Clear();
  /// The client will miss something should it not take more.
  bool behind() const { return !leaving_out_ && bytes_ >= share_.limits.always; }

 private:
  bool HasRoom() const { return !stream_->gone() && stream_->Room() > 0; }
  bool MayKeep() const;
  void Add(const Packet::Kept& piece);
  void SendFirst();
  void EndGap();

  Share& share_;
  StreamPtr stream_;
  std::function<void(std::uint64_t)> on_gap_;
  std::deque<Packet::Kept> kept_;
  std::size_t bytes_ = 0;  // of kept_
  bool leaving_out_ = false;
  std::uint64_t left_out_ = 0;
};

}  // namespace crisp::rund::streaming
