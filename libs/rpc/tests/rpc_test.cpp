#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <future>
#include <stop_token>
#include <thread>

#include "cri/v1/api.pb.h"
#include "crisp/daemon/v1/daemon.grpc.pb.h"
#include "grpc/reflection/v1alpha/reflection.grpc.pb.h"
#include "libs/os/files.h"
#include "libs/os/unique_fd.h"
#include "libs/rpc/about.h"
#include "libs/rpc/broadcast.h"
#include "libs/rpc/follow.h"
#include "libs/rpc/forward.h"
#include "libs/rpc/peer.h"
#include "libs/rpc/server.h"
#include "libs/rpc/unary.h"
#include "libs/testing/test_root.h"

using namespace std::chrono_literals;
using crisp::daemon::v1::InfoRequest;
using crisp::daemon::v1::InfoResponse;
using Service = crisp::daemon::v1::Daemon;

namespace crisp::rpc {
namespace {

constexpr char kInfo[] = "/crisp.daemon.v1.Daemon/Info";

CallContext Soon() { return CallContext::Background(20s, "req-1"); }

using Body = std::function<Status(const CallContext&, const InfoRequest&, InfoResponse&)>;

class TestService final : public Service::CallbackService {
 public:
  TestService(work::Pool& pool, work::Lane lane, Body body)
      : pool_(pool), lane_(lane), body_(std::move(body)) {}
  grpc::ServerUnaryReactor* Info(grpc::CallbackServerContext* context, const InfoRequest* request,
                                 InfoResponse* response) override {
    return Unary(pool_, lane_, context, request, response, body_);
  }

 private:
  work::Pool& pool_;
  work::Lane lane_;
  Body body_;
};

class CountingObserver final : public CallObserver {
 public:
  void OnCallStarted(std::string_view) override {}
  void OnCallDone(std::string_view method, Code code, std::chrono::nanoseconds) override {
    std::lock_guard lock(mutex_);
    calls_.push_back(fmt::format("{} {}", method, CodeName(code)));
    changed_.notify_all();
  }
  std::vector<std::string> WaitFor(std::size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, 10s, [&] { return calls_.size() >= count; });
    return calls_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> calls_;
};

/// A server that answers Info with `body`, on <root>/s.
struct TestServer {
  TestServer(const std::string& path, Body body, work::Lane lane = work::Lane::kMutate,
             work::PoolOptions pool_options = {})
      : pool(pool_options),
        service(pool, lane, std::move(body)),
        server({.sockets = {path}, .observer = &observer}) {
    server.AddService(&service);
    const Status started = server.Start();
    INFO(started.ToString());
    REQUIRE(started.ok());
  }
  CountingObserver observer;
  work::Pool pool;
  TestService service;
  Server server;
};

Body Answer(const std::string& name) {
  return [name](const CallContext&, const InfoRequest&, InfoResponse& response) {
    response.set_service(name);
    return Status::Ok();
  };
}

Result<InfoResponse> GetInfo(const CallContext& cc, const Peer& peer, CallOptions options = {}) {
  auto stub = Service::NewStub(peer.channel());
  return Call(cc, peer, *stub, &Service::Stub::Info, InfoRequest(), options);
}

/// A front that forwards Info to a peer.
class FrontService final : public Service::WithRawCallbackMethod_Info<Service::Service> {
 public:
  FrontService(Peer peer, ForwardOptions options)
      : peer_(std::move(peer)), options_(std::move(options)) {}
  grpc::ServerUnaryReactor* Info(grpc::CallbackServerContext* context,
                                 const grpc::ByteBuffer* request,
                                 grpc::ByteBuffer* response) override {
    return Forward(context, request, response, peer_, kInfo, options_);
  }

 private:
  Peer peer_;
  ForwardOptions options_;
};

struct Front {
  Front(const std::string& path, Peer peer, ForwardOptions options = {})
      : service(peer, std::move(options)), server({.sockets = {path}}) {
    // gRPC does not bear that a channel goes on one of its own threads, as the last of a call may.
    static auto* const kept = new std::vector<Peer>();
    kept->push_back(std::move(peer));
    server.AddService(&service);
    REQUIRE(server.Start().ok());
  }
  FrontService service;
  Server server;
};

}  // namespace

TEST_CASE("a status keeps its code and message over the wire type") {
  for (int code = 1; code <= 16; ++code) {
    const Status status(static_cast<Code>(code), "why");
    CHECK(FromGrpc(ToGrpc(status)).code() == status.code());
    CHECK(FromGrpc(ToGrpc(status)).message() == "why");
  }
  CHECK(ToGrpc(Internal("{}", std::string(100'000, 'x'))).error_message().size() < 5000);
}

TEST_CASE("a unary call answers, carries the request id and the deadline, and is observed") {
  testing::TestRoot root;
  CallContext seen;
  TestServer server(root / "s",
                    [&seen](const CallContext& cc, const InfoRequest&, InfoResponse& response) {
                      seen = cc;
                      response.set_service("it");
                      return Status::Ok();
                    });
  const Peer peer("it/1", root / "s", 5s);
  const auto answer = GetInfo(Soon(), peer);
  REQUIRE(answer.ok());
  CHECK(answer->service() == "it");
  CHECK(seen.request_id() == "req-1");
  CHECK(seen.Remaining() <= 20s);
  CHECK(seen.Remaining() > 5s);
  CHECK(server.observer.WaitFor(1) == std::vector<std::string>{std::string(kInfo) + " OK"});
}

TEST_CASE("the socket has its mode, replaces a stale one, and never that of a living server") {
  testing::TestRoot root;
  {
    TestServer first(root / "s", Answer("one"));
    struct stat found {};
    REQUIRE(stat((root / "s").c_str(), &found) == 0);
    CHECK((found.st_mode & 0777U) == 0660U);
    Server second({.sockets = {root / "s"}});
    CHECK(second.Start().code() == Code::kFailedPrecondition);
  }
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  (root / "s").copy(address.sun_path, sizeof address.sun_path - 1);
  REQUIRE(bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  close(fd);  // stale: nobody listens
  TestServer third(root / "s", Answer("three"));
  CHECK(GetInfo(Soon(), Peer("it/1", root / "s", 5s))->service() == "three");

  Server too_long({.sockets = {root / std::string(200, 'x')}});
  CHECK(too_long.Start().code() == Code::kInvalidArgument);
  const std::string file = root.Write("file", "text");
  Server no_socket({.sockets = {file}});
  CHECK(no_socket.Start().code() == Code::kFailedPrecondition);
  CHECK(root.Read("file") == "text");
}

TEST_CASE("a failure keeps its code and message, and an exception is our bug") {
  testing::TestRoot root;
  bool raise = false;
  TestServer server(root / "s",
                    [&raise](const CallContext&, const InfoRequest&, InfoResponse&) -> Status {
                      if (raise) throw std::runtime_error("oops");
                      return NotFound("no such thing");
                    });
  const Peer peer("it/1", root / "s", 5s);
  auto answer = GetInfo(Soon(), peer);
  CHECK(answer.status().ToString() == "NOT_FOUND: no such thing");
  raise = true;
  answer = GetInfo(Soon(), peer);
  CHECK(answer.code() == Code::kInternal);
  CHECK(server.observer.WaitFor(2).back() == std::string(kInfo) + " INTERNAL");
}

TEST_CASE("the caller's leaving stops the body") {
  testing::TestRoot root;
  std::promise<void> running;
  std::promise<bool> stopped;
  TestServer server(root / "s", [&](const CallContext& cc, const InfoRequest&, InfoResponse&) {
    std::mutex mutex;
    std::condition_variable_any changed;
    std::unique_lock lock(mutex);
    running.set_value();
    changed.wait_for(lock, cc.stop(), 20s, [] { return false; });
    stopped.set_value(cc.stop().stop_requested());
    return Cancelled("stopped");
  });
  std::stop_source stop;
  auto call = std::async(std::launch::async, [&] {
    const CallContext cc(SteadyTime::max(), stop.get_token(), "x");
    return GetInfo(cc, Peer("it/1", root / "s", 5s)).code();
  });
  running.get_future().wait();
  stop.request_stop();
  CHECK(call.get() == Code::kCancelled);
  CHECK(stopped.get_future().get());
}

TEST_CASE("a call whose deadline comes says where its time went before its caller gives up") {
  testing::TestRoot root;
  TestServer server(root / "s", [](const CallContext& cc, const InfoRequest&, InfoResponse&) {
    const work::Stage stage(cc, "plugin slow: ADD");
    std::mutex mutex;
    std::condition_variable never;
    std::unique_lock lock(mutex);
    never.wait_until(lock, cc.deadline(), [] { return false; });
    return cc.Check();
  });
  const auto answer = GetInfo(CallContext::Background(1s, "req-1"), Peer("it/1", root / "s", 5s));
  INFO(answer.status().ToString());
  CHECK(answer.code() == Code::kDeadlineExceeded);
  CHECK(answer.status().message().find("; Info took ") != std::string::npos);
  CHECK(answer.status().message().find("plugin slow: ADD ") != std::string::npos);
  while (!server.pool.operations().UnderWay().empty()) std::this_thread::yield();
  REQUIRE(server.pool.operations().Failed().size() == 1);
  CHECK(server.pool.operations().Failed()[0].request_id == "req-1");
}

TEST_CASE("a full lane is ResourceExhausted") {
  testing::TestRoot root;
  std::promise<void> gate;
  auto open = gate.get_future().share();
  std::promise<void> running;
  TestServer server(root / "s",
                    [&](const CallContext&, const InfoRequest&, InfoResponse&) {
                      running.set_value();
                      open.wait();
                      return Status::Ok();
                    },
                    work::Lane::kMutate, {.mutate = {1, 0}});
  const Peer peer("it/1", root / "s", 5s);
  auto first = std::async(std::launch::async, [&] { return GetInfo(Soon(), peer).ok(); });
  running.get_future().wait();
  CHECK(GetInfo(Soon(), peer).code() == Code::kResourceExhausted);
  gate.set_value();
  CHECK(first.get());
}

TEST_CASE("a peer that stays away is Unavailable by name") {
  testing::TestRoot root;
  const Peer peer("rund/1", root / "s", 50ms);
  const auto answer = GetInfo(Soon(), peer);
  CHECK(answer.code() == Code::kUnavailable);
  CHECK(answer.status().message().find("rund/1 is away") != std::string::npos);
  CHECK_FALSE(peer.Ready());
}

TEST_CASE("a peer that is slow to answer is waited for, not called again and again") {
  testing::TestRoot root;
  const os::UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  (root / "s").copy(address.sun_path, sizeof address.sun_path - 1);
  REQUIRE(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  REQUIRE(::listen(listener.get(), 16) == 0);
  Peer peer("slow", root / "s", 1s);
  CHECK(peer.WaitReady(Soon()).code() == Code::kUnavailable);
  int connections = 0;
  while (os::UniqueFd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC))) ++connections;
  CHECK(connections == 1);
}

TEST_CASE("a call waits for a peer that comes, and is sent again to one that restarts") {
  testing::TestRoot root;
  const Peer peer("rund/1", root / "s", 10s);
  auto early = std::async(std::launch::async, [&] { return GetInfo(Soon(), peer).ok(); });
  std::promise<void> running;
  std::atomic<bool> first{true};
  auto server = std::make_unique<TestServer>(
      root / "s", [&](const CallContext& cc, const InfoRequest&, InfoResponse& response) {
        response.set_service("old");
        if (cc.request_id() != "hang" || !first.exchange(false)) return Status::Ok();
        running.set_value();
        std::mutex mutex;
        std::condition_variable_any changed;
        std::unique_lock lock(mutex);
        changed.wait_for(lock, cc.stop(), 20s, [] { return false; });
        return Cancelled("stopped");
      });
  CHECK(early.get());
  auto broken = std::async(std::launch::async, [&] {
    auto answer = GetInfo(CallContext::Background(20s, "hang"), peer);
    return answer.ok() ? answer->service() : answer.status().ToString();
  });
  running.get_future().wait();
  server.reset();
  server = std::make_unique<TestServer>(root / "s", Answer("new"));
  // The old server's shutdown cancels what is in flight with a status of its own or by the
  // connection's end; both are answers that a caller may see.
  const std::string outcome = broken.get();
  CHECK(
      (outcome == "new" || outcome.starts_with("CANCELLED") || outcome.starts_with("UNAVAILABLE")));
  CHECK(GetInfo(Soon(), peer)->service() == "new");
}

TEST_CASE("health is not serving until told") {
  testing::TestRoot root;
  TestServer server(root / "s", Answer("it"));
  const Peer peer("it/1", root / "s", 5s);
  REQUIRE(peer.WaitReady(Soon()).ok());
  // grpc.health.v1.HealthCheckResponse { ServingStatus status = 1; }, asked without its header.
  const auto check = [&] {
    grpc::GenericStub stub(peer.channel());
    grpc::ClientContext context;
    grpc::ByteBuffer request = StringToBytes("");
    grpc::ByteBuffer response;
    std::promise<grpc::Status> done;
    stub.UnaryCall(&context, "/grpc.health.v1.Health/Check", {}, &request, &response,
                   [&done](const grpc::Status& status) { done.set_value(status); });
    REQUIRE(done.get_future().get().ok());
    return BytesToString(response);
  };
  CHECK(check() == std::string("\x08\x02"));
  server.server.SetServing(true);
  CHECK(check() == std::string("\x08\x01"));
}

TEST_CASE("reflection tells the services and their files") {
  namespace reflection = grpc::reflection::v1alpha;
  testing::TestRoot root;
  TestServer server(root / "s", Answer("it"));
  const Peer peer("it/1", root / "s", 5s);
  REQUIRE(peer.WaitReady(Soon()).ok());
  auto stub = reflection::ServerReflection::NewStub(peer.channel());
  grpc::ClientContext context;
  auto stream = stub->ServerReflectionInfo(&context);
  const auto ask = [&stream](const reflection::ServerReflectionRequest& request) {
    reflection::ServerReflectionResponse answer;
    REQUIRE(stream->Write(request));
    REQUIRE(stream->Read(&answer));
    return answer;
  };
  reflection::ServerReflectionRequest request;
  request.set_list_services("*");
  std::set<std::string> names;
  const auto listed = ask(request);
  for (const auto& service : listed.list_services_response().service())
    names.insert(service.name());
  CHECK(names == std::set<std::string>{"crisp.daemon.v1.Daemon", "grpc.health.v1.Health",
                                       "grpc.reflection.v1alpha.ServerReflection"});
  request.set_file_containing_symbol("crisp.rund.v1.Pods.StopPod");
  // rund.proto, with api.proto and imaged.proto that it imports.
  CHECK(ask(request).file_descriptor_response().file_descriptor_proto_size() == 3);
  request.set_file_by_filename("crisp/daemon/v1/daemon.proto");
  CHECK(ask(request).file_descriptor_response().file_descriptor_proto_size() == 1);
  request.set_file_by_filename("none.proto");
  CHECK(ask(request).error_response().error_code() == 5);
  request.set_all_extension_numbers_of_type("crisp.daemon.v1.InfoRequest");
  CHECK(ask(request).all_extension_numbers_response().extension_number_size() == 0);
  request.mutable_file_containing_extension()->set_containing_type("crisp.daemon.v1.InfoRequest");
  CHECK(ask(request).error_response().error_code() == 5);
  request.clear_message_request();
  CHECK(ask(request).error_response().error_code() == 3);
  stream->WritesDone();
  CHECK(stream->Finish().ok());
}

TEST_CASE("Forward passes a call on with its request id and its failure") {
  testing::TestRoot root;
  std::string seen;
  bool fail = false;
  TestServer back(root / "back", [&](const CallContext& cc, const InfoRequest&, InfoResponse& r) {
    seen = cc.request_id();
    r.set_service("back");
    return fail ? FailedPrecondition("not now") : Status::Ok();
  });
  Front front(root / "front", Peer("back/1", root / "back", 5s));
  const Peer peer("front/1", root / "front", 5s);
  CHECK(GetInfo(Soon(), peer)->service() == "back");
  CHECK(seen == "req-1");
  fail = true;
  CHECK(GetInfo(Soon(), peer).status().ToString() == "FAILED_PRECONDITION: not now");
}

TEST_CASE("Forward names a peer that stays away and waits for one that comes") {
  testing::TestRoot root;
  {
    Front front(root / "front", Peer("back/1", root / "back", 50ms));
    const auto answer = GetInfo(Soon(), Peer("front/1", root / "front", 5s));
    CHECK(answer.status().ToString() == "UNAVAILABLE: back/1 is away");
  }
  Front front(root / "front", Peer("back/1", root / "back", 10s));
  auto call = std::async(std::launch::async,
                         [&] { return GetInfo(Soon(), Peer("front/1", root / "front", 5s)).ok(); });
  TestServer back(root / "back", Answer("back"));
  CHECK(call.get());
}

TEST_CASE("Forward says whom it has waited for when the deadline comes") {
  testing::TestRoot root;
  std::promise<void> end;
  TestServer back(root / "back", [&end](const CallContext&, const InfoRequest&, InfoResponse&) {
    end.get_future().wait();
    return Status::Ok();
  });
  work::Operations operations;
  {
    Front front(root / "front", Peer("back/1", root / "back", 5s),
                {.operations = &operations, .subjects = {"it"}});
    const auto answer =
        GetInfo(CallContext::Background(1s, "req-1"), Peer("front/1", root / "front", 5s));
    INFO(answer.status().ToString());
    CHECK(answer.code() == Code::kDeadlineExceeded);
    CHECK(answer.status().message().find("wait for the answer of back/1") != std::string::npos);
  }
  REQUIRE(operations.Failed().size() == 1);
  CHECK(operations.Failed()[0].kind == "Info");
  CHECK(operations.Failed()[0].subjects == std::vector<std::string>{"it"});
  CHECK(operations.Failed()[0].request_id == "req-1");
  end.set_value();
}

TEST_CASE("what a call is about is read from its request") {
  runtime::v1::CreateContainerRequest create;
  create.set_pod_sandbox_id("0123");
  create.mutable_config()->mutable_metadata()->set_name("c");
  create.mutable_config()->mutable_image()->set_image("busybox:1");
  create.mutable_sandbox_config()->mutable_metadata()->set_name("web");
  create.mutable_sandbox_config()->mutable_metadata()->set_namespace_("default");
  const auto about = AboutCall(create);
  CHECK(about.kind == "CreateContainer");
  CHECK(about.subjects == std::vector<std::string>{"0123", "c", "busybox:1", "default/web"});
  CHECK(AboutCall(grpc::ByteBuffer()).kind == "call");
}

TEST_CASE("Forward cancels the peer's work when the caller goes") {
  testing::TestRoot root;
  std::promise<void> running;
  std::promise<bool> stopped;
  TestServer back(root / "back", [&](const CallContext& cc, const InfoRequest&, InfoResponse&) {
    std::mutex mutex;
    std::condition_variable_any changed;
    std::unique_lock lock(mutex);
    running.set_value();
    changed.wait_for(lock, cc.stop(), 20s, [] { return false; });
    stopped.set_value(cc.stop().stop_requested());
    return Cancelled("stopped");
  });
  Front front(root / "front", Peer("back/1", root / "back", 5s));
  std::stop_source stop;
  auto call = std::async(std::launch::async, [&] {
    return GetInfo(CallContext(SteadyTime::max(), stop.get_token(), "x"),
                   Peer("front/1", root / "front", 5s))
        .code();
  });
  running.get_future().wait();
  stop.request_stop();
  CHECK(call.get() == Code::kCancelled);
  CHECK(stopped.get_future().get());
}

TEST_CASE("Forward survives a caller that goes before it has sent its request") {
  testing::TestRoot root;
  TestServer back(root / "back", Answer("back"));
  Front front(root / "front", Peer("back/1", root / "back", 5s));
  const Peer peer("front/1", root / "front", 5s);
  REQUIRE(GetInfo(Soon(), peer).ok());
  grpc::GenericStub stub(peer.channel());
  grpc::CompletionQueue queue;
  void* tag = nullptr;
  bool ok = false;
  for (int i = 0; i < 20; ++i) {
    grpc::ClientContext context;
    const auto call = stub.PrepareCall(&context, kInfo, &queue);
    call->StartCall(nullptr);
    REQUIRE(queue.Next(&tag, &ok));
    context.TryCancel();
    grpc::Status status;
    call->Finish(&status, nullptr);
    REQUIRE(queue.Next(&tag, &ok));
    CHECK(status.error_code() == grpc::StatusCode::CANCELLED);
  }
  CHECK(GetInfo(Soon(), peer)->service() == "back");
}

TEST_CASE("Forward lets go of a call that has waited for its peer") {
  testing::TestRoot root;
  const Peer to_back("back/1", root / "back", 10s);
  const long before = to_back.channel().use_count() + 1;  // that which Front keeps
  {
    Front front(root / "front", to_back);
    auto call = std::async(std::launch::async, [&] {
      return GetInfo(Soon(), Peer("front/1", root / "front", 5s)).ok();
    });
    // Each look at the peer that is away asks its channel to connect.
    while (to_back.channel()->GetState(false) == GRPC_CHANNEL_IDLE) std::this_thread::yield();
    TestServer back(root / "back", Answer("back"));
    CHECK(call.get());
  }
  const auto until = std::chrono::steady_clock::now() + 10s;
  while (to_back.channel().use_count() > before && std::chrono::steady_clock::now() < until) {
    std::this_thread::yield();
  }
  CHECK(to_back.channel().use_count() == before);
}

TEST_CASE("nobody waits for a peer that is given up") {
  testing::TestRoot root;
  std::stop_source give_up;
  const Peer peer("back/1", root / "back", 1h, give_up.get_token());
  Front front(root / "front", peer);
  const auto cc = [] { return CallContext::Background(1h, "req-1"); };
  auto own = std::async(std::launch::async, [&] { return GetInfo(cc(), peer).status(); });
  auto forwarded = std::async(std::launch::async, [&] {
    return GetInfo(cc(), Peer("front/1", root / "front", 5s)).status();
  });
  give_up.request_stop();
  CHECK(own.get().ToString() == "UNAVAILABLE: back/1 is away");
  CHECK(forwarded.get().ToString() == "UNAVAILABLE: back/1 is away");
}

TEST_CASE("a client that has nothing under way does not hold the server's end up") {
  testing::TestRoot root;
  TestServer server(root / "s", Answer("it"));
  const os::UniqueFd client(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  (root / "s").copy(address.sun_path, sizeof address.sun_path - 1);
  REQUIRE(connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  // An HTTP/2 client that connects, and then neither reads nor writes.
  constexpr std::string_view kPreface{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 33};
  REQUIRE(write(client.get(), kPreface.data(), kPreface.size()) == std::ssize(kPreface));
  char first = 0;
  REQUIRE(read(client.get(), &first, 1) == 1);  // the server's settings: it has heard us
  auto end = std::async(std::launch::async, [&server] { server.server.Shutdown(1h); });
  CHECK(end.wait_for(15s) == std::future_status::ready);
  shutdown(client.get(), SHUT_RDWR);
}

TEST_CASE("bytes that are no message are refused") {
  InfoResponse message;
  CHECK(ParseBytes(StringToBytes("\xff\xff"), message).code() == Code::kInvalidArgument);
}

TEST_CASE("a long message in any bytes fits the metadata of an answer") {
  testing::TestRoot root;
  std::string words;
  TestServer server(root / "s", [&words](const CallContext&, const InfoRequest&, InfoResponse&) {
    return NotFound("{}", words);
  });
  const Peer peer("it/1", root / "s", 5s);
  for (const char* letter : {"x", "%", "\xff", "\xe2\x82\xac"}) {
    words.clear();
    while (words.size() < 4096) words += letter;
    const Status status = GetInfo(Soon(), peer).status();
    CAPTURE(letter);
    CHECK(status.code() == Code::kNotFound);
    CHECK(status.message().starts_with(std::string(letter) + letter));
  }
  // Whole characters only.
  const std::string cut = ToGrpc(NotFound("{}", words)).error_message();
  CHECK(cut.ends_with("\xe2\x82\xac ..."));
}

}  // namespace crisp::rpc
