#pragma once

#include <string>
#include <utility>
#include <vector>

#include "services/rund/streaming/wire.h"

namespace crisp::rund::streaming {

/// A wire in the hands of a test.
class FakeWire final : public Wire {
 public:
  void Begin(Handlers handlers) override { handlers_ = std::move(handlers); }
  void Pause(bool pause) override { paused = pause; }
  void Send(std::string bytes) override {
    waiting += bytes.size();
    sent.push_back(std::move(bytes));
  }
  std::size_t queued() const override { return waiting; }
  void Finish() override { finished = true; }
  void Abort(const Status& why) override {
    aborted = why;
    if (const auto call = std::exchange(handlers_, {}).on_closed) call(why);
  }
  void CheckPeer() override {}

  /// The client sends.
  void Come(std::string_view piece, bool end = false) {
    if (const auto call = handlers_.on_piece) call(piece, end);
  }
  /// The client has taken all.
  void Drain() {
    waiting = 0;
    if (const auto call = handlers_.on_room) call();
  }
  std::string All() const {
    std::string all;
    for (const std::string& one : sent) all += one;
    return all;
  }

  std::vector<std::string> sent;
  std::size_t waiting = 0;
  bool paused = false;
  bool finished = false;
  Status aborted;

 private:
  Handlers handlers_;
};

}  // namespace crisp::rund::streaming
