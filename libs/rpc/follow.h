#pragma once

#include <grpcpp/alarm.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>

#include "libs/base/status.h"
#include "libs/rpc/status.h"

namespace crisp::rpc {

struct FollowOptions {
  /// Between a broken stream and the next try.
  std::chrono::milliseconds pause{50};
};

/// Reads a server's stream of events for as long as the object lives: opens it, opens it again
/// whenever it breaks. `on_event` and `on_down` (the stream broke, or could not be opened: told
/// once until events come again) run on gRPC's threads, one at a time: memory work and Submit only.
/// The destructor cancels and waits until no callback runs (so never destroy it inside one).
///
///   follow_ = std::make_unique<rpc::Follow<WatchEvent>>(
///       [stub = std::shared_ptr(Records::NewStub(peer.channel()))](auto* context, auto* reactor) {
///         static const WatchRequest kRequest;
///         stub->async()->Watch(context, &kRequest, reactor);
///       }, on_event, on_down);
template <typename Event>
class Follow {
 public:
  using Open = std::function<void(grpc::ClientContext*, grpc::ClientReadReactor<Event>*)>;

  Follow(Open open, std::function<void(const Event&)> on_event,
         // NOLINTNEXTLINE(performance-unnecessary-value-param): moved, which a template hides
         std::function<void(const Status&)> on_down, FollowOptions options = {})
      : state_(std::make_shared<State>()) {
    state_->open = std::move(open);
    state_->on_event = std::move(on_event);
    state_->on_down = std::move(on_down);
    state_->pause = options.pause;
    state_->Connect(state_);
  }
  Follow(const Follow&) = delete;
  Follow& operator=(const Follow&) = delete;
  ~Follow() {
    std::unique_lock lock(state_->mutex);
    state_->stopping = true;
    if (state_->stream != nullptr) state_->stream->context.TryCancel();
    if (state_->alarm != nullptr) state_->alarm->Cancel();
    state_->changed.wait(lock, [this] { return state_->stream == nullptr && !state_->waiting; });
  }

 private:
  struct State;

  /// One attempt; deletes itself when it is done.
  struct Stream final : grpc::ClientReadReactor<Event> {
    explicit Stream(std::shared_ptr<State> owner) : state(std::move(owner)) {
      // The channel waits for the server (and tries it again and again), not we.
      context.set_wait_for_ready(true);
    }
    void OnReadDone(bool ok) override {
      if (!ok) return;
      state->down = false;
      state->on_event(event);
      this->StartRead(&event);
    }
    void OnDone(const grpc::Status& status) override {
      State::Broken(state, status);
      delete this;
    }

    std::shared_ptr<State> state;
    grpc::ClientContext context;
    Event event;
  };

  struct State {
    Open open;
    std::function<void(const Event&)> on_event;
    std::function<void(const Status&)> on_down;
    std::chrono::milliseconds pause{};
    bool down = false;  // touched by the callbacks only, which come one at a time

    std::mutex mutex;
    std::condition_variable changed;
    Stream* stream = nullptr;
    std::unique_ptr<grpc::Alarm> alarm;
    bool waiting = false;  // for the alarm
    bool stopping = false;

    static void Connect(const std::shared_ptr<State>& self) {
      auto* stream = new Stream(self);
      {
        std::lock_guard lock(self->mutex);
        self->waiting = false;
        if (self->stopping) {
          delete stream;
          self->changed.notify_all();
          return;
        }
        self->stream = stream;
      }
      self->open(&stream->context, stream);
      stream->StartRead(&stream->event);
      stream->StartCall();
    }

    static void Broken(const std::shared_ptr<State>& self, const grpc::Status& status) {
      bool stopping = false;
      {
        std::lock_guard lock(self->mutex);
        stopping = self->stopping;
      }
      if (!stopping && !std::exchange(self->down, true)) {
        self->on_down(status.ok() ? Unavailable("the stream has ended") : FromGrpc(status));
      }
      std::lock_guard lock(self->mutex);
      self->stream = nullptr;
      if (!self->stopping) {
        self->waiting = true;
        self->alarm = std::make_unique<grpc::Alarm>();
        // The alarm keeps its callback, and the state the alarm: the callback lets go of it.
        self->alarm->Set(std::chrono::system_clock::now() + self->pause,
                         [state = self](bool /*fired*/) mutable {
                           const auto keep = std::move(state);
                           Connect(keep);
                         });
      }
      self->changed.notify_all();
    }
  };

  std::shared_ptr<State> state_;
};

}  // namespace crisp::rpc
