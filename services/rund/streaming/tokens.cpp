#include "services/rund/streaming/tokens.h"

#include "libs/base/ids.h"

namespace crisp::rund::streaming {

Result<std::string> Tokens::Put(Request request) {
  // 128 random bits.
  std::string token = RandomIds().Next().substr(0, 32);
  const SteadyTime now = clock_.Now();
  auto entries = entries_.lock();
  std::erase_if(*entries, [now](const auto& entry) { return entry.second.until <= now; });
  if (entries->size() >= kMaxTokens) {
    return Status(Code::kResourceExhausted,
                  "too many streaming requests whose URL nobody has used yet");
  }
  entries->emplace(token, Entry{now + kTokenLife, std::move(request)});
  return token;
}

Result<Request> Tokens::Peek(const std::string& token) const {
  auto entries = entries_.lock();
  const auto found = entries->find(token);
  if (found == entries->end() || found->second.until <= clock_.Now()) {
    return NotFound("the URL is unknown, was used already, or is too old");
  }
  return found->second.request;
}

void Tokens::Use(const std::string& token) { entries_.lock()->erase(token); }

std::size_t Tokens::size() const { return entries_.lock()->size(); }

}  // namespace crisp::rund::streaming
