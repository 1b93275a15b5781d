#include "libs/digest/public_key.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

namespace crisp::digest {
namespace {

struct FreeKey {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
struct FreeBio {
  void operator()(BIO* bio) const { BIO_free(bio); }
};
struct FreeContext {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};

const unsigned char* Bytes(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

}  // namespace

struct PublicKey::Impl {
  std::unique_ptr<EVP_PKEY, FreeKey> key;
};

PublicKey::PublicKey(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PublicKey::PublicKey(PublicKey&&) noexcept = default;
PublicKey& PublicKey::operator=(PublicKey&&) noexcept = default;
PublicKey::~PublicKey() = default;

Result<PublicKey> PublicKey::ParsePem(std::string_view pem) {
  constexpr std::size_t kMaxPem = std::size_t{64} << 10U;
  if (pem.size() > kMaxPem) return InvalidArgument("a public key of {} bytes", pem.size());
  const std::unique_ptr<BIO, FreeBio> bio(
      BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  auto impl = std::make_unique<Impl>();
  if (bio) impl->key.reset(PEM_read_bio_PUBKEY(bio.get(), nullptr, nullptr, nullptr));
  ERR_clear_error();
  if (!impl->key) return InvalidArgument("not a public key in PEM");
  const int kind = EVP_PKEY_base_id(impl->key.get());
  if (kind != EVP_PKEY_EC && kind != EVP_PKEY_RSA && kind != EVP_PKEY_ED25519)
    return InvalidArgument("the public key is none of ECDSA, RSA and Ed25519");
  return PublicKey(std::move(impl));
}

bool PublicKey::Verify(std::string_view message, std::string_view signature) const {
  const std::unique_ptr<EVP_MD_CTX, FreeContext> context(EVP_MD_CTX_new());
  const bool own_hash = EVP_PKEY_base_id(impl_->key.get()) == EVP_PKEY_ED25519;
  const bool good = context &&
                    EVP_DigestVerifyInit(context.get(), nullptr, own_hash ? nullptr : EVP_sha256(),
                                         nullptr, impl_->key.get()) == 1 &&
                    EVP_DigestVerify(context.get(), Bytes(signature), signature.size(),
                                     Bytes(message), message.size()) == 1;
  ERR_clear_error();
  return good;
}

}  // namespace crisp::digest
