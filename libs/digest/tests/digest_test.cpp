#include "libs/digest/digest.h"

#include <catch2/catch.hpp>

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
  CHECK(Digest().empty());
  CHECK(Digest().hex().empty());
  for (const std::string& bad :
       {std::string(), std::string(kAbc), "sha512:" + std::string(kAbc), good + "0",
        good.substr(0, 70), "sha256:../" + std::string(kAbc.substr(3)),
        "sha256:BA" + std::string(kAbc.substr(2)), "SHA256:" + std::string(kAbc)}) {
    CHECK(Digest::Parse(bad).code() == Code::kInvalidArgument);
  }
}

}  // namespace
}  // namespace crisp::digest
