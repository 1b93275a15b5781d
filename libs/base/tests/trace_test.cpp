#include "libs/base/trace.h"

#include <catch2/catch.hpp>

namespace crisp::trace {
namespace {

constexpr const char* kParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Spans go here while it lives.
struct Recorded {
  explicit Recorded(std::int64_t per_million) {
    Start([this](SpanData span) { spans.push_back(std::move(span)); }, per_million);
  }
  ~Recorded() { Start(nullptr, 0); }
  std::vector<SpanData> spans;
};

}  // namespace

TEST_CASE("a traceparent is read as the W3C has it, and written the same") {
  const auto context = ParseParent(kParent);
  REQUIRE(context);
  CHECK(context->sampled);
  CHECK(context->trace[0] == 0x0a);
  CHECK(context->span[7] == 0x31);
  CHECK(ToParent(*context) == kParent);
  CHECK_FALSE(ParseParent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")->sampled);
  // A later version may have more.
  CHECK(ParseParent("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x"));
  for (const char* wrong : {"", "00", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
                            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
                            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
                            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
                            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}) {
    INFO(wrong);
    CHECK_FALSE(ParseParent(wrong));
  }
}

TEST_CASE("spans are children of what the thread is at work for") {
  Recorded recorded(0);
  const Context parent = *ParseParent(kParent);
  Span outer = Span::Begin("outer", Kind::kServer, parent);
  outer.Set("key", "value");
  CHECK_FALSE(Current().valid());
  {
    const Scope scope(outer.context());
    Span inner = Span::Begin("inner", Kind::kInternal, Current());
    inner.End(NotFound("no"));
    inner.End(Status::Ok());
  }
  CHECK_FALSE(Current().valid());
  outer.End(Status::Ok());
  REQUIRE(recorded.spans.size() == 2);
  const SpanData& inner = recorded.spans[0];
  CHECK(inner.name == "inner");
  CHECK(inner.status.code() == Code::kNotFound);
  CHECK(inner.context.trace == parent.trace);
  CHECK(inner.parent == recorded.spans[1].context.span);
  CHECK(recorded.spans[1].parent == parent.span);
  CHECK(recorded.spans[1].kind == Kind::kServer);
  CHECK(recorded.spans[1].attributes.at(0).second == "value");
  CHECK(recorded.spans[1].end >= recorded.spans[1].start);
}

TEST_CASE("a trace that begins here is sampled as often as wanted, others as their caller says") {
  const Context unsampled = *ParseParent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00");
  {
    Recorded recorded(1'000'000);
    Span::Begin("a", Kind::kServer, {}).End(Status::Ok());
    Span::Begin("b", Kind::kServer, unsampled).End(Status::Ok());
    REQUIRE(recorded.spans.size() == 1);
    CHECK(recorded.spans[0].parent == SpanId{});
    CHECK(recorded.spans[0].context.valid());
  }
  {
    Recorded recorded(0);
    Span span = Span::Begin("a", Kind::kServer, {});
    CHECK(span.context().valid());  // for others to know that it is not sampled
    span.End(Status::Ok());
    CHECK(recorded.spans.empty());
  }
}

TEST_CASE("without a sink there are no spans") {
  CHECK_FALSE(Enabled());
  Span span = Span::Begin("a", Kind::kServer, *ParseParent(kParent));
  CHECK_FALSE(span.context().valid());
  span.Set("a", "b");
  span.End(Status::Ok());
}

}  // namespace crisp::trace
