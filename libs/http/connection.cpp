#include "libs/http/connection.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <cstring>

#include "libs/base/try.h"

namespace crisp::http::internal {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
using ErrorCode = boost::system::error_code;
using Tcp = asio::ip::tcp;

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

bool IsIpAddress(const std::string& host) {
  ErrorCode error;
  asio::ip::make_address(host, error);
  return !error;
}

}  // namespace

struct TlsContext::Impl {
  asio::ssl::context context{asio::ssl::context::tls_client};
};

TlsContext::TlsContext(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TlsContext::~TlsContext() = default;

Result<std::shared_ptr<TlsContext>> TlsContext::Make(const std::string& ca_file,
                                                     const TlsOptions* options) {
  auto impl = std::make_unique<Impl>();
  asio::ssl::context& context = impl->context;
  ErrorCode error;
  context.set_default_verify_paths(error);
  if (error)
    return FailedPrecondition("cannot load the system's trusted certificates: {}", error.message());
  std::vector<std::string> files =
      options == nullptr ? std::vector<std::string>() : options->ca_files;
  if (!ca_file.empty()) files.push_back(ca_file);
  for (const std::string& file : files) {
    context.load_verify_file(file, error);
    if (error) return FailedPrecondition("{}: no certificates: {}", file, Reason(error));
  }
  if (options != nullptr && !options->client_cert.empty()) {
    context.use_certificate_chain_file(options->client_cert, error);
    if (error)
      return FailedPrecondition("{}: no certificate: {}", options->client_cert, Reason(error));
    context.use_private_key_file(options->client_key, asio::ssl::context::pem, error);
    if (error)
      return FailedPrecondition("{}: no key of the certificate: {}", options->client_key,
                                Reason(error));
  }
  ::SSL_CTX_set_min_proto_version(context.native_handle(), TLS1_2_VERSION);
  return std::shared_ptr<TlsContext>(new TlsContext(std::move(impl)));
}

struct Connection::Impl {
  asio::io_context loop{1};
  Tcp::socket socket{loop};
  std::shared_ptr<TlsContext> tls_context;
  std::optional<asio::ssl::stream<Tcp::socket&>> tls;
  beast::flat_buffer buffer;
  std::optional<beast::http::response_parser<beast::http::buffer_body>> parser;

  /// Starts an asynchronous operation and runs the loop until it is done, the call's deadline or
  /// `limit` has passed, or the caller has left. After a failure the connection is of no use.
  template <typename Start>
  Status Run(const CallContext& cc, std::chrono::nanoseconds limit, std::string_view what,
             Start start, ErrorCode* error_out = nullptr) {
    CRISP_TRY(cc.Check());
    ErrorCode error;
    bool finished = false;
    loop.restart();
    start([&error, &finished](ErrorCode outcome, auto...) {
      error = outcome;
      finished = true;
    });
    const std::stop_callback wake(cc.stop(), [this] { asio::post(loop, [] {}); });
    const SteadyTime until = std::min(cc.deadline(), std::chrono::steady_clock::now() + limit);
    while (!finished && !cc.stop().stop_requested() && loop.run_one_until(until) > 0) {
    }
    const bool in_time = finished;
    if (!finished) {
      ErrorCode ignored;
      socket.close(ignored);
      loop.restart();
      while (!finished && loop.run_one() > 0) {
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
};

Connection::Connection(std::string key) : key_(std::move(key)), impl_(std::make_unique<Impl>()) {}
Connection::~Connection() = default;

bool Connection::quiet() const { return impl_->buffer.size() == 0; }

Status Connection::Connect(const CallContext& cc, const ResolvedAddress& address,
                           std::chrono::nanoseconds limit) {
  const Tcp::endpoint endpoint(asio::ip::make_address(address.ip), address.port);
  CRISP_TRY(impl_->Run(cc, limit, "connect",
                       [&](auto done) { impl_->socket.async_connect(endpoint, std::move(done)); }));
  ErrorCode ignored;
  impl_->socket.set_option(Tcp::no_delay(true), ignored);
  impl_->socket.non_blocking(true, ignored);
  return Status::Ok();
}

Status Connection::Handshake(const CallContext& cc, std::shared_ptr<TlsContext> context,
                             const std::string& host, bool verify, std::chrono::nanoseconds limit,
                             bool* not_tls) {
  // Parsed later it would pass for something that came through the tunnel.
  if (!quiet()) return Unavailable("it speaks before TLS");
  impl_->tls_context = std::move(context);
  impl_->tls.emplace(impl_->socket, impl_->tls_context->impl_->context);
  if (!IsIpAddress(host))  // what SSL_set_tlsext_host_name stands for, without its C cast
    ::SSL_ctrl(impl_->tls->native_handle(), SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name,
               const_cast<char*>(host.c_str()));
  ErrorCode ignored;
  impl_->tls->set_verify_mode(verify ? asio::ssl::verify_peer : asio::ssl::verify_none, ignored);
  if (verify) impl_->tls->set_verify_callback(asio::ssl::host_name_verification(host), ignored);
  ErrorCode error;
  Status status = impl_->Run(
      cc, limit, "TLS handshake",
      [&](auto done) {
        impl_->tls->async_handshake(asio::ssl::stream_base::client, std::move(done));
      },
      &error);
  if (status.ok()) return status;
  const long verdict = ::SSL_get_verify_result(impl_->tls->native_handle());
  if (verify && verdict != X509_V_OK)
    return Unavailable("the certificate of {} is not trusted ({})", host,
                       ::X509_verify_cert_error_string(verdict));
  const int reason = ERR_GET_REASON(static_cast<unsigned long>(error.value()));
  if (not_tls != nullptr)
    *not_tls = error.category() == asio::error::get_ssl_category() &&
               (reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_HTTP_REQUEST);
  return status;
}

Status Connection::Write(const CallContext& cc, std::string_view text,
                         std::chrono::nanoseconds limit) {
  return impl_->Run(cc, limit, "send", [&](auto done) {
    if (impl_->tls) {
      asio::async_write(*impl_->tls, asio::buffer(text.data(), text.size()), std::move(done));
    } else {
      asio::async_write(impl_->socket, asio::buffer(text.data(), text.size()), std::move(done));
    }
  });
}

Result<Head> Connection::ReadHeader(const CallContext& cc, std::chrono::nanoseconds limit,
                                    Bytes max_header, bool head) {
  impl_->parser.emplace();
  impl_->parser->body_limit(boost::none);
  impl_->parser->header_limit(static_cast<std::uint32_t>(max_header.count()));
  impl_->parser->skip(head);
  CRISP_TRY(impl_->Run(cc, limit, "read", [&](auto done) {
    if (impl_->tls) {
      beast::http::async_read_header(*impl_->tls, impl_->buffer, *impl_->parser, std::move(done));
    } else {
      beast::http::async_read_header(impl_->socket, impl_->buffer, *impl_->parser, std::move(done));
    }
  }));
  Head answer;
  const auto& message = impl_->parser->get();
  answer.status = static_cast<int>(message.result_int());
  for (const auto& field : message) {
    const auto name = field.name_string();
    const auto value = field.value();
    answer.headers.emplace_back(std::string(name.data(), name.size()),
                                std::string(value.data(), value.size()));
  }
  answer.keep_alive = message.keep_alive();
  if (const auto length = impl_->parser->content_length()) answer.content_length = *length;
  answer.done = impl_->parser->is_done();
  return answer;
}

Result<std::size_t> Connection::ReadSome(const CallContext& cc, std::span<char> into,
                                         std::chrono::nanoseconds limit) {
  if (impl_->buffer.size() > 0) {
    const std::size_t count = std::min(into.size(), impl_->buffer.size());
    std::memcpy(into.data(), impl_->buffer.data().data(), count);
    impl_->buffer.consume(count);
    return count;
  }
  std::size_t count = 0;
  if (!impl_->tls) {
    // What has come already needs no loop: of a quick peer that is nearly every read.
    CRISP_TRY(cc.Check());
    ErrorCode error;
    count = impl_->socket.read_some(asio::buffer(into.data(), into.size()), error);
    if (!error) return count;
    if (error != asio::error::would_block) return Unavailable("read: {}", Reason(error));
  }
  CRISP_TRY(impl_->Run(cc, limit, "read", [&](auto done) {
    auto finish = [&count, done](ErrorCode error, std::size_t got) mutable {
      count = got;
      done(error);
    };
    if (impl_->tls) {
      impl_->tls->async_read_some(asio::buffer(into.data(), into.size()), std::move(finish));
    } else {
      impl_->socket.async_read_some(asio::buffer(into.data(), into.size()), std::move(finish));
    }
  }));
  return count;
}

Result<std::size_t> Connection::ReadParsed(const CallContext& cc, std::span<char> into,
                                           std::chrono::nanoseconds limit) {
  while (!impl_->parser->is_done()) {
    auto& body = impl_->parser->get().body();
    body.data = into.data();
    body.size = into.size();
    body.more = true;
    ErrorCode error;
    const Status status = impl_->Run(
        cc, limit, "read",
        [&](auto done) {
          if (impl_->tls) {
            beast::http::async_read_some(*impl_->tls, impl_->buffer, *impl_->parser,
                                         std::move(done));
          } else {
            beast::http::async_read_some(impl_->socket, impl_->buffer, *impl_->parser,
                                         std::move(done));
          }
        },
        &error);
    const std::size_t made = into.size() - impl_->parser->get().body().size;
    if (!status.ok() && error != beast::http::error::need_buffer) return status;
    if (made > 0) return made;
  }
  return std::size_t{0};
}

}  // namespace crisp::http::internal
