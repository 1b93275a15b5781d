#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "services/rund/streaming/wire.h"

namespace crisp::rund::streaming {

/// A wire in the hands of a test. As the real one it never calls back from within a call of ours.
class FakeWire final : public Wire {
 public:
  void Begin(Handlers handlers) override { handlers_ = std::move(handlers); }
  void Pause(bool pause) override { paused = pause; }
  void Send(std::string bytes) override {
    if (finished || aborted) return;
    waiting += bytes.size();
    sent.push_back(std::move(bytes));
  }
  std::size_t queued() const override { return waiting; }
  void Finish() override { finished = true; }
  void Abort(const Status& why) override {
    if (!aborted) aborted = why;
  }
  void CheckPeer() override { ++checks; }

  /// The client sends. What comes during the end is passed over.
  void Come(std::string_view piece, bool end = false) {
    if (finished || aborted) return;
    if (const auto call = handlers_.on_piece) call(piece, end);
  }
  /// The client has taken all.
  void Drain() {
    waiting = 0;
    if (const auto call = handlers_.on_room) call();
  }
  /// The end of the connection: as Abort says, else by the client.
  void Close() {
    if (const auto call = std::exchange(handlers_, {}).on_closed) {
      call(aborted.value_or(Status::Ok()));
    }
  }
  std::string All() const {
    std::string all;
    for (const std::string& one : sent) all += one;
    return all;
  }

  std::vector<std::string> sent;
  std::size_t waiting = 0;
  int checks = 0;
  bool paused = false;
  bool finished = false;
  std::optional<Status> aborted;

 private:
  Handlers handlers_;
};

}  // namespace crisp::rund::streaming
