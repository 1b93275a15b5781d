#include "libs/digest/digest.h"

#include <catch2/catch.hpp>

#include "libs/digest/certificate.h"
#include "libs/digest/public_key.h"

namespace crisp::digest {
namespace {

constexpr std::string_view kEmpty =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
constexpr std::string_view kAbc =
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

TEST_CASE("SHA-256 of the standard's examples") {
  CHECK(Sha256Hex("") == kEmpty);
  CHECK(Sha256Hex("abc") == kAbc);
  CHECK(Sha256Digest("abc").str() == "sha256:" + std::string(kAbc));
  CHECK(Sha256Digest("abc").hex() == kAbc);
}

TEST_CASE("A stream gives the same as the whole, and starts anew after its end") {
  Sha256 sha;
  sha.Update("a");
  sha.Update("");
  sha.Update("bc");
  CHECK(sha.Hex() == kAbc);
  CHECK(sha.Hex() == kEmpty);
  sha.Update("abc");
  Sha256 moved = std::move(sha);
  CHECK(moved.Finish() == Sha256Digest("abc"));
}

TEST_CASE("Only whole sha256 digests are digests") {
  const std::string good = "sha256:" + std::string(kAbc);
  const auto parsed = Digest::Parse(good);
  REQUIRE(parsed.ok());
  CHECK(parsed->str() == good);
  CHECK_FALSE(parsed->empty());
  CHECK(parsed->Bytes()[0] == 0xba);
  CHECK(parsed->Bytes()[31] == 0xad);
  CHECK(Digest().Bytes() == std::array<unsigned char, 32>());
  CHECK(Digest().empty());
  CHECK(Digest().hex().empty());
  for (const std::string& bad :
       {std::string(), std::string(kAbc), "sha512:" + std::string(kAbc), good + "0",
        good.substr(0, 70), "sha256:../" + std::string(kAbc.substr(3)),
        "sha256:BA" + std::string(kAbc.substr(2)), "SHA256:" + std::string(kAbc)}) {
    CHECK(Digest::Parse(bad).code() == Code::kInvalidArgument);
  }
}

TEST_CASE("PEM and DER are taken apart, and what is none is refused") {
  const std::string block = "-----BEGIN X-----\naGk=\n-----END X-----\n";
  CHECK(DerOfPem(block).value() == "hi");
  for (const std::string& bad : {std::string(), std::string("hi"), block + block, block + "x"})
    CHECK(DerOfPem(bad).code() == Code::kInvalidArgument);
  CHECK(TextOfDer("\x0c\x02hi").value() == "hi");
  for (const char* bad : {"", "hi", "\x0c\x03hi", "\x0c\x02hi!", "\x04\x02hi"})
    CHECK(TextOfDer(bad).code() == Code::kInvalidArgument);
  const std::string damaged = "-----BEGIN CERTIFICATE-----\naGk=\n-----END CERTIFICATE-----\n";
  // Nobody is asked for the password.
  const std::string locked =
      "-----BEGIN CERTIFICATE-----\nProc-Type: 4,ENCRYPTED\n"
      "DEK-Info: AES-128-CBC,00112233445566778899AABBCCDDEEFF\n\n"
      "aGk=\n-----END CERTIFICATE-----\n";
  for (const std::string& bad : {std::string(), block, damaged, locked, std::string(70'000, 'x')}) {
    CHECK(Certificate::ParsePem(bad).code() == Code::kInvalidArgument);
    CHECK(Certificate::ParseAllPem(bad).code() == Code::kInvalidArgument);
    CHECK(PublicKey::ParsePem(bad).code() == Code::kInvalidArgument);
  }
}

}  // namespace
}  // namespace crisp::digest
