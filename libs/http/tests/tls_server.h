#pragma once

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "libs/http/tests/raw_server.h"
#include "libs/http/url.h"

namespace crisp::http::testing {

/// A TLS server on loopback with a certificate of its own making for `name` ("IP:127.0.0.1"); it
/// answers one request of each connection, one connection after the other. It asks clients for
/// their certificate, which may be any.
class TlsServer {
 public:
  /// The whole answer, which must close the connection; called on the server's thread.
  using Handler = std::function<std::string(const std::string& head)>;
  static std::string SayHello(const std::string& /*head*/) {
    return RawServer::Ok("hello", "Connection: close\r\n");
  }

  explicit TlsServer(const std::string& name, bool wants_certificate = false,
                     Handler handler = SayHello)
      : handler_(std::move(handler)),
        key_(EVP_EC_gen("P-256"), &EVP_PKEY_free),
        certificate_(X509_new(), &X509_free),
        context_(SSL_CTX_new(TLS_server_method()), &SSL_CTX_free) {
    X509_set_version(certificate_.get(), 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate_.get()), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate_.get()), -3600);
    X509_gmtime_adj(X509_getm_notAfter(certificate_.get()), 3600);
    X509_set_pubkey(certificate_.get(), key_.get());
    X509_NAME* subject = X509_get_subject_name(certificate_.get());
    // Each server's own: OpenSSL finds a certificate by its subject.
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
    X509_set_issuer_name(certificate_.get(), subject);
    X509_EXTENSION* names =
        X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, name.c_str());
    X509_add_ext(certificate_.get(), names, -1);
    X509_EXTENSION_free(names);
    X509_sign(certificate_.get(), key_.get(), EVP_sha256());
    SSL_CTX_use_certificate(context_.get(), certificate_.get());
    SSL_CTX_use_PrivateKey(context_.get(), key_.get());
    SSL_CTX_set_verify(context_.get(),
                       SSL_VERIFY_PEER | (wants_certificate ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0),
                       [](int, X509_STORE_CTX*) { return 1; });

    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address);
    ::listen(listener_, 8);
    socklen_t size = sizeof address;
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { Serve(); });
  }
  TlsServer(const TlsServer&) = delete;
  TlsServer& operator=(const TlsServer&) = delete;
  ~TlsServer() {
    stopping_ = true;
    thread_.join();
    ::close(listener_);
  }

  std::string Pem() const {
    BIO* memory = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(memory, certificate_.get());
    char* bytes = nullptr;
    const long size = BIO_ctrl(memory, BIO_CTRL_INFO, 0, &bytes);
    std::string text(bytes, static_cast<std::size_t>(size));
    BIO_free(memory);
    return text;
  }
  std::string KeyPem() const {
    BIO* memory = BIO_new(BIO_s_mem());
    PEM_write_bio_PrivateKey(memory, key_.get(), nullptr, nullptr, 0, nullptr, nullptr);
    char* bytes = nullptr;
    const long size = BIO_ctrl(memory, BIO_CTRL_INFO, 0, &bytes);
    std::string text(bytes, static_cast<std::size_t>(size));
    BIO_free(memory);
    return text;
  }
  int port() const { return port_; }
  /// Requests answered, and how many of them came with a client's certificate.
  int requests() const { return requests_; }
  int with_certificate() const { return with_certificate_; }
  Url At(const std::string& host) const {
    return *Url::Parse(fmt::format("https://{}:{}/", host, port_));
  }

 private:
  void Serve() {
    while (!stopping_) {
      pollfd poll{listener_, POLLIN, 0};
      if (::poll(&poll, 1, 20) <= 0) continue;
      const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      SSL* ssl = SSL_new(context_.get());
      SSL_set_fd(ssl, fd);
      std::array<char, 4096> buffer;
      const int got = SSL_accept(ssl) == 1 ? SSL_read(ssl, buffer.data(), buffer.size()) : 0;
      if (got > 0) {
        ++requests_;
        if (SSL_get0_peer_certificate(ssl) != nullptr) ++with_certificate_;
        const std::string answer =
            handler_(std::string(buffer.data(), static_cast<std::size_t>(got)));
        SSL_write(ssl, answer.data(), static_cast<int>(answer.size()));
        SSL_shutdown(ssl);
      }
      SSL_free(ssl);
      ::close(fd);
    }
  }

  const Handler handler_;
  std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key_;
  std::unique_ptr<X509, decltype(&X509_free)> certificate_;
  std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context_;
  int listener_ = -1;
  int port_ = 0;
  std::atomic<bool> stopping_ = false;
  std::atomic<int> requests_ = 0;
  std::atomic<int> with_certificate_ = 0;
  std::thread thread_;
};

}  // namespace crisp::http::testing
