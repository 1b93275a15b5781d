#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "libs/base/status.h"
#include "libs/rpc/status.h"

namespace crisp::rpc {

/// One stream of events to any number of readers (a server-streaming method). Each reader has a
/// queue; one that falls more than `max_queue` events behind is closed with RESOURCE_EXHAUSTED (it
/// comes back and gets a fresh start). Any thread.
template <typename Event>
class Broadcast {
 public:
  using EventPtr = std::shared_ptr<const Event>;

  explicit Broadcast(std::size_t max_queue = 4096) : state_(std::make_shared<State>(max_queue)) {}
  Broadcast(const Broadcast&) = delete;
  Broadcast& operator=(const Broadcast&) = delete;
  ~Broadcast() { Close(Unavailable("the server stops")); }

  /// The reactor of a new reader, to be returned by the method; its headers go out at once. `first`
  /// (if any) is what it gets before any later Publish. Whoever wants no gap between a snapshot and
  /// what follows calls Open and Publish under the same lock (both only queue).
  grpc::ServerWriteReactor<Event>* Open(grpc::CallbackServerContext* context,
                                        EventPtr first = nullptr) {
    auto* stream = new Stream(state_, context);  // deletes itself in OnDone
    std::unique_lock lock(state_->mutex);
    if (state_->closed) {
      const Status why = state_->why;
      lock.unlock();
      stream->Finish(ToGrpc(why));
      return stream;
    }
    // At once, so that a reader can know that it is heard from now on.
    stream->StartSendInitialMetadata();
    state_->streams.insert(stream);
    const bool over = first != nullptr && stream->Push(std::move(first));
    lock.unlock();
    if (over) stream->FinishLast();
    return stream;
  }

  /// Queues the event for every reader.
  void Publish(EventPtr event) {
    std::vector<Stream*> over;
    {
      std::lock_guard lock(state_->mutex);
      for (Stream* stream : state_->streams) {
        if (stream->Push(event)) over.push_back(stream);
      }
    }
    for (Stream* stream : over) stream->FinishLast();
  }

  /// Ends every stream, and those that come later at once.
  void Close(const Status& why) {
    std::vector<Stream*> over;
    {
      std::lock_guard lock(state_->mutex);
      if (state_->closed) return;
      state_->closed = true;
      state_->why = why;
      for (Stream* stream : state_->streams) {
        if (stream->End(ToGrpc(why))) over.push_back(stream);
      }
    }
    for (Stream* stream : over) stream->FinishLast();
  }

  std::size_t readers() const {
    std::lock_guard lock(state_->mutex);
    return state_->streams.size();
  }

 private:
  class Stream;
  struct State {
    explicit State(std::size_t limit) : max_queue(limit) {}
    const std::size_t max_queue;
    std::mutex mutex;
    std::set<Stream*> streams;
    bool closed = false;
    Status why;
  };

  /// All its fields are under State::mutex. The calls into gRPC made with it held only queue: their
  /// reactions come on gRPC's threads. Finish is not one of them: observers of the call run inside
  /// it. Whoever learns from Push or End that the stream is over calls FinishLast, once, without
  /// the lock; until then the stream lives.
  class Stream final : public grpc::ServerWriteReactor<Event> {
   public:
    Stream(std::shared_ptr<State> state, grpc::CallbackServerContext* context)
        : state_(std::move(state)), context_(context) {}

    /// True: the stream is over.
    [[nodiscard]] bool Push(EventPtr event) {
      if (ended_) return false;
      if (queue_.size() >= state_->max_queue) {
        const bool over =
            End(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "the reader is too slow"));
        // A write that the reader's window holds back would never end.
        if (writing_) context_->TryCancel();
        return over;
      }
      queue_.push_back(std::move(event));
      if (!writing_) WriteNext();
      return false;
    }
    /// True: the stream is over; else it was before, or will be when its write has ended.
    [[nodiscard]] bool End(grpc::Status status) {
      if (ended_) return false;
      ended_ = true;
      queue_.clear();
      last_ = std::move(status);
      return !writing_;
    }
    /// The last act; the stream may be gone when it returns.
    void FinishLast() { this->Finish(last_); }

    void OnWriteDone(bool ok) override {
      bool over = false;
      {
        std::lock_guard lock(state_->mutex);
        writing_ = false;
        written_ = nullptr;
        if (ended_) {
          over = true;
        } else if (!ok) {
          over = End(grpc::Status(grpc::StatusCode::CANCELLED, "the reader went away"));
        } else if (!queue_.empty()) {
          WriteNext();
        }
      }
      if (over) FinishLast();
    }
    void OnCancel() override {
      bool over = false;
      {
        std::lock_guard lock(state_->mutex);
        over = End(grpc::Status(grpc::StatusCode::CANCELLED, "the reader went away"));
      }
      if (over) FinishLast();
    }
    void OnDone() override {
      {
        std::lock_guard lock(state_->mutex);
        state_->streams.erase(this);
      }
      delete this;
    }

   private:
    void WriteNext() {
      writing_ = true;
      written_ = std::move(queue_.front());
      queue_.pop_front();
      this->StartWrite(written_.get());
    }

    std::shared_ptr<State> state_;
    grpc::CallbackServerContext* context_;
    std::deque<EventPtr> queue_;
    EventPtr written_;
    grpc::Status last_;
    bool writing_ = false;
    bool ended_ = false;
  };

  std::shared_ptr<State> state_;
};

}  // namespace crisp::rpc
