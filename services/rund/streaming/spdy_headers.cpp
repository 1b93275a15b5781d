#include "services/rund/streaming/spdy_headers.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "libs/base/check.h"
#include "libs/base/try.h"
#include "services/rund/streaming/spdy_frames.h"

namespace crisp::rund::streaming::spdy {
namespace {

// Of one block, inflated: a few short headers are all that streams have.
constexpr std::size_t kMaxPlain = std::size_t{64} << 10U;
constexpr std::uint32_t kMaxHeaders = 256;

// Each stands in the dictionary with its length before it.
constexpr std::array kDictionaryWords = {
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
};
// Then these, as they are.
constexpr std::string_view kDictionaryRest =
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request"
    "401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented"
    "503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 "
    "Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,"
    "application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age="
    "gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

Bytef* In(std::string_view bytes) {
  // zlib only reads it.
  return reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
}

std::string MakeDictionary() {
  std::string dictionary;
  for (const std::string_view word : kDictionaryWords) {
    Put32(dictionary, static_cast<std::uint32_t>(word.size()));
    dictionary += word;
  }
  dictionary += kDictionaryRest;
  return dictionary;
}

bool SameName(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [&lower](char x, char y) { return lower(x) == lower(y); });
}

}  // namespace

std::string_view Dictionary() {
  static const std::string dictionary = MakeDictionary();
  return dictionary;
}

std::string Find(const Headers& headers, std::string_view name) {
  for (const auto& [key, value] : headers) {
    if (SameName(key, name)) return value;
  }
  return "";
}

Result<Headers> ParseHeaders(std::string_view plain) {
  std::size_t at = 0;
  const auto number = [&plain, &at]() -> Result<std::uint32_t> {
    if (plain.size() - at < 4) return InvalidArgument("a SPDY header block that is cut off");
    at += 4;
    return Get32(plain, at - 4);
  };
  const auto text = [&plain, &at, &number]() -> Result<std::string> {
    const std::uint32_t size = CRISP_TRY(number());
    if (size > plain.size() - at) return InvalidArgument("a SPDY header longer than its block");
    at += size;
    return std::string(plain.substr(at - size, size));
  };
  const std::uint32_t count = CRISP_TRY(number());
  if (count > kMaxHeaders) return InvalidArgument("a SPDY header block of {} headers", count);
  Headers headers;
  for (std::uint32_t i = 0; i < count; ++i) {
    std::string name = CRISP_TRY(text());
    if (name.empty()) return InvalidArgument("a SPDY header without a name");
    headers.emplace_back(std::move(name), CRISP_TRY(text()));
  }
  if (at != plain.size()) return InvalidArgument("a SPDY header block with bytes left over");
  return headers;
}

struct HeaderReader::Impl {
  z_stream zlib{};
};

HeaderReader::HeaderReader() : impl_(std::make_unique<Impl>()) {
  CRISP_CHECK(inflateInit(&impl_->zlib) == Z_OK);
}

HeaderReader::~HeaderReader() { inflateEnd(&impl_->zlib); }

Result<Headers> HeaderReader::Read(std::string_view block) {
  z_stream& zlib = impl_->zlib;
  zlib.next_in = In(block);
  zlib.avail_in = static_cast<uInt>(block.size());
  std::string plain;
  std::array<char, 4096> buffer{};
  while (true) {
    zlib.next_out = reinterpret_cast<Bytef*>(buffer.data());
    zlib.avail_out = static_cast<uInt>(buffer.size());
    int outcome = inflate(&zlib, Z_SYNC_FLUSH);
    if (outcome == Z_NEED_DICT) {
      const std::string_view dictionary = Dictionary();
      outcome = inflateSetDictionary(&zlib, In(dictionary), static_cast<uInt>(dictionary.size()));
      if (outcome != Z_OK) return InvalidArgument("SPDY headers with another dictionary");
      continue;
    }
    if (outcome != Z_OK && outcome != Z_BUF_ERROR) {
      return InvalidArgument("SPDY headers that do not inflate");
    }
    plain.append(buffer.data(), buffer.size() - zlib.avail_out);
    if (plain.size() > kMaxPlain) return InvalidArgument("SPDY headers that are too long");
    if (zlib.avail_out != 0) break;
  }
  return ParseHeaders(plain);
}

struct HeaderWriter::Impl {
  z_stream zlib{};
};

HeaderWriter::HeaderWriter() : impl_(std::make_unique<Impl>()) {
  // A window of 2 KiB holds the dictionary and saves most of the 256 KiB that zlib would take.
  constexpr int kWindowBits = 11;
  constexpr int kMemoryLevel = 1;
  CRISP_CHECK(deflateInit2(&impl_->zlib, Z_DEFAULT_COMPRESSION, Z_DEFLATED, kWindowBits,
                           kMemoryLevel, Z_DEFAULT_STRATEGY) == Z_OK);
  const std::string_view dictionary = Dictionary();
  CRISP_CHECK(deflateSetDictionary(&impl_->zlib, In(dictionary),
                                   static_cast<uInt>(dictionary.size())) == Z_OK);
}

HeaderWriter::~HeaderWriter() { deflateEnd(&impl_->zlib); }

std::string HeaderWriter::Write(const Headers& headers) {
  std::string plain;
  Put32(plain, static_cast<std::uint32_t>(headers.size()));
  for (const auto& [name, value] : headers) {
    for (const std::string& text : {name, value}) {
      Put32(plain, static_cast<std::uint32_t>(text.size()));
      plain += text;
    }
  }
  z_stream& zlib = impl_->zlib;
  zlib.next_in = In(plain);
  zlib.avail_in = static_cast<uInt>(plain.size());
  std::string block;
  std::array<char, 4096> buffer{};
  do {
    zlib.next_out = reinterpret_cast<Bytef*>(buffer.data());
    zlib.avail_out = static_cast<uInt>(buffer.size());
    CRISP_CHECK(deflate(&zlib, Z_SYNC_FLUSH) != Z_STREAM_ERROR);
    block.append(buffer.data(), buffer.size() - zlib.avail_out);
  } while (zlib.avail_out == 0);
  return block;
}

}  // namespace crisp::rund::streaming::spdy
