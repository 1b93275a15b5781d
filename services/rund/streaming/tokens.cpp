#include "services/rund/streaming/tokens.h"

#include "libs/base/ids.h"

namespace crisp::rund::streaming {

void Tokens::Entries::Erase(std::map<std::string, Entry>::iterator entry) {
  bytes -= entry->second.bytes;
  by_token.erase(entry);
}

void Tokens::Entries::Sweep(SteadyTime now) {
  for (auto it = by_token.begin(); it != by_token.end();) {
    const auto entry = it++;
    if (entry->second.until <= now) Erase(entry);
  }
}

Result<std::string> Tokens::Put(Request request) {
  // 128 random bits.
  std::string token = RandomIds().Next().substr(0, 32);
  const std::size_t bytes = std::visit([](const auto& r) { return r.ByteSizeLong(); }, request);
  const SteadyTime now = clock_.Now();
  auto entries = entries_.lock();
  entries->Sweep(now);
  if (entries->by_token.size() >= kMaxTokens || entries->bytes + bytes > kMaxTokenBytes) {
    return Status(Code::kResourceExhausted,
                  "too many streaming requests whose URL nobody has used yet");
  }
  entries->bytes += bytes;
  entries->by_token.emplace(token, Entry{now + kTokenLife, std::move(request), bytes});
  return token;
}

Result<Request> Tokens::Peek(const std::string& token) const {
  auto entries = entries_.lock();
  const auto found = entries->by_token.find(token);
  if (found == entries->by_token.end() || found->second.until <= clock_.Now()) {
    return NotFound("the URL is unknown, was used already, or is too old");
  }
  return found->second.request;
}

void Tokens::Use(const std::string& token) {
  auto entries = entries_.lock();
  const auto found = entries->by_token.find(token);
  if (found != entries->by_token.end()) entries->Erase(found);
}

void Tokens::Sweep() { entries_.lock()->Sweep(clock_.Now()); }

std::size_t Tokens::size() const { return entries_.lock()->by_token.size(); }

}  // namespace crisp::rund::streaming
