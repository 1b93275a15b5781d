#pragma once

#include <string>

#include "services/rund/streaming/stream.h"

namespace crisp::rund::streaming {

/// A client's stream in the hands of a test.
class FakeStream final : public Stream {
 public:
  std::size_t Room() const override { return room; }
  void Send(std::string_view bytes) override {
    sent += bytes;
    total += bytes.size();
    room -= std::min(room, bytes.size());
  }
  void End() override { out_ended = true; }
  void Reset() override {
    was_reset = true;
    Gone();
  }
  void Took(std::size_t bytes) override { took += bytes; }

  /// The client sends, ends, takes, goes.
  void Come(std::string_view bytes) {
    came += bytes.size();
    Data(bytes);
  }
  void ComeEnd() { Ended(); }
  void Open(std::size_t bytes) {
    room += bytes;
    RoomAgain();
  }
  void Leave() { Gone(); }

  std::size_t room = SIZE_MAX;
  std::string sent;
  std::size_t total = 0;
  std::size_t came = 0;
  std::size_t took = 0;
  bool out_ended = false;
  bool was_reset = false;
};

}  // namespace crisp::rund::streaming
