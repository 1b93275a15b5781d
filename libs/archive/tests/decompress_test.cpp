#include "libs/archive/decompress.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "libs/archive/gzip.h"
#include "libs/archive/tests/compress.h"

namespace crisp::archive {
namespace {

using testing::GzipOf;
using testing::ZstdOf;

std::string Sample(std::size_t size) {
  std::string text;
  std::uint32_t state = 7;
  while (text.size() < size) {
    state = state * 1664525U + 1013904223U;
    text += fmt::format("line {} {}\n", text.size(), state >> 20U);
  }
  text.resize(size);
  return text;
}

Result<std::string> Plain(std::string_view packed, std::size_t piece = 1000,
                          std::size_t out = 777) {
  StringSource source(packed, piece);
  const Result<Compression> kind = DetectCompression(packed.substr(0, 8));
  if (!kind.ok()) return kind.status();
  const auto reader = MakeDecompressor(*kind, source);
  std::string text;
  std::vector<char> buffer(out);
  while (true) {
    const Result<std::size_t> count = reader->Read(buffer);
    if (!count.ok()) return count.status();
    if (*count == 0) return text;
    text.append(buffer.data(), *count);
  }
}

TEST_CASE("A gzip stream comes out whole, whatever the pieces it arrives in") {
  const std::string text = Sample(100'000);
  const std::string packed = GzipOf(text);
  for (const std::size_t piece : {1U, 3U, 100U, 4096U, 1U << 20U}) {
    CAPTURE(piece);
    CHECK((*Plain(packed, piece) == text));
  }
}

TEST_CASE("What is packed with gzip comes out as it was") {
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{3} << 20U}) {
    const Result<std::string> packed = Gzip(Sample(size));
    REQUIRE(packed.ok());
    CHECK(Plain(*packed, 100'000, 100'000).value() == Sample(size));
  }
}

TEST_CASE("Several gzip members make one stream, and zero padding may follow") {
  const std::string packed = GzipOf("one ") + GzipOf("") + GzipOf(Sample(70'000));
  for (const std::size_t piece : {1U, 7U, 18U, 19U, 1U << 20U}) {
    CAPTURE(piece);
    CHECK((*Plain(packed, piece) == "one " + Sample(70'000)));
    CHECK((*Plain(packed + std::string(512, '\0'), piece) == "one " + Sample(70'000)));
  }
}

TEST_CASE("A damaged gzip stream is an error") {
  const std::string packed = GzipOf(Sample(50'000));
  SECTION("cut short, at any point") {
    for (std::size_t size = 4; size < packed.size(); size += 997)
      CHECK(Plain(packed.substr(0, size)).code() == Code::kDataLoss);
    CHECK(Plain(packed.substr(0, packed.size() - 1)).code() == Code::kDataLoss);
  }
  SECTION("a flipped checksum") {
    std::string bad = packed;
    bad[bad.size() - 6] = static_cast<char>(bad[bad.size() - 6] ^ 1);
    CHECK(Plain(bad).code() == Code::kDataLoss);
  }
  SECTION("rubbish behind it") { CHECK(Plain(packed + "rubbish").code() == Code::kDataLoss); }
}

TEST_CASE("A zstd stream of several frames comes out whole") {
  const std::string skippable(
      "\x50\x2a\x4d\x18\x04\x00\x00\x00"
      "abcd",
      12);
  const std::string packed = skippable + ZstdOf("one ") + ZstdOf(Sample(90'000)) + skippable;
  for (const std::size_t piece : {1U, 5U, 4096U, 1U << 20U})
    CHECK((*Plain(packed, piece) == "one " + Sample(90'000)));
}

TEST_CASE("A damaged zstd stream is an error") {
  const std::string packed = ZstdOf(Sample(50'000));
  CHECK(Plain(packed.substr(0, packed.size() - 3)).code() == Code::kDataLoss);
  CHECK(Plain(packed + "rubbish, and some more").code() == Code::kDataLoss);
}

TEST_CASE("What is not compressed passes through, what we cannot read is named") {
  CHECK((*Plain(Sample(5000)) == Sample(5000)));
  CHECK((*Plain("") == ""));
  CHECK(Plain("BZh91AY").status().message().find("bzip2") != std::string::npos);
  CHECK(DetectCompression(std::string_view("\xfd"
                                           "7zXZ\0",
                                           6))
            .code() == Code::kUnimplemented);
}

}  // namespace
}  // namespace crisp::archive
