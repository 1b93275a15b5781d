#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/base/units.h"
#include "libs/http/client.h"
#include "libs/http/proxy.h"

// Not for others than libs/http.
namespace crisp::http::internal {

/// The authorities to believe and the certificate to show.
class TlsContext {
 public:
  /// The system's authorities, those of `ca_file` (unless empty) and of `options` (unless null).
  /// kFailedPrecondition names the file that is no good.
  static Result<std::shared_ptr<TlsContext>> Make(const std::string& ca_file,
                                                  const TlsOptions* options);
  ~TlsContext();

 private:
  friend class Connection;
  struct Impl;
  explicit TlsContext(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// What stands before an answer's body.
struct Head {
  int status = 0;
  Headers headers;
  std::optional<std::uint64_t> content_length;
  bool keep_alive = false;
  bool done = false;  // there is no body
};

/// One connection with an event loop of its own, which runs only while its thread waits for it.
/// Every wait ends at the call's deadline, its stop, or after `limit`; after a failure the
/// connection is of no use.
class Connection {
 public:
  explicit Connection(std::string key);
  ~Connection();

  const std::string& key() const { return key_; }
  bool used_before() const { return used_; }
  void MarkUsed() { used_ = true; }
  /// Nothing has come that nobody has read.
  bool quiet() const;
  SteadyTime idle_since;

  Status Connect(const CallContext& cc, const ResolvedAddress& address,
                 std::chrono::nanoseconds limit);
  /// Over a proxy, after Connect to it: a way to `url`'s host, by CONNECT or SOCKS 5.
  Status Tunnel(const CallContext& cc, const Proxy& proxy, const Url& url,
                std::chrono::nanoseconds limit);
  /// `not_tls` tells a peer that answers in another protocol from one whose TLS fails, and from a
  /// broken connection.
  Status Handshake(const CallContext& cc, std::shared_ptr<TlsContext> context,
                   const std::string& host, bool verify, std::chrono::nanoseconds limit,
                   bool* not_tls = nullptr);
  Status Write(const CallContext& cc, std::string_view text, std::chrono::nanoseconds limit);
  /// `head`: the answer has no body whatever it says.
  Result<Head> ReadHeader(const CallContext& cc, std::chrono::nanoseconds limit, Bytes max_header,
                          bool head);
  /// For a body whose length is known: what came with the header first, then straight from the
  /// socket into the caller's buffer.
  Result<std::size_t> ReadSome(const CallContext& cc, std::span<char> into,
                               std::chrono::nanoseconds limit);
  /// For chunked bodies and those that end with the connection; 0 at the end.
  Result<std::size_t> ReadParsed(const CallContext& cc, std::span<char> into,
                                 std::chrono::nanoseconds limit);

 private:
  struct Impl;
  Status TunnelHttp(const CallContext& cc, const Proxy& proxy, const Url& url,
                    std::chrono::nanoseconds limit);
  Status TunnelSocks(const CallContext& cc, const Proxy& proxy, const Url& url,
                     std::chrono::nanoseconds limit);
  Result<std::string> ReadExactly(const CallContext& cc, std::size_t count,
                                  std::chrono::nanoseconds limit);

  const std::string key_;
  bool used_ = false;
  std::unique_ptr<Impl> impl_;
};

}  // namespace crisp::http::internal
