#include "libs/ref/ref.h"

#include <algorithm>
#include <cstddef>

#include "libs/base/text.h"
#include "libs/base/try.h"

namespace crisp::ref {
namespace {

constexpr std::size_t kMaxName = 255;
constexpr std::size_t kMaxTag = 128;
constexpr std::size_t kSha256Hex = 64;

bool IsLower(char c) { return c >= 'a' && c <= 'z'; }
bool IsUpper(char c) { return c >= 'A' && c <= 'Z'; }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsHex(char c) { return IsDigit(c) || (c >= 'a' && c <= 'f'); }

bool AllHex(std::string_view text) { return std::all_of(text.begin(), text.end(), IsHex); }

Status Bad(std::string_view text, std::string_view why) {
  return InvalidArgument("image reference '{}': {}", text.substr(0, 300), why);
}

/// Host names and addresses with an optional port: "a.b-c:5000", "[::1]:80".
bool IsDomain(std::string_view domain) {
  if (domain.starts_with('[')) {
    const std::size_t close = domain.find(']');
    if (close == std::string_view::npos || close == 1) return false;
    const std::string_view inner = domain.substr(1, close - 1);
    if (!std::all_of(inner.begin(), inner.end(), [](char c) {
          return IsHex(c) || (c >= 'A' && c <= 'F') || c == ':' || c == '.';
        })) {
      return false;
    }
    domain.remove_prefix(close + 1);
    if (domain.empty()) return true;
    if (domain.front() != ':') return false;
  } else {
    const std::size_t colon = std::min(domain.find(':'), domain.size());
    std::string_view host = domain.substr(0, colon);
    domain.remove_prefix(colon);
    while (true) {
      const std::size_t dot = std::min(host.find('.'), host.size());
      const std::string_view label = host.substr(0, dot);
      if (label.empty() || label.front() == '-' || label.back() == '-') return false;
      if (!std::all_of(label.begin(), label.end(),
                       [](char c) { return IsLower(c) || IsUpper(c) || IsDigit(c) || c == '-'; })) {
        return false;
      }
      if (dot == host.size()) break;
      host.remove_prefix(dot + 1);
    }
    if (domain.empty()) return true;
  }
  domain.remove_prefix(1);  // the colon
  return !domain.empty() && domain.size() <= 5 &&
         std::all_of(domain.begin(), domain.end(), IsDigit);
}

/// Lower-case letters and digits, between them one '.', one or two '_', or any number of '-'.
bool IsComponent(std::string_view part) {
  const auto is_word = [](char c) { return IsLower(c) || IsDigit(c); };
  if (part.empty() || !is_word(part.front()) || !is_word(part.back())) return false;
  for (std::size_t i = 0; i < part.size();) {
    if (is_word(part[i])) {
      ++i;
      continue;
    }
    std::size_t end = i;
    while (end < part.size() && !is_word(part[end])) ++end;
    const std::string_view separator = part.substr(i, end - i);
    const bool dashes = separator.find_first_not_of('-') == std::string_view::npos;
    if (separator != "." && separator != "_" && separator != "__" && !dashes) return false;
    i = end;
  }
  return true;
}

bool IsPath(std::string_view path) {
  while (true) {
    const std::size_t slash = std::min(path.find('/'), path.size());
    if (!IsComponent(path.substr(0, slash))) return false;
    if (slash == path.size()) return true;
    path.remove_prefix(slash + 1);
  }
}

bool IsTag(std::string_view tag) {
  if (tag.empty() || tag.size() > kMaxTag || tag.front() == '.' || tag.front() == '-') return false;
  return std::all_of(tag.begin(), tag.end(), [](char c) {
    return IsLower(c) || IsUpper(c) || IsDigit(c) || c == '_' || c == '.' || c == '-';
  });
}

}  // namespace

std::string ImageRef::Name() const { return domain + "/" + path; }

std::string ImageRef::Tagged() const { return tag.empty() ? Name() : Name() + ":" + tag; }

std::string ImageRef::Digested() const { return digest.empty() ? Name() : Name() + "@" + digest; }

std::string ImageRef::ToString() const {
  return digest.empty() ? Tagged() : Tagged() + "@" + digest;
}

Result<ImageRef> Parse(std::string_view text) {
  if (text.empty()) return Bad(text, "it is empty");
  if (text.size() == kSha256Hex && AllHex(text)) return Bad(text, "an image id is not a name");
  ImageRef ref;
  std::string_view rest = text;
  if (const std::size_t at = rest.find('@'); at != std::string_view::npos) {
    const std::string_view digest = rest.substr(at + 1);
    constexpr std::string_view kSha256 = "sha256:";
    if (!digest.starts_with(kSha256) || digest.size() != kSha256.size() + kSha256Hex ||
        !AllHex(digest.substr(kSha256.size()))) {
      return Bad(text, "the digest must be sha256 and 64 hexadecimal characters");
    }
    ref.digest = digest;
    rest = rest.substr(0, at);
  }
  const std::size_t last_slash = rest.rfind('/');
  const std::size_t colon = rest.rfind(':');
  if (colon != std::string_view::npos &&
      (last_slash == std::string_view::npos || colon > last_slash)) {
    ref.tag = rest.substr(colon + 1);
    if (!IsTag(ref.tag)) return Bad(text, "the tag is not valid");
    rest = rest.substr(0, colon);
  }
  // The first part is a host only if it looks like one; otherwise it is Docker Hub's.
  const std::size_t slash = rest.find('/');
  const std::string_view first = rest.substr(0, std::min(slash, rest.size()));
  const bool has_domain =
      slash != std::string_view::npos &&
      (first.find_first_of(".:[") != std::string_view::npos || first == "localhost" ||
       std::any_of(first.begin(), first.end(), IsUpper));
  if (has_domain) {
    ref.domain = Lower(first);
    ref.path = rest.substr(slash + 1);
    // In lower case a single word would be a part of Docker Hub's path.
    const bool word = first.find_first_of(".:[") == std::string_view::npos;
    if (!IsDomain(ref.domain) || (word && ref.domain != "localhost")) {
      return Bad(text, "the registry's name is not valid");
    }
  } else {
    ref.domain = "docker.io";
    ref.path = rest;
  }
  if (ref.domain == "index.docker.io") ref.domain = "docker.io";
  if (std::any_of(ref.path.begin(), ref.path.end(), IsUpper)) {
    return Bad(text, "the repository must be lower case");
  }
  if (!IsPath(ref.path)) return Bad(text, "the repository's name is not valid");
  if (ref.domain == "docker.io" && ref.path.find('/') == std::string::npos) {
    ref.path.insert(0, "library/");
  }
  if (ref.domain.size() + 1 + ref.path.size() > kMaxName) return Bad(text, "it is too long");
  if (ref.tag.empty() && ref.digest.empty()) ref.tag = "latest";
  return ref;
}

std::string LowerDomain(std::string_view name) {
  const std::size_t slash = std::min(name.find('/'), name.size());
  return Lower(name.substr(0, slash)) + std::string(name.substr(slash));
}

bool LooksLikeId(std::string_view text) {
  constexpr std::string_view kSha256 = "sha256:";
  if (text.starts_with(kSha256)) {
    text.remove_prefix(kSha256.size());
    return text.size() == kSha256Hex && AllHex(text);
  }
  return !text.empty() && text.size() <= kSha256Hex && AllHex(text);
}

}  // namespace crisp::ref
