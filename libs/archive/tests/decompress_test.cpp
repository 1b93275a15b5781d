#include "libs/archive/decompress.h"

#include <isa-l/igzip_lib.h>
#include <zstd.h>

#include <catch2/catch.hpp>
#include <string>
#include <vector>

namespace crisp::archive {
namespace {

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

std::string GzipOf(std::string_view text) {
  std::string out(text.size() + 4096, '\0');
  isal_zstream stream;
  isal_deflate_stateless_init(&stream);
  std::vector<std::uint8_t> level(ISAL_DEF_LVL1_DEFAULT);
  stream.level = 1;
  stream.level_buf = level.data();
  stream.level_buf_size = static_cast<std::uint32_t>(level.size());
  stream.gzip_flag = IGZIP_GZIP;
  stream.end_of_stream = 1;
  stream.flush = NO_FLUSH;
  stream.next_in = reinterpret_cast<std::uint8_t*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<std::uint32_t>(text.size());
  stream.next_out = reinterpret_cast<std::uint8_t*>(out.data());
  stream.avail_out = static_cast<std::uint32_t>(out.size());
  REQUIRE(isal_deflate_stateless(&stream) == COMP_OK);
  return out.substr(0, stream.total_out);
}

std::string ZstdOf(std::string_view text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  const std::size_t size = ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3);
  REQUIRE(ZSTD_isError(size) == 0U);
  out.resize(size);
  return out;
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
