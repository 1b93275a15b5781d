#include "libs/rpc/server.h"

#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/support/server_interceptor.h>

#include <algorithm>
#include <condition_variable>
#include <filesystem>
#include <map>
#include <mutex>
#include <thread>

#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/os/unique_fd.h"
#include "libs/rpc/acceptor.h"
#include "libs/rpc/metadata.h"
#include "libs/rpc/reflection.h"
#include "libs/rpc/status.h"
#include "libs/rpc/tracing.h"

namespace crisp::rpc {
namespace {

/// For clients to hear that they are to go.
constexpr std::chrono::milliseconds kFarewell{200};

log::Level LevelOf(Code code) {
  switch (code) {
    case Code::kUnknown:
    case Code::kInternal:
    case Code::kDataLoss: return log::Level::kError;
    case Code::kDeadlineExceeded:
    case Code::kResourceExhausted:
    case Code::kUnavailable:
    case Code::kAborted: return log::Level::kWarn;
    case Code::kOk: return log::Level::kTrace;
    // The answers of a healthy day: the kubelet asks after what is gone, streams end.
    case Code::kNotFound:
    case Code::kUnimplemented:
    case Code::kCancelled: return log::Level::kDebug;
    default: return log::Level::kInfo;
  }
}

/// Calls that gRPC has not let go of yet: their answers may not be sent.
class CallCount {
 public:
  void Add() {
    std::lock_guard lock(mutex_);
    ++count_;
  }
  void Drop() {
    std::lock_guard lock(mutex_);
    if (--count_ == 0) changed_.notify_all();
  }
  void WaitNone(std::chrono::system_clock::time_point until) {
    std::unique_lock lock(mutex_);
    changed_.wait_until(lock, until, [this] { return count_ == 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t count_ = 0;
};

/// Sits in each call: counts it, writes the one line about its failure, and tells its span of its
/// trace.
class CallWatch final : public grpc::experimental::Interceptor {
 public:
  CallWatch(const char* method, CallObserver* observer, CallCount& count)
      : method_(method),
        observer_(observer),
        count_(count),
        started_(std::chrono::steady_clock::now()) {
    count_.Add();
    if (observer_ != nullptr) observer_->OnCallStarted(method_);
  }
  ~CallWatch() override {
    if (!done_) Done(Cancelled("the call ended without a status"), "");
    count_.Drop();
  }

  void Intercept(grpc::experimental::InterceptorBatchMethods* batch) override {
    if (batch->QueryInterceptionHookPoint(
            grpc::experimental::InterceptionHookPoints::PRE_SEND_STATUS)) {
      std::string_view id;
      const auto* trailers = batch->GetSendTrailingMetadata();
      if (trailers != nullptr) {
        if (const auto found = trailers->find(kRequestIdKey); found != trailers->end()) {
          id = found->second;
        }
      }
      Done(FromGrpc(batch->GetSendStatus()), id);
    }
    if (trace::Enabled() &&
        batch->QueryInterceptionHookPoint(
            grpc::experimental::InterceptionHookPoints::POST_RECV_INITIAL_METADATA)) {
      BeginSpan(*batch->GetRecvInitialMetadata());
    }
    batch->Proceed();
  }

 private:
  using Metadata = std::multimap<grpc::string_ref, grpc::string_ref>;

  void BeginSpan(Metadata& metadata) {
    trace::Context parent;
    if (const auto found = metadata.find(kTraceParentKey); found != metadata.end()) {
      const std::string_view text(found->second.data(), found->second.size());
      parent = trace::ParseParent(text).value_or(parent);
    }
    // "/runtime.v1.RuntimeService/Version": without the slash, as OpenTelemetry names calls.
    span_ = trace::Span::Begin(std::string(method_.substr(method_.starts_with('/') ? 1 : 0)),
                               trace::Kind::kServer, parent);
    own_ = trace::ToParent(span_.context());
    metadata.erase(kSpanKey);
    metadata.emplace(kSpanKey, own_);
  }

  void Done(const Status& status, std::string_view id) {
    if (std::exchange(done_, true)) return;
    span_.Set("rpc.system", "grpc");
    span_.Set("crisp.request", std::string(id));
    span_.End(status);
    const auto took = std::chrono::steady_clock::now() - started_;
    if (observer_ != nullptr) observer_->OnCallDone(method_, status.code(), took);
    const log::Level level = LevelOf(status.code());
    if (!log::Enabled(level)) return;
    const log::Fields fields = {{"rpc", method_},
                                {"code", CodeName(status.code())},
                                {"request", id},
                                {"seconds", took},
                                {"error", status.message()}};
    switch (level) {
      case log::Level::kTrace: log::Trace("call ended", fields); break;
      case log::Level::kDebug: log::Debug("call ended", fields); break;
      case log::Level::kInfo: log::Info("call refused", fields); break;
      case log::Level::kWarn: log::Warn("call failed", fields); break;
      default: log::Error("call failed", fields); break;
    }
  }

  const std::string_view method_;
  CallObserver* const observer_;
  CallCount& count_;
  const std::chrono::steady_clock::time_point started_;
  trace::Span span_;
  std::string own_;  // the span as its handler finds it
  bool done_ = false;
};

class CallWatchFactory final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  CallWatchFactory(CallObserver* observer, CallCount& count) : observer_(observer), count_(count) {}
  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override {
    return new CallWatch(info->method() == nullptr ? "unknown" : info->method(), observer_, count_);
  }

 private:
  CallObserver* const observer_;
  CallCount& count_;
};

/// One of them is the socket at `path`, by that name or another.
bool Has(const std::vector<Listener>& listeners, const std::string& path) {
  return std::any_of(listeners.begin(), listeners.end(), [&path](const Listener& listener) {
    std::error_code error;
    return listener.path() == path || std::filesystem::equivalent(listener.path(), path, error);
  });
}

/// Once per process: what gRPC keeps in globals.
void PrepareGrpc() {
  static std::once_flag once;
  std::call_once(once, [] {
    grpc::EnableDefaultHealthCheckService(true);
    AddReflectionToServers();
  });
}

}  // namespace

struct Server::Impl {
  explicit Impl(ServerOptions given) : options(std::move(given)) {}
  ServerOptions options;
  std::vector<grpc::Service*> services;
  std::vector<Listener> listeners;  // until Start
  CallCount calls;
  std::unique_ptr<grpc::Server> server;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> connections;
  std::unique_ptr<Acceptor> acceptor;  // last: it hands on to them

  Status Listen();
  void Take(os::UniqueFd connection);
};

Server::Server(ServerOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}

Server::~Server() { Shutdown(std::chrono::nanoseconds(0)); }

void Server::AddService(grpc::Service* service) { impl_->services.push_back(service); }

void Server::AddListener(Listener listener) { impl_->listeners.push_back(std::move(listener)); }

Status Server::Start() {
  PrepareGrpc();
  // Who connects from now on waits in the queues.
  CRISP_TRY(impl_->Listen());

  const ServerOptions& options = impl_->options;
  grpc::ServerBuilder builder;
  impl_->connections = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD,
      grpc::InsecureServerCredentials());
  for (grpc::Service* service : impl_->services) builder.RegisterService(service);
  const int max_message = static_cast<int>(options.max_message.count());
  builder.SetMaxReceiveMessageSize(max_message);
  builder.SetMaxSendMessageSize(max_message);
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> watches;
  watches.push_back(std::make_unique<CallWatchFactory>(options.observer, impl_->calls));
  builder.experimental().SetInterceptorCreators(std::move(watches));

  impl_->server = builder.BuildAndStart();
  if (impl_->server == nullptr) return Internal("gRPC makes no server");
  SetServing(false);
  impl_->acceptor =
      CRISP_TRY(Acceptor::Start(std::move(impl_->listeners), [impl = impl_.get()](os::UniqueFd fd) {
        impl->Take(std::move(fd));
      }));
  return Status::Ok();
}

Status Server::Impl::Listen() {
  for (const std::string& path : options.sockets) {
    if (Has(listeners, path)) continue;
    listeners.push_back(CRISP_TRY(Listener::Bind(path, options.socket_mode)));
  }
  return Status::Ok();
}

void Server::Impl::Take(os::UniqueFd connection) {
  grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters parameters;
  parameters.fd = connection.release();
  connections->HandleNewConnection(&parameters);
}

void Server::SetServing(bool serving) {
  if (impl_->server == nullptr) return;
  if (auto* health = impl_->server->GetHealthCheckService()) health->SetServingStatus(serving);
}

void Server::Close() {
  if (impl_->acceptor != nullptr) impl_->acceptor->Close(kFarewell);
}

void Server::Shutdown(std::chrono::nanoseconds grace) {
  if (impl_->server == nullptr) return;
  // First: gRPC loses connections that come after its end has begun.
  impl_->acceptor.reset();
  SetServing(false);
  const auto until = std::chrono::system_clock::now() +
                     std::chrono::duration_cast<std::chrono::microseconds>(grace);
  // It ends with the last connection, and a client that has nothing under way may read only seconds
  // later that it is to close its own: we do, once no call is left.
  std::thread shutdown([this, until] { impl_->server->Shutdown(until); });
  if (grace > grace.zero()) {  // else it does so itself
    impl_->calls.WaitNone(until);
    grpc_server_cancel_all_calls(impl_->server->c_server());
  }
  shutdown.join();
  impl_->server.reset();
}

}  // namespace crisp::rpc
