#include "libs/digest/certificate.h"

#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#include <algorithm>

#include "libs/base/cleanup.h"
#include "libs/base/try.h"
#include "libs/digest/internal.h"

namespace crisp::digest {
namespace {

using internal::Bytes;
using internal::FreeBy;

constexpr int kMaxDepth = 8;       // of a chain
constexpr int kSecurityLevel = 2;  // 112 bits: no SHA-1, no RSA below 2048 bits

using Bio = std::unique_ptr<BIO, FreeBy<&BIO_free>>;
using GeneralNames = std::unique_ptr<GENERAL_NAMES, FreeBy<&GENERAL_NAMES_free>>;
using Store = std::unique_ptr<X509_STORE, FreeBy<&X509_STORE_free>>;
using StoreContext = std::unique_ptr<X509_STORE_CTX, FreeBy<&X509_STORE_CTX_free>>;
struct FreeStack {  // not what is in it
  void operator()(STACK_OF(X509) * stack) const { sk_X509_free(stack); }
};
using Stack = std::unique_ptr<STACK_OF(X509), FreeStack>;

std::string TextOf(const ASN1_STRING* text) {
  const auto* data = reinterpret_cast<const char*>(ASN1_STRING_get0_data(text));
  return {data, static_cast<std::size_t>(ASN1_STRING_length(text))};
}

/// A certificate without that extension may be used for anything.
bool MaySignCode(X509* certificate) {
  return (X509_get_extended_key_usage(certificate) & (XKU_CODE_SIGN | XKU_ANYEKU)) != 0;
}

Status CheckSize(std::string_view pem) {
  if (pem.size() > internal::kMaxPem) return InvalidArgument("PEM of {} bytes", pem.size());
  return Status::Ok();
}

}  // namespace

struct Certificate::Impl {
  std::unique_ptr<X509, FreeBy<&X509_free>> x509;
};

Result<std::vector<Certificate>> Certificate::ParseAllPem(std::string_view pem) {
  CRISP_TRY(CheckSize(pem));
  const Cleanup forget([] { ERR_clear_error(); });
  const Bio bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  std::vector<Certificate> certificates;
  while (bio) {
    auto impl = std::make_unique<Impl>();
    impl->x509.reset(PEM_read_bio_X509(bio.get(), nullptr, &internal::NoPassword, nullptr));
    if (!impl->x509) break;
    certificates.push_back(Certificate(std::move(impl)));
  }
  const bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  if (!at_end) return InvalidArgument("a certificate in PEM is malformed");
  if (certificates.empty()) return InvalidArgument("no certificate in PEM");
  return certificates;
}

Result<Certificate> Certificate::ParsePem(std::string_view pem) {
  std::vector<Certificate> all = CRISP_TRY(ParseAllPem(pem));
  if (all.size() != 1) return InvalidArgument("{} certificates where one is expected", all.size());
  return all.front();
}

Status Certificate::CheckChain(const std::vector<Certificate>& roots,
                               const std::vector<Certificate>& intermediates, WallTime at) const {
  const Cleanup forget([] { ERR_clear_error(); });
  const Store store(X509_STORE_new());
  const Stack between(sk_X509_new_null());
  const StoreContext context(X509_STORE_CTX_new());
  bool ready = store && between && context;
  for (const Certificate& root : roots)
    ready = ready && X509_STORE_add_cert(store.get(), root.impl_->x509.get()) == 1;
  for (const Certificate& each : intermediates)
    ready = ready && sk_X509_push(between.get(), each.impl_->x509.get()) > 0;
  ready = ready &&
          X509_STORE_CTX_init(context.get(), store.get(), impl_->x509.get(), between.get()) == 1;
  if (!ready) return Internal("OpenSSL cannot check a certificate");
  X509_VERIFY_PARAM* const param = X509_STORE_CTX_get0_param(context.get());
  // Each of `roots` is trusted, also one that another authority has signed.
  X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_PARTIAL_CHAIN);
  X509_VERIFY_PARAM_set_time(param, std::chrono::system_clock::to_time_t(
                                        std::chrono::time_point_cast<std::chrono::seconds>(at)));
  X509_VERIFY_PARAM_set_depth(param, kMaxDepth);
  X509_VERIFY_PARAM_set_auth_level(param, kSecurityLevel);
  if (X509_verify_cert(context.get()) != 1)
    return PermissionDenied("the certificate is not valid: {}",
                            X509_verify_cert_error_string(X509_STORE_CTX_get_error(context.get())));
  STACK_OF(X509)* const chain = X509_STORE_CTX_get0_chain(context.get());
  for (int i = 0; i < sk_X509_num(chain); ++i)
    if (!MaySignCode(sk_X509_value(chain, i)))
      return PermissionDenied("the certificate is not one to sign code with");
  return Status::Ok();
}

Result<PublicKey> Certificate::Key() const {
  const Cleanup forget([] { ERR_clear_error(); });
  const Bio bio(BIO_new(BIO_s_mem()));
  char* text = nullptr;
  if (!bio || PEM_write_bio_PUBKEY(bio.get(), X509_get0_pubkey(impl_->x509.get())) != 1)
    return InvalidArgument("the certificate has no public key");
  const long size = BIO_get_mem_data(bio.get(), &text);
  return PublicKey::ParsePem({text, static_cast<std::size_t>(size)});
}

std::string Certificate::Der() const { return internal::DerOf<&i2d_X509>(impl_->x509.get()); }

std::vector<std::string> Certificate::Emails() const {
  const Cleanup forget([] { ERR_clear_error(); });
  std::vector<std::string> emails;
  const GeneralNames names(static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(impl_->x509.get(), NID_subject_alt_name, nullptr, nullptr)));
  for (int i = 0; names && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* const name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type == GEN_EMAIL) emails.push_back(TextOf(name->d.rfc822Name));
  }
  return emails;
}

bool Certificate::IsForHost(const std::string& name) const {
  const Cleanup forget([] { ERR_clear_error(); });
  constexpr unsigned kFlags =
      X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS;
  return !name.empty() &&
         X509_check_host(impl_->x509.get(), name.data(), name.size(), kFlags, nullptr) == 1;
}

Result<std::optional<std::string>> Certificate::Extension(const std::string& oid) const {
  const Cleanup forget([] { ERR_clear_error(); });
  const std::unique_ptr<ASN1_OBJECT, FreeBy<&ASN1_OBJECT_free>> object(OBJ_txt2obj(oid.c_str(), 1));
  if (!object) return InvalidArgument("{} is no object identifier", oid);
  const int at = X509_get_ext_by_OBJ(impl_->x509.get(), object.get(), -1);
  if (at < 0) return std::optional<std::string>();
  if (X509_get_ext_by_OBJ(impl_->x509.get(), object.get(), at) >= 0)
    return InvalidArgument("the certificate has the extension {} twice", oid);
  const X509_EXTENSION* const found = X509_get_ext(impl_->x509.get(), at);
  return std::optional<std::string>(
      TextOf(X509_EXTENSION_get_data(const_cast<X509_EXTENSION*>(found))));
}

Result<std::string> TextOfDer(std::string_view der) {
  const Cleanup forget([] { ERR_clear_error(); });
  const unsigned char* at = Bytes(der);
  const std::unique_ptr<ASN1_UTF8STRING, FreeBy<&ASN1_UTF8STRING_free>> text(
      d2i_ASN1_UTF8STRING(nullptr, &at, static_cast<long>(der.size())));
  if (!text || at != Bytes(der) + der.size()) return InvalidArgument("not a UTF8String in DER");
  return TextOf(text.get());
}

Result<std::string> DerOfPem(std::string_view pem) {
  CRISP_TRY(CheckSize(pem));
  const Cleanup forget([] { ERR_clear_error(); });
  const Bio bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  char* name = nullptr;
  char* header = nullptr;
  unsigned char* bytes = nullptr;
  long size = 0;
  const int read = bio ? PEM_read_bio(bio.get(), &name, &header, &bytes, &size) : 0;
  if (read != 1) return InvalidArgument("not PEM");
  std::string der(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(size));
  OPENSSL_free(name);
  OPENSSL_free(header);
  OPENSSL_free(bytes);
  char more = 0;
  if (BIO_read(bio.get(), &more, 1) > 0) return InvalidArgument("more than one block of PEM");
  return der;
}

}  // namespace crisp::digest
