#include "libs/http/client.h"

#include <algorithm>
#include <map>

#include "libs/base/guarded.h"
#include "libs/base/text.h"
#include "libs/base/try.h"
#include "libs/http/connection.h"

namespace crisp::http {
namespace {

constexpr std::size_t kMaxIdle = 16;
constexpr auto kMaxIdleTime = std::chrono::seconds(30);

bool SameText(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [lower](char x, char y) {
           return lower(x) == lower(y);
         });
}

/// What a connection may be used again for: the same peer, believed for the same reasons.
std::string KeyOf(const Request& request, const Url& url, const Proxy* proxy) {
  std::string key = url.Origin() + (request.verify_tls ? "" : " insecure");
  if (url.tls() && request.tls) key += " " + request.tls->key;
  // A plain proxy takes requests for anybody.
  if (proxy != nullptr && proxy->kind == Proxy::Kind::kHttp && !url.tls()) key.clear();
  return proxy == nullptr ? key : key + " by " + proxy->ForLog();
}

}  // namespace

namespace internal {

/// What a client and its answers share: the connections that wait for their next request.
struct ClientState {
  struct Shared {
    std::multimap<std::string, std::unique_ptr<Connection>> idle;
    std::map<std::string, std::shared_ptr<TlsContext>> tls;  // by TlsOptions::key
  };
  Guarded<Shared> shared;
  ClientOptions options;

  std::unique_ptr<Connection> TakeIdle(const std::string& key) {
    std::vector<std::unique_ptr<Connection>> stale;  // closed outside the lock
    auto lock = shared.lock();
    const SteadyTime oldest = std::chrono::steady_clock::now() - kMaxIdleTime;
    for (auto it = lock->idle.find(key); it != lock->idle.end() && it->first == key;) {
      std::unique_ptr<Connection> connection = std::move(it->second);
      it = lock->idle.erase(it);
      if (connection->idle_since >= oldest) return connection;
      stale.push_back(std::move(connection));
    }
    return nullptr;
  }

  void GiveBack(std::unique_ptr<Connection> connection) {
    connection->idle_since = std::chrono::steady_clock::now();
    connection->MarkUsed();
    auto lock = shared.lock();
    if (lock->idle.size() >= kMaxIdle) return;
    std::string key = connection->key();
    lock->idle.emplace(std::move(key), std::move(connection));
  }

  Result<std::shared_ptr<TlsContext>> TlsFor(const Request& request) {
    auto lock = shared.lock();
    std::shared_ptr<TlsContext>& context = lock->tls[request.tls ? request.tls->key : ""];
    if (!context) context = CRISP_TRY(TlsContext::Make(options.ca_file, request.tls.get()));
    return context;
  }
};

}  // namespace internal

std::shared_ptr<const TlsOptions> WithoutCertificate(TlsOptions options) {
  options.client_cert.clear();
  options.client_key.clear();
  options.key += " without certificate";
  return std::make_shared<const TlsOptions>(std::move(options));
}

Response::Response(Response&&) noexcept = default;
Response& Response::operator=(Response&&) noexcept = default;
Response::~Response() = default;

std::string Response::Header(std::string_view name) const {
  for (const auto& [key, value] : headers_)
    if (SameText(key, name)) return value;
  return {};
}

std::vector<std::string> Response::HeaderValues(std::string_view name) const {
  std::vector<std::string> values;
  for (const auto& [key, value] : headers_)
    if (SameText(key, name)) values.push_back(value);
  return values;
}

void Response::GiveBack() {
  ended_ = true;
  if (connection_ && keep_alive_ && connection_->quiet()) state_->GiveBack(std::move(connection_));
  connection_.reset();
}

/// Only the time spent waiting for the peer counts: a slow reader is not the peer's fault.
Status Response::CheckRate(std::chrono::nanoseconds waited, std::size_t count) {
  const ClientOptions& options = state_->options;
  waited_ += waited;
  came_ += count;
  if (waited_ < options.stall_timeout) return Status::Ok();
  const auto seconds = std::chrono::duration<double>(waited_).count();
  const auto rate = static_cast<std::uint64_t>(static_cast<double>(came_) / seconds);
  waited_ = waited_.zero();
  came_ = 0;
  if (rate >= options.min_rate.count()) return Status::Ok();
  return Unavailable("read: {} bytes a second, less than the {} wanted", rate,
                     options.min_rate.count());
}

Result<std::size_t> Response::Read(const CallContext& cc, std::span<char> into) {
  if (ended_ || into.empty()) return std::size_t{0};
  if (!connection_) return Unavailable("read: the connection is closed");
  const auto limit = state_->options.stall_timeout;
  const SteadyTime before = std::chrono::steady_clock::now();
  Result<std::size_t> count =
      content_length_
          ? connection_->ReadSome(
                cc,
                into.first(static_cast<std::size_t>(std::min<std::uint64_t>(into.size(), left_))),
                limit)
          : connection_->ReadParsed(cc, into, limit);
  if (count.ok()) {
    if (Status slow = CheckRate(std::chrono::steady_clock::now() - before, *count); !slow.ok())
      count = std::move(slow);
  }
  if (!count.ok()) {
    connection_.reset();
    return count;
  }
  if (content_length_) {
    left_ -= *count;
    if (left_ == 0) GiveBack();
  } else if (*count == 0) {
    GiveBack();
  }
  return count;
}

Result<std::string> Response::ReadAll(const CallContext& cc, Bytes limit) {
  std::string body;
  if (content_length_ && *content_length_ > limit.count())
    return ResourceExhausted("{}: the answer of {} bytes is larger than the {} allowed",
                             url_.ForLog(), *content_length_, limit.count());
  constexpr std::size_t kStep = 16384;
  while (true) {
    const std::size_t before = body.size();
    body.resize(before + kStep);
    const Result<std::size_t> count = Read(cc, std::span(body).subspan(before));
    body.resize(before + (count.ok() ? *count : 0));
    if (!count.ok()) return count.status().While("{}", url_.ForLog());
    if (*count == 0) return body;
    if (body.size() > limit.count())
      return ResourceExhausted("{}: the answer is larger than the {} bytes allowed", url_.ForLog(),
                               limit.count());
  }
}

Client::Client(ClientOptions options)
    : options_(std::move(options)), state_(std::make_shared<internal::ClientState>()) {
  state_->options = options_;
}
Client::~Client() = default;

void Client::Trim() {
  internal::ClientState::Shared old;  // closed outside the lock
  auto lock = state_->shared.lock();
  std::swap(old.idle, lock->idle);
  std::swap(old.tls, lock->tls);
}

/// A connection to the peer of `url` or to its proxy, without TLS to the peer yet.
Result<std::unique_ptr<internal::Connection>> Client::Reach(const CallContext& cc,
                                                            const Request& request, const Url& url,
                                                            const ResolvedAddress& address) {
  const Proxy* proxy = options_.proxy.For(url);
  auto connection = std::make_unique<internal::Connection>(KeyOf(request, url, proxy));
  Status status = connection->Connect(cc, address, options_.connect_timeout);
  if (proxy != nullptr) {
    CRISP_TRY(std::move(status).While("proxy {}", proxy->ForLog()));
    if (url.tls() || proxy->kind == Proxy::Kind::kSocks5)
      CRISP_TRY(connection->Tunnel(cc, *proxy, url, options_.connect_timeout));
    return connection;
  }
  CRISP_TRY(std::move(status));
  return connection;
}

Result<std::vector<ResolvedAddress>> Client::AddressesOf(const CallContext& cc, const Url& url) {
  const Proxy* proxy = options_.proxy.For(url);
  if (proxy != nullptr)
    return ResolveHost(cc, proxy->host, proxy->port).While("proxy {}", proxy->ForLog());
  return ResolveHost(cc, url.host, url.port);
}

Result<std::unique_ptr<internal::Connection>> Client::Connect(const CallContext& cc,
                                                              const Request& request,
                                                              const Url& url) {
  std::shared_ptr<internal::TlsContext> tls;
  if (url.tls()) tls = CRISP_TRY(state_->TlsFor(request));
  Status last = Unavailable("no address");
  for (const ResolvedAddress& address :
       CRISP_TRY(AddressesOf(cc, url).While("{}", url.HostPort()))) {
    Result<std::unique_ptr<internal::Connection>> reached = Reach(cc, request, url, address);
    last = reached.ok() ? Status::Ok() : reached.status();
    if (last.ok() && url.tls())
      last = (*reached)->Handshake(cc, tls, url.host, request.verify_tls, options_.connect_timeout);
    if (last.ok()) return *std::move(reached);
    if (last.code() != Code::kUnavailable) break;
  }
  return std::move(last).While("{}", url.HostPort());
}

Result<bool> Client::SpeaksTls(const CallContext& cc, const Request& request) {
  const Url& url = request.url;
  const auto tls = CRISP_TRY(state_->TlsFor(request));
  Status last = Unavailable("no address");
  for (const ResolvedAddress& address :
       CRISP_TRY(AddressesOf(cc, url).While("{}", url.HostPort()))) {
    Result<std::unique_ptr<internal::Connection>> reached = Reach(cc, request, url, address);
    last = reached.ok() ? Status::Ok() : reached.status();
    if (!last.ok()) continue;
    bool not_tls = false;
    last = (*reached)->Handshake(cc, tls, url.host, request.verify_tls, options_.connect_timeout,
                                 &not_tls);
    if (last.ok()) {
      state_->GiveBack(*std::move(reached));
      return true;
    }
    if (not_tls) return false;
  }
  return std::move(last).While("{}", url.HostPort());
}

Result<std::string> Client::HeadOf(const Request& request, const Url& url, bool same_origin) const {
  const Proxy* proxy = options_.proxy.For(url);
  const bool by_proxy = proxy != nullptr && proxy->kind == Proxy::Kind::kHttp && !url.tls();
  std::string head = fmt::format("{} {}{} HTTP/1.1\r\nHost: {}\r\nUser-Agent: {}\r\n",
                                 request.method, by_proxy ? "http://" + url.HostPort() : "",
                                 url.target, url.HostPort(), options_.user_agent);
  const auto add = [&head](const std::string& name, const std::string& value) -> Status {
    if ((name + value).find_first_of("\r\n") != std::string::npos)
      return InvalidArgument("a line break in the header {}", name.substr(0, name.find('\r')));
    head += fmt::format("{}: {}\r\n", name, value);
    return Status::Ok();
  };
  for (const auto& [name, value] : request.headers) CRISP_TRY(add(name, value));
  if (same_origin) {
    for (const auto& [name, value] : request.origin_headers)
      if (request.authorization.empty() || !SameText(name, "Authorization"))
        CRISP_TRY(add(name, value));
    if (!request.authorization.empty()) CRISP_TRY(add("Authorization", request.authorization));
  }
  if (by_proxy && !proxy->username.empty())
    CRISP_TRY(
        add("Proxy-Authorization", "Basic " + Base64(proxy->username + ":" + proxy->password)));
  if (!request.body.empty() || request.method == "POST")
    head += fmt::format("Content-Length: {}\r\n", request.body.size());
  return head + "\r\n" + request.body;
}

/// The header of the answer proper: what comes before it (1xx) is not asked for and passed over.
Result<internal::Head> Client::ReadFinalHeader(const CallContext& cc,
                                               internal::Connection& connection,
                                               const Request& request) const {
  constexpr int kSwitching = 101;
  constexpr int kMaxInterim = 8;
  for (int interim = 0; interim <= kMaxInterim; ++interim) {
    internal::Head head = CRISP_TRY(connection.ReadHeader(
        cc, options_.stall_timeout, options_.max_header, request.method == "HEAD"));
    if (head.status / 100 != 1) return head;
    if (head.status == kSwitching) return Unavailable("it switches to another protocol");
  }
  return Unavailable("more than {} answers before the final one", kMaxInterim);
}

Result<Response> Client::SendOnce(const CallContext& cc, const Request& request, const Url& url,
                                  bool same_origin) {
  const std::string text = CRISP_TRY(HeadOf(request, url, same_origin));
  const std::string key = KeyOf(request, url, options_.proxy.For(url));
  std::unique_ptr<internal::Connection> connection;
  internal::Head head;
  while (true) {
    connection = state_->TakeIdle(key);
    if (!connection) connection = CRISP_TRY(Connect(cc, request, url));
    Status status = connection->Write(cc, text, options_.stall_timeout);
    if (status.ok()) {
      Result<internal::Head> answer = ReadFinalHeader(cc, *connection, request);
      if (answer.ok()) {
        head = *std::move(answer);
        break;
      }
      status = std::move(answer).status();
    }
    // The peer may have closed an idle connection just now: that says nothing about the next one.
    if (connection->used_before() && status.code() == Code::kUnavailable) continue;
    return std::move(status).While("{}", url.HostPort());
  }

  Response response;
  response.url_ = url;
  response.state_ = state_;
  response.status_ = head.status;
  response.headers_ = std::move(head.headers);
  response.keep_alive_ = head.keep_alive;
  response.content_length_ = head.content_length;
  const bool no_body =
      request.method == "HEAD" || response.status_ == 204 || response.status_ == 304;
  response.left_ = response.content_length_.value_or(0);
  response.connection_ = std::move(connection);
  if (no_body || (response.content_length_ && response.left_ == 0) ||
      (!response.content_length_ && head.done))
    response.GiveBack();
  return response;
}

Result<Response> Client::Send(const CallContext& cc, const Request& request) {
  Url url = request.url;
  Request elsewhere;  // the same without the certificate, which is shown to its own origin only
  for (int redirects = 0;; ++redirects) {
    const bool same_origin = url.Origin() == request.url.Origin();
    const bool hide = !same_origin && request.tls && !request.tls->client_cert.empty();
    if (hide && !elsewhere.tls) {
      elsewhere = request;
      elsewhere.tls = WithoutCertificate(*request.tls);
    }
    Response response = CRISP_TRY(SendOnce(cc, hide ? elsewhere : request, url, same_origin));
    const int status = response.status();
    const bool redirect =
        status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
    if (!redirect || (request.method != "GET" && request.method != "HEAD")) return response;
    const std::string location = response.Header("Location");
    if (location.empty()) return response;
    if (redirects >= options_.max_redirects)
      return Unavailable("{}: more than {} redirects", request.url.HostPort(),
                         options_.max_redirects);
    Url next = CRISP_TRY(url.Resolve(location).While("{}: redirect", url.HostPort()));
    if (url.tls() && !next.tls())
      return Unavailable("{}: refuses to follow a redirect from https to http", url.HostPort());
    // A short body is read so that the connection can go on.
    if (response.content_length().value_or(0) <= 4096)
      static_cast<void>(response.ReadAll(cc.Within(std::chrono::seconds(2)), KiB(64)).ok());
    url = std::move(next);
  }
}

}  // namespace crisp::http
