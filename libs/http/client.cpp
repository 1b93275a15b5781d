#include "libs/http/client.h"

#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>

#include "libs/base/guarded.h"
#include "libs/base/try.h"

namespace crisp::http {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
using ErrorCode = boost::system::error_code;
using Tcp = asio::ip::tcp;

constexpr std::size_t kMaxIdle = 16;
constexpr auto kMaxIdleTime = std::chrono::seconds(30);

std::string Reason(const ErrorCode& error) {
  if (error.category() == asio::error::get_ssl_category()) {
    const char* reason = ::ERR_reason_error_string(static_cast<unsigned long>(error.value()));
    return fmt::format("TLS: {}", reason == nullptr ? "protocol error" : reason);
  }
  if (error == asio::error::eof || error == beast::http::error::end_of_stream ||
      error == beast::http::error::partial_message || error == asio::ssl::error::stream_truncated)
    return "the peer closed the connection";
  return error.message();
}

bool SameText(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [lower](char x, char y) {
           return lower(x) == lower(y);
         });
}

bool IsIpAddress(const std::string& host) {
  ErrorCode error;
  asio::ip::make_address(host, error);
  return !error;
}

}  // namespace

namespace internal {

/// One connection with an event loop of its own, which runs only while its thread waits for it.
class Connection {
 public:
  Connection(std::string key, std::shared_ptr<asio::ssl::context> tls_context)
      : key_(std::move(key)), tls_context_(std::move(tls_context)), socket_(loop_) {}

  const std::string& key() const { return key_; }
  bool used_before() const { return used_; }
  void MarkUsed() { used_ = true; }
  SteadyTime idle_since;

  Status Connect(const CallContext& cc, const ResolvedAddress& address,
                 std::chrono::nanoseconds limit) {
    const Tcp::endpoint endpoint(asio::ip::make_address(address.ip), address.port);
    CRISP_TRY(Run(cc, limit, "connect",
                  [&](auto done) { socket_.async_connect(endpoint, std::move(done)); }));
    ErrorCode ignored;
    socket_.set_option(Tcp::no_delay(true), ignored);
    return Status::Ok();
  }

  /// `not_tls` tells a peer that answers something else from one whose TLS fails.
  Status Handshake(const CallContext& cc, const std::string& host, bool verify,
                   std::chrono::nanoseconds limit, bool* not_tls = nullptr) {
    tls_.emplace(socket_, *tls_context_);
    if (!IsIpAddress(host))  // what SSL_set_tlsext_host_name stands for, without its C cast
      ::SSL_ctrl(tls_->native_handle(), SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name,
                 const_cast<char*>(host.c_str()));
    ErrorCode ignored;
    tls_->set_verify_mode(verify ? asio::ssl::verify_peer : asio::ssl::verify_none, ignored);
    if (verify) tls_->set_verify_callback(asio::ssl::host_name_verification(host), ignored);
    ErrorCode error;
    Status status = Run(
        cc, limit, "TLS handshake",
        [&](auto done) { tls_->async_handshake(asio::ssl::stream_base::client, std::move(done)); },
        &error);
    if (status.ok()) return status;
    const long verdict = ::SSL_get_verify_result(tls_->native_handle());
    if (verify && verdict != X509_V_OK)
      return Unavailable("the certificate of {} is not trusted ({})", host,
                         ::X509_verify_cert_error_string(verdict));
    const int reason = ERR_GET_REASON(static_cast<unsigned long>(error.value()));
    if (not_tls != nullptr)
      *not_tls = error == asio::error::eof || error == asio::error::connection_reset ||
                 error == asio::ssl::error::stream_truncated ||
                 (error.category() == asio::error::get_ssl_category() &&
                  (reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_HTTP_REQUEST ||
                   reason == SSL_R_PACKET_LENGTH_TOO_LONG || reason == SSL_R_UNEXPECTED_MESSAGE));
    return status;
  }

  Status Write(const CallContext& cc, std::string_view text, std::chrono::nanoseconds limit) {
    return Run(cc, limit, "send", [&](auto done) {
      if (tls_) {
        asio::async_write(*tls_, asio::buffer(text.data(), text.size()), std::move(done));
      } else {
        asio::async_write(socket_, asio::buffer(text.data(), text.size()), std::move(done));
      }
    });
  }

  Status ReadHeader(const CallContext& cc, std::chrono::nanoseconds limit, Bytes max_header,
                    bool head) {
    parser_.emplace();
    parser_->body_limit(boost::none);
    parser_->header_limit(static_cast<std::uint32_t>(max_header.count()));
    parser_->skip(head);
    return Run(cc, limit, "read", [&](auto done) {
      if (tls_) {
        beast::http::async_read_header(*tls_, buffer_, *parser_, std::move(done));
      } else {
        beast::http::async_read_header(socket_, buffer_, *parser_, std::move(done));
      }
    });
  }

  /// For a body whose length is known: what came with the header first, then straight from the
  /// socket into the caller's buffer.
  Result<std::size_t> ReadSome(const CallContext& cc, std::span<char> into,
                               std::chrono::nanoseconds limit) {
    if (buffer_.size() > 0) {
      const std::size_t count = std::min(into.size(), buffer_.size());
      std::memcpy(into.data(), buffer_.data().data(), count);
      buffer_.consume(count);
      return count;
    }
    std::size_t count = 0;
    CRISP_TRY(Run(cc, limit, "read", [&](auto done) {
      auto finish = [&count, done](ErrorCode error, std::size_t got) mutable {
        count = got;
        done(error);
      };
      if (tls_) {
        tls_->async_read_some(asio::buffer(into.data(), into.size()), std::move(finish));
      } else {
        socket_.async_read_some(asio::buffer(into.data(), into.size()), std::move(finish));
      }
    }));
    return count;
  }

  /// For chunked bodies and those that end with the connection.
  Result<std::size_t> ReadParsed(const CallContext& cc, std::span<char> into,
                                 std::chrono::nanoseconds limit) {
    while (!parser_->is_done()) {
      auto& body = parser_->get().body();
      body.data = into.data();
      body.size = into.size();
      body.more = true;
      ErrorCode error;
      const Status status = Run(
          cc, limit, "read",
          [&](auto done) {
            if (tls_) {
              beast::http::async_read_some(*tls_, buffer_, *parser_, std::move(done));
            } else {
              beast::http::async_read_some(socket_, buffer_, *parser_, std::move(done));
            }
          },
          &error);
      const std::size_t made = into.size() - parser_->get().body().size;
      if (!status.ok() && error != beast::http::error::need_buffer) return status;
      if (made > 0) return made;
    }
    return std::size_t{0};
  }

  auto& parser() { return *parser_; }

 private:
  /// Starts an asynchronous operation and runs the loop until it is done, the call's deadline or
  /// `limit` has passed, or the caller has left. After a failure the connection is of no use.
  template <typename Start>
  Status Run(const CallContext& cc, std::chrono::nanoseconds limit, std::string_view what,
             Start start, ErrorCode* error_out = nullptr) {
    CRISP_TRY(cc.Check());
    ErrorCode error;
    bool finished = false;
    loop_.restart();
    start([&error, &finished](ErrorCode outcome, auto...) {
      error = outcome;
      finished = true;
    });
    const std::stop_callback wake(cc.stop(), [this] { asio::post(loop_, [] {}); });
    const SteadyTime until = std::min(cc.deadline(), std::chrono::steady_clock::now() + limit);
    while (!finished && !cc.stop().stop_requested() && loop_.run_one_until(until) > 0) {
    }
    const bool in_time = finished;
    if (!finished) {
      ErrorCode ignored;
      socket_.close(ignored);
      loop_.restart();
      while (!finished && loop_.run_one() > 0) {
      }
    }
    if (!in_time) {
      CRISP_TRY(cc.Check());
      return Unavailable("{}: no answer for {} s", what,
                         std::chrono::duration_cast<std::chrono::seconds>(limit).count());
    }
    if (error_out != nullptr) *error_out = error;
    if (error) return Unavailable("{}: {}", what, Reason(error));
    return Status::Ok();
  }

  std::string key_;
  std::shared_ptr<asio::ssl::context> tls_context_;
  asio::io_context loop_{1};
  Tcp::socket socket_;
  std::optional<asio::ssl::stream<Tcp::socket&>> tls_;
  beast::flat_buffer buffer_;
  std::optional<beast::http::response_parser<beast::http::buffer_body>> parser_;
  bool used_ = false;
};

/// What a client and its answers share: the connections that wait for their next request.
struct ClientState {
  struct Shared {
    std::multimap<std::string, std::unique_ptr<Connection>> idle;
    std::shared_ptr<asio::ssl::context> tls;
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

  Result<std::shared_ptr<asio::ssl::context>> TlsContext() {
    auto lock = shared.lock();
    if (lock->tls) return lock->tls;
    auto context = std::make_shared<asio::ssl::context>(asio::ssl::context::tls_client);
    ErrorCode error;
    context->set_default_verify_paths(error);
    if (!error && !options.ca_file.empty()) context->load_verify_file(options.ca_file, error);
    if (error) return Unavailable("cannot load the trusted certificates: {}", error.message());
    ::SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
    lock->tls = std::move(context);
    return lock->tls;
  }
};

}  // namespace internal

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
  if (connection_ && keep_alive_) state_->GiveBack(std::move(connection_));
  connection_.reset();
}

Result<std::size_t> Response::Read(const CallContext& cc, std::span<char> into) {
  if (ended_ || into.empty()) return std::size_t{0};
  if (!connection_) return Unavailable("read: the connection is closed");
  const auto limit = state_->options.stall_timeout;
  Result<std::size_t> count =
      content_length_
          ? connection_->ReadSome(
                cc,
                into.first(static_cast<std::size_t>(std::min<std::uint64_t>(into.size(), left_))),
                limit)
          : connection_->ReadParsed(cc, into, limit);
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

Result<std::unique_ptr<internal::Connection>> Client::Connect(const CallContext& cc, const Url& url,
                                                              bool verify_tls) {
  const std::vector<ResolvedAddress> addresses =
      CRISP_TRY(ResolveHost(cc, url.host, url.port).While("{}", url.HostPort()));
  std::shared_ptr<asio::ssl::context> tls;
  if (url.tls()) tls = CRISP_TRY(state_->TlsContext());
  Status last = Unavailable("no address");
  for (const ResolvedAddress& address : addresses) {
    auto connection =
        std::make_unique<internal::Connection>(url.Origin() + (verify_tls ? "" : " insecure"), tls);
    last = connection->Connect(cc, address, options_.connect_timeout);
    if (last.ok() && url.tls())
      last = connection->Handshake(cc, url.host, verify_tls, options_.connect_timeout);
    if (last.ok()) return connection;
    if (last.code() != Code::kUnavailable) break;
  }
  return std::move(last).While("{}", url.HostPort());
}

Result<bool> Client::SpeaksTls(const CallContext& cc, const Url& url, bool verify_tls) {
  const std::vector<ResolvedAddress> addresses =
      CRISP_TRY(ResolveHost(cc, url.host, url.port).While("{}", url.HostPort()));
  const auto tls = CRISP_TRY(state_->TlsContext());
  Status last = Unavailable("no address");
  for (const ResolvedAddress& address : addresses) {
    auto connection =
        std::make_unique<internal::Connection>(url.Origin() + (verify_tls ? "" : " insecure"), tls);
    last = connection->Connect(cc, address, options_.connect_timeout);
    if (!last.ok()) continue;
    bool not_tls = false;
    last = connection->Handshake(cc, url.host, verify_tls, options_.connect_timeout, &not_tls);
    if (last.ok()) {
      state_->GiveBack(std::move(connection));
      return true;
    }
    if (not_tls) return false;
  }
  return std::move(last).While("{}", url.HostPort());
}

Result<Response> Client::SendOnce(const CallContext& cc, const Request& request, const Url& url,
                                  bool with_authorization) {
  std::string head = fmt::format("{} {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: {}\r\n", request.method,
                                 url.target, url.HostPort(), options_.user_agent);
  for (const auto& [name, value] : request.headers) {
    if (value.find_first_of("\r\n") != std::string::npos)
      return InvalidArgument("a header value with a line break");
    head += fmt::format("{}: {}\r\n", name, value);
  }
  if (with_authorization && !request.authorization.empty()) {
    if (request.authorization.find_first_of("\r\n") != std::string::npos)
      return InvalidArgument("credentials with a line break");
    head += fmt::format("Authorization: {}\r\n", request.authorization);
  }
  if (!request.body.empty() || request.method == "POST")
    head += fmt::format("Content-Length: {}\r\n", request.body.size());
  head += "\r\n";
  head += request.body;

  const std::string key = url.Origin() + (request.verify_tls ? "" : " insecure");
  std::unique_ptr<internal::Connection> connection;
  while (true) {
    connection = state_->TakeIdle(key);
    if (!connection) connection = CRISP_TRY(Connect(cc, url, request.verify_tls));
    Status status = connection->Write(cc, head, options_.stall_timeout);
    if (status.ok())
      status = connection->ReadHeader(cc, options_.stall_timeout, options_.max_header,
                                      request.method == "HEAD");
    if (status.ok()) break;
    // The peer may have closed an idle connection just now: that says nothing about the next one.
    if (connection->used_before() && status.code() == Code::kUnavailable) continue;
    return std::move(status).While("{}", url.HostPort());
  }

  Response response;
  response.url_ = url;
  response.state_ = state_;
  auto& parser = connection->parser();
  const auto& message = parser.get();
  response.status_ = static_cast<int>(message.result_int());
  for (const auto& field : message) {
    const auto name = field.name_string();
    const auto value = field.value();
    response.headers_.emplace_back(std::string(name.data(), name.size()),
                                   std::string(value.data(), value.size()));
  }
  response.keep_alive_ = message.keep_alive();
  if (const auto length = parser.content_length()) response.content_length_ = *length;
  const bool no_body = request.method == "HEAD" || response.status_ == 204 ||
                       response.status_ == 304 || response.status_ / 100 == 1;
  response.left_ = response.content_length_.value_or(0);
  response.connection_ = std::move(connection);
  if (no_body || (response.content_length_ && response.left_ == 0) ||
      (!response.content_length_ && response.connection_->parser().is_done()))
    response.GiveBack();
  return response;
}

Result<Response> Client::Send(const CallContext& cc, const Request& request) {
  Url url = request.url;
  for (int redirects = 0;; ++redirects) {
    const bool same_origin = url.Origin() == request.url.Origin();
    Response response = CRISP_TRY(SendOnce(cc, request, url, same_origin));
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

bool IsLoopbackHost(std::string_view host) {
  if (host == "localhost" || host.ends_with(".localhost")) return true;
  ErrorCode error;
  const auto address = asio::ip::make_address(std::string(host), error);
  return !error && address.is_loopback();
}

Result<std::vector<ResolvedAddress>> ResolveHost(const CallContext& cc, const std::string& host,
                                                 std::uint16_t port) {
  if (IsIpAddress(host)) return std::vector<ResolvedAddress>{{host, port}};
  // getaddrinfo(3) knows no deadline: it runs on a thread that nobody has to wait for.
  struct Lookup {
    std::mutex mutex;
    std::condition_variable_any changed;
    bool done = false;
    int error = 0;
    std::vector<ResolvedAddress> addresses;
  };
  auto lookup = std::make_shared<Lookup>();
  std::thread([lookup, host, port] {
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_ADDRCONFIG;
    addrinfo* found = nullptr;
    int error = ::getaddrinfo(host.c_str(), nullptr, &hints, &found);
    if (error != 0 && host == "localhost") {  // loopback only: ADDRCONFIG leaves nothing
      hints.ai_flags = 0;
      error = ::getaddrinfo(host.c_str(), nullptr, &hints, &found);
    }
    const std::unique_lock lock(lookup->mutex);
    lookup->error = error;
    for (const addrinfo* each = error == 0 ? found : nullptr; each != nullptr;
         each = each->ai_next) {
      std::array<char, NI_MAXHOST> text;
      if (::getnameinfo(each->ai_addr, each->ai_addrlen, text.data(), text.size(), nullptr, 0,
                        NI_NUMERICHOST) == 0)
        lookup->addresses.push_back({text.data(), port});
    }
    if (found != nullptr) ::freeaddrinfo(found);
    lookup->done = true;
    lookup->changed.notify_all();
  }).detach();
  std::unique_lock lock(lookup->mutex);
  const auto is_done = [&lookup] { return lookup->done; };
  const SteadyTime until =
      std::min(cc.deadline(), std::chrono::steady_clock::now() + std::chrono::seconds(20));
  lookup->changed.wait_until(lock, cc.stop(), until, is_done);
  if (!lookup->done) {
    CRISP_TRY(cc.Check());
    return Unavailable("the name {} was not resolved within 20 s", host);
  }
  if (lookup->error != 0)
    return Unavailable("the name {} does not resolve: {}", host, ::gai_strerror(lookup->error));
  if (lookup->addresses.empty()) return Unavailable("the name {} has no address", host);
  return lookup->addresses;
}

}  // namespace crisp::http
