#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/base/units.h"
#include "libs/http/proxy.h"
#include "libs/http/url.h"

namespace crisp::http {

struct ClientOptions {
  std::string user_agent = "crisp";
  std::chrono::nanoseconds connect_timeout = std::chrono::seconds(15);  // per address, with TLS
  // No byte for so long is a broken connection, whatever the deadline of the call.
  std::chrono::nanoseconds stall_timeout = std::chrono::seconds(60);
  // A body that comes slower than so many bytes a second, over stall_timeout of waiting for it, is
  // as good as broken. 0: any rate will do.
  Bytes min_rate{0};
  Bytes max_header = KiB(64);
  int max_redirects = 10;
  std::string ca_file;  // besides the system's; for tests
  ProxyConfig proxy;
};

/// Whom to believe, besides the system's authorities, and what to show. PEM files.
struct TlsOptions {
  std::vector<std::string> ca_files;
  std::string client_cert;  // empty: none is shown; never to another origin than the request's
  std::string client_key;
  std::string key;  // equal only for equal contents: connections and loaded files are shared by it
};

/// The same authorities, and nothing to show.
std::shared_ptr<const TlsOptions> WithoutCertificate(TlsOptions options);

using Headers = std::vector<std::pair<std::string, std::string>>;

struct Request {
  std::string method = "GET";
  Url url;
  Headers headers;
  /// The Authorization header. Never goes to another origin than `url`'s, so not along a redirect.
  std::string authorization;
  Headers origin_headers;  // the same for any others
  std::string body;
  /// False: take any certificate (registries that the operator calls insecure).
  bool verify_tls = true;
  std::shared_ptr<const TlsOptions> tls;  // null: the system's authorities alone
};

/// Addresses of a host; numbers are not looked up. A slow resolver does not outlive the deadline.
struct ResolvedAddress {
  std::string ip;
  std::uint16_t port;
};
Result<std::vector<ResolvedAddress>> ResolveHost(const CallContext& cc, const std::string& host,
                                                 std::uint16_t port);
/// True for localhost, 127.0.0.0/8 and ::1, and for no name below localhost, which a resolver may
/// lead anywhere.
bool IsLoopbackHost(std::string_view host);

namespace internal {
class Connection;
struct ClientState;
struct Head;
}  // namespace internal

/// An answer whose body is read piece by piece. Belongs to one thread at a time. Once the body was
/// read to its end the connection serves the next request; else it is closed.
class Response {
 public:
  Response(Response&&) noexcept;
  Response& operator=(Response&&) noexcept;
  ~Response();

  int status() const { return status_; }
  /// The header's value; "" when absent. Names compare without case.
  std::string Header(std::string_view name) const;
  /// Every value of a header that may come several times.
  std::vector<std::string> HeaderValues(std::string_view name) const;
  /// After redirects.
  const Url& url() const { return url_; }
  std::optional<std::uint64_t> content_length() const { return content_length_; }

  /// The next bytes of the body, as many as have come; 0 at its end.
  /// kUnavailable: the connection broke or stalled; kDeadlineExceeded, kCancelled: the call's.
  Result<std::size_t> Read(const CallContext& cc, std::span<char> into);
  /// The whole rest. kResourceExhausted above `limit`.
  Result<std::string> ReadAll(const CallContext& cc, Bytes limit);

 private:
  friend class Client;
  Response() = default;
  void GiveBack();
  Status CheckRate(std::chrono::nanoseconds waited, std::size_t count);

  int status_ = 0;
  Headers headers_;
  Url url_;
  std::optional<std::uint64_t> content_length_;
  std::uint64_t left_ = 0;              // of a body with a known length
  std::chrono::nanoseconds waited_{0};  // and what came meanwhile, since the last look at the rate
  std::uint64_t came_ = 0;
  bool ended_ = false;
  bool keep_alive_ = false;
  std::unique_ptr<internal::Connection> connection_;
  std::shared_ptr<internal::ClientState> state_;
};

/// A blocking HTTP/1.1 client with connection reuse, for worker threads. Any number of threads may
/// use one client. Certificates are checked against the system's CAs
/// and those of the request.
class Client {
 public:
  explicit Client(ClientOptions options = {});
  ~Client();

  /// Sends, follows redirects of GET and HEAD, and returns once the headers of the answer are here.
  /// An HTTP error status is not an error of this call.
  /// kUnavailable: no connection, a broken one, or a peer that does not speak the protocol, with
  /// host and reason; kInvalidArgument: a malformed redirect; kDeadlineExceeded, kCancelled.
  Result<Response> Send(const CallContext& cc, const Request& request);

  /// Does the peer of the request's URL speak TLS at all? Connects and shakes hands without sending
  /// the request. A "no" is an answer in another protocol only. kUnavailable: nobody answers, the
  /// connection broke, or the certificate does not verify.
  Result<bool> SpeaksTls(const CallContext& cc, const Request& request);

  /// Closes idle connections and forgets the CAs (some megabytes) until the next call.
  void Trim();

 private:
  Result<Response> SendOnce(const CallContext& cc, const Request& request, const Url& url,
                            bool same_origin);
  Result<internal::Head> ReadFinalHeader(const CallContext& cc, internal::Connection& connection,
                                         const Request& request) const;
  Result<std::string> HeadOf(const Request& request, const Url& url, bool same_origin) const;
  Result<std::unique_ptr<internal::Connection>> Connect(const CallContext& cc,
                                                        const Request& request, const Url& url);
  Result<std::unique_ptr<internal::Connection>> Reach(const CallContext& cc, const Request& request,
                                                      const Url& url,
                                                      const ResolvedAddress& address);
  Result<std::vector<ResolvedAddress>> AddressesOf(const CallContext& cc, const Url& url);

  ClientOptions options_;
  std::shared_ptr<internal::ClientState> state_;
};

}  // namespace crisp::http
