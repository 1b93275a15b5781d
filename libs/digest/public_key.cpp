#include "libs/digest/public_key.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "libs/digest/internal.h"

namespace crisp::digest {

using internal::Bytes;
using internal::FreeBy;

struct PublicKey::Impl {
  std::unique_ptr<EVP_PKEY, FreeBy<&EVP_PKEY_free>> key;
};

PublicKey::PublicKey(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PublicKey::PublicKey(PublicKey&&) noexcept = default;
PublicKey& PublicKey::operator=(PublicKey&&) noexcept = default;
PublicKey::~PublicKey() = default;

Result<PublicKey> PublicKey::ParsePem(std::string_view pem) {
  if (pem.size() > internal::kMaxPem)
    return InvalidArgument("a public key of {} bytes", pem.size());
  const std::unique_ptr<BIO, FreeBy<&BIO_free>> bio(
      BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  auto impl = std::make_unique<Impl>();
  if (bio) impl->key.reset(PEM_read_bio_PUBKEY(bio.get(), nullptr, &internal::NoPassword, nullptr));
  ERR_clear_error();
  if (!impl->key) return InvalidArgument("not a public key in PEM");
  const int kind = EVP_PKEY_base_id(impl->key.get());
  if (kind != EVP_PKEY_EC && kind != EVP_PKEY_RSA && kind != EVP_PKEY_ED25519)
    return InvalidArgument("the public key is none of ECDSA, RSA and Ed25519");
  return PublicKey(std::move(impl));
}

std::string PublicKey::Der() const { return internal::DerOf<&i2d_PUBKEY>(impl_->key.get()); }

bool PublicKey::Verify(std::string_view message, std::string_view signature) const {
  const std::unique_ptr<EVP_MD_CTX, FreeBy<&EVP_MD_CTX_free>> context(EVP_MD_CTX_new());
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
