#include "services/rund/streaming/tokens.h"

#include <catch2/catch.hpp>

#include "libs/testing/manual_clock.h"

namespace crisp::rund::streaming {

TEST_CASE("A token is good once, for a minute, and there are so many of them at most") {
  testing::ManualClock clock;
  Tokens tokens(clock);
  const std::string token = tokens.Put(runtime::v1::ExecRequest()).value();
  CHECK(token.size() == 32);
  CHECK(tokens.Peek(token).ok());
  tokens.Use(token);
  CHECK(tokens.Peek(token).code() == Code::kNotFound);

  const std::string old = tokens.Put(runtime::v1::AttachRequest()).value();
  clock.Advance(kTokenLife);
  CHECK(tokens.Peek(old).code() == Code::kNotFound);

  for (std::size_t i = 0; i < kMaxTokens; ++i) {
    CHECK(tokens.Put(runtime::v1::ExecRequest()).ok());
  }
  CHECK(tokens.Put(runtime::v1::ExecRequest()).code() == Code::kResourceExhausted);
  clock.Advance(kTokenLife);
  CHECK(tokens.Put(runtime::v1::ExecRequest()).ok());
  CHECK(tokens.size() == 1);
}

TEST_CASE("Requests that nobody comes for cost so much memory, for a minute") {
  testing::ManualClock clock;
  Tokens tokens(clock);
  runtime::v1::ExecRequest big;
  big.add_cmd(std::string(kMaxTokenBytes / 3, 'x'));
  CHECK(tokens.Put(big).ok());
  const std::string used = tokens.Put(big).value();
  CHECK(tokens.Put(big).code() == Code::kResourceExhausted);
  tokens.Use(used);
  CHECK(tokens.Put(big).ok());
  clock.Advance(kTokenLife);
  tokens.Sweep();
  CHECK(tokens.size() == 0);
  CHECK(tokens.Put(big).ok());
}

}  // namespace crisp::rund::streaming
