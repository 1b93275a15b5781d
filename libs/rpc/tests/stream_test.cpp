#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <future>
#include <mutex>

#include "crisp/rund/v1/rund.grpc.pb.h"
#include "libs/rpc/broadcast.h"
#include "libs/rpc/follow.h"
#include "libs/rpc/peer.h"
#include "libs/rpc/server.h"
#include "libs/testing/test_root.h"

using namespace std::chrono_literals;
using crisp::rund::v1::Records;
using crisp::rund::v1::WatchEvent;
using crisp::rund::v1::WatchRequest;

namespace crisp::rpc {
namespace {

std::shared_ptr<const WatchEvent> Event(std::uint64_t seq) {
  auto event = std::make_shared<WatchEvent>();
  event->set_seq(seq);
  return event;
}

/// Sends 1, 2, ... : the first as what Open gives, the rest as published.
class TestRecords final : public Records::CallbackService {
 public:
  explicit TestRecords(std::size_t max_queue) : stream_(max_queue) {}
  grpc::ServerWriteReactor<WatchEvent>* Watch(grpc::CallbackServerContext* context,
                                              const WatchRequest*) override {
    return stream_.Open(context, Event(1));
  }
  Broadcast<WatchEvent>& stream() { return stream_; }

 private:
  Broadcast<WatchEvent> stream_;
};

struct TestServer {
  explicit TestServer(const std::string& path, std::size_t max_queue = 4096)
      : records(max_queue), server({.sockets = {path}}) {
    server.AddService(&records);
    REQUIRE(server.Start().ok());
  }
  TestRecords records;
  Server server;
};

/// What a Follow heard.
class Ear {
 public:
  void Event(const WatchEvent& event) {
    std::lock_guard lock(mutex_);
    last_ = event.seq();
    ++events_;
    changed_.notify_all();
  }
  void Down(const Status&) {
    std::lock_guard lock(mutex_);
    ++downs_;
    changed_.notify_all();
  }
  bool WaitFor(std::uint64_t seq, int events) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, 20s, [&] { return last_ == seq && events_ >= events; });
  }
  bool WaitForDowns(int downs) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, 20s, [&] { return downs_ >= downs; });
  }
  int downs() {
    std::lock_guard lock(mutex_);
    return downs_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::uint64_t last_ = 0;
  int events_ = 0;
  int downs_ = 0;
};

std::unique_ptr<Follow<WatchEvent>> FollowRecords(const Peer& peer, Ear& ear) {
  return std::make_unique<Follow<WatchEvent>>(
      [stub = std::shared_ptr(Records::NewStub(peer.channel()))](auto* context, auto* reactor) {
        static const WatchRequest kRequest;
        stub->async()->Watch(context, &kRequest, reactor);
      },
      [&ear](const WatchEvent& event) { ear.Event(event); },
      [&ear](const Status& why) { ear.Down(why); }, FollowOptions{.pause = 5ms});
}

}  // namespace

TEST_CASE("a reader gets the first event and all that follow") {
  testing::TestRoot root;
  TestServer server(root / "s");
  const Peer peer("rund/1", root / "s", 5s);
  Ear one;
  Ear two;
  auto follow_one = FollowRecords(peer, one);
  auto follow_two = FollowRecords(peer, two);
  REQUIRE(one.WaitFor(1, 1));
  REQUIRE(two.WaitFor(1, 1));
  for (std::uint64_t seq = 2; seq <= 500; ++seq) server.records.stream().Publish(Event(seq));
  CHECK(one.WaitFor(500, 500));
  CHECK(two.WaitFor(500, 500));
  follow_one.reset();
  CHECK(two.downs() == 0);
}

TEST_CASE("a reader comes back after the server's restart, and is told once that it was down") {
  testing::TestRoot root;
  auto server = std::make_unique<TestServer>(root / "s");
  const Peer peer("rund/1", root / "s", 5s);
  Ear ear;
  auto follow = FollowRecords(peer, ear);
  REQUIRE(ear.WaitFor(1, 1));
  server->records.stream().Close(Unavailable("stopping"));
  server->server.Shutdown(1s);
  server.reset();
  REQUIRE(ear.WaitForDowns(1));
  server = std::make_unique<TestServer>(root / "s");
  CHECK(ear.WaitFor(1, 2));
  CHECK(ear.downs() == 1);
}

TEST_CASE("a reader that falls behind is closed and starts anew") {
  testing::TestRoot root;
  TestServer server(root / "s", 4);
  Ear ear;
  auto follow = FollowRecords(Peer("rund/1", root / "s", 5s), ear);
  REQUIRE(ear.WaitFor(1, 1));
  for (std::uint64_t seq = 2; seq <= 20'000 && ear.downs() == 0; ++seq) {
    server.records.stream().Publish(Event(seq));
  }
  CHECK(ear.WaitForDowns(1));
  CHECK(ear.WaitFor(1, 2));
}

TEST_CASE("a Follow that came back once leaves nothing behind") {
  testing::TestRoot root;
  std::promise<void> gone;
  // Outlives all: gRPC does not bear that a channel goes on one of its own threads.
  const Peer peer("rund/1", root / "s", 5s);
  {
    auto server = std::make_unique<TestServer>(root / "s");
    Ear ear;
    const auto held = std::shared_ptr<int>(new int(0), [&gone](const int* number) {
      delete number;
      gone.set_value();
    });
    Follow<WatchEvent> follow(
        [stub = std::shared_ptr(Records::NewStub(peer.channel()))](auto* context, auto* reactor) {
          static const WatchRequest kRequest;
          stub->async()->Watch(context, &kRequest, reactor);
        },
        [&ear, held](const WatchEvent& event) { ear.Event(event); },
        [&ear](const Status& why) { ear.Down(why); }, FollowOptions{.pause = 5ms});
    REQUIRE(ear.WaitFor(1, 1));
    server.reset();
    REQUIRE(ear.WaitForDowns(1));
    server = std::make_unique<TestServer>(root / "s");
    REQUIRE(ear.WaitFor(1, 2));
  }
  CHECK(gone.get_future().wait_for(20s) == std::future_status::ready);
}

/// Asks, when a call ends, for what needs the broadcast's lock, as the rendering of a gauge does.
class AskingObserver final : public CallObserver {
 public:
  void OnCallStarted(std::string_view) override {}
  void OnCallDone(std::string_view, Code, std::chrono::nanoseconds) override {
    auto readers = std::async(std::launch::async, [this] { return stream->readers(); });
    const bool got = readers.wait_for(5s) == std::future_status::ready;
    asked.set_value(got);
  }
  Broadcast<WatchEvent>* stream = nullptr;
  std::promise<bool> asked;
};

TEST_CASE("the end of a stream is observed outside of the broadcast's lock") {
  testing::TestRoot root;
  TestRecords records(4096);
  AskingObserver observer;
  observer.stream = &records.stream();
  Server server({.sockets = {root / "s"}, .observer = &observer});
  server.AddService(&records);
  REQUIRE(server.Start().ok());
  const Peer peer("rund/1", root / "s", 5s);
  REQUIRE(peer.WaitReady(CallContext::Background(10s)).ok());
  auto stub = Records::NewStub(peer.channel());
  grpc::ClientContext context;
  auto reader = stub->Watch(&context, WatchRequest());
  WatchEvent event;
  REQUIRE(reader->Read(&event));
  records.stream().Close(Unavailable("stopping"));
  CHECK(observer.asked.get_future().get());
  CHECK_FALSE(reader->Read(&event));
  CHECK(reader->Finish().error_code() == grpc::StatusCode::UNAVAILABLE);
}

TEST_CASE("a Follow ends while its server is away") {
  testing::TestRoot root;
  Ear ear;
  auto follow = FollowRecords(Peer("rund/1", root / "none", 5s), ear);
  follow.reset();
  CHECK(ear.downs() == 0);
}

}  // namespace crisp::rpc
