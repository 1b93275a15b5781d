#include "libs/digest/digest.h"

#include <openssl/evp.h>

#include <algorithm>

#include "libs/base/check.h"

namespace crisp::digest {
namespace {

constexpr std::string_view kPrefix = "sha256:";
constexpr std::size_t kHexLength = 64;
constexpr std::string_view kHexDigits = "0123456789abcdef";

std::string ToHex(std::span<const unsigned char> bytes) {
  std::string hex;
  hex.reserve(bytes.size() * 2);
  for (const unsigned char byte : bytes) {
    hex.push_back(kHexDigits[byte >> 4U]);
    hex.push_back(kHexDigits[byte & 0xFU]);
  }
  return hex;
}

}  // namespace

Result<Digest> Digest::Parse(std::string_view text) {
  if (!text.starts_with(kPrefix)) {
    return InvalidArgument("digest '{}': only sha256 is known", text.substr(0, 100));
  }
  const std::string_view hex = text.substr(kPrefix.size());
  if (hex.size() != kHexLength || !std::all_of(hex.begin(), hex.end(), [](char c) {
        return kHexDigits.find(c) != std::string_view::npos;
      })) {
    return InvalidArgument("digest '{}': 64 lower-case hexadecimal characters are expected",
                           text.substr(0, 100));
  }
  Digest digest;
  digest.text_.assign(text);
  return digest;
}

std::array<unsigned char, 32> Digest::Bytes() const {
  std::array<unsigned char, 32> bytes = {};
  const std::string_view text = hex();
  for (std::size_t i = 0; i < text.size(); ++i)
    bytes[i / 2] =
        static_cast<unsigned char>(std::size_t{bytes[i / 2]} << 4U | kHexDigits.find(text[i]));
  return bytes;
}

struct Sha256::Impl {
  // Fails only without memory or without SHA-256 in libcrypto: nothing goes on then.
  Impl() : context(::EVP_MD_CTX_new()) {
    CRISP_CHECK(context != nullptr);
    Start();
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() { ::EVP_MD_CTX_free(context); }
  void Start() const { CRISP_CHECK(::EVP_DigestInit_ex(context, ::EVP_sha256(), nullptr) == 1); }

  EVP_MD_CTX* context;
};

Sha256::Sha256() : impl_(std::make_unique<Impl>()) {}
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;
Sha256::~Sha256() = default;

void Sha256::Update(std::span<const std::byte> bytes) {
  CRISP_CHECK(::EVP_DigestUpdate(impl_->context, bytes.data(), bytes.size()) == 1);
}

void Sha256::Update(std::string_view text) { Update(std::as_bytes(std::span(text))); }

std::array<unsigned char, 32> Sha256::Raw() {
  std::array<unsigned char, 32> bytes = {};
  unsigned length = 0;
  CRISP_CHECK(::EVP_DigestFinal_ex(impl_->context, bytes.data(), &length) == 1);
  CRISP_CHECK(length == bytes.size());
  impl_->Start();
  return bytes;
}

std::string Sha256::Hex() { return ToHex(Raw()); }

Digest Sha256::Finish() {
  std::string text = Hex();
  text.insert(0, kPrefix);
  return Digest(std::move(text));
}

std::string Sha256Hex(std::string_view text) {
  Sha256 sha;
  sha.Update(text);
  return sha.Hex();
}

Digest Sha256Digest(std::string_view text) {
  Sha256 sha;
  sha.Update(text);
  return sha.Finish();
}

}  // namespace crisp::digest
