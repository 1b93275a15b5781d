#include "libs/base/trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "libs/base/guarded.h"

namespace crisp::trace {
namespace {

constexpr std::int64_t kMillion = 1'000'000;

struct Tracer {
  Sink sink;
  std::int64_t per_million = 0;
};

/// Whether there is one is asked for at each call; the rest only when there is.
std::atomic<bool> enabled{false};

Guarded<std::shared_ptr<const Tracer>>& TheTracer() {
  static auto* const kTracer = new Guarded<std::shared_ptr<const Tracer>>();  // never destroyed
  return *kTracer;
}

thread_local Context current;

/// Ids are to be different from each other, not secret.
std::mt19937_64& Random() {
  thread_local std::mt19937_64 engine{std::random_device{}()};
  return engine;
}

template <std::size_t N>
std::array<std::uint8_t, N> RandomId() {
  std::array<std::uint8_t, N> id{};
  do {
    for (std::size_t i = 0; i < N; ++i) id.at(i) = static_cast<std::uint8_t>(Random()());
  } while (id == std::array<std::uint8_t, N>{});
  return id;
}

bool FromHex(std::string_view text, std::uint8_t* out) {
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  for (std::size_t i = 0; i + 1 < text.size(); i += 2) {
    const int high = digit(text[i]);
    const int low = digit(text[i + 1]);
    if (high < 0 || low < 0) return false;
    out[i / 2] = static_cast<std::uint8_t>(high * 16 + low);
  }
  return true;
}

template <std::size_t N>
std::string ToHex(const std::array<std::uint8_t, N>& id) {
  std::string text;
  for (const std::uint8_t byte : id) text += fmt::format("{:02x}", byte);
  return text;
}

}  // namespace

std::optional<Context> ParseParent(std::string_view text) {
  constexpr std::size_t kLength = 55;  // of version 00; later ones may have more behind a '-'
  if (text.size() < kLength || text[2] != '-' || text[35] != '-' || text[52] != '-') {
    return std::nullopt;
  }
  if (text.size() > kLength && (text.starts_with("00") || text[kLength] != '-')) {
    return std::nullopt;
  }
  Context context;
  std::array<std::uint8_t, 1> version{};
  std::array<std::uint8_t, 1> flags{};
  if (!FromHex(text.substr(0, 2), version.data()) || version[0] == 0xFF ||
      !FromHex(text.substr(3, 32), context.trace.data()) ||
      !FromHex(text.substr(36, 16), context.span.data()) ||
      !FromHex(text.substr(53, 2), flags.data()) || !context.valid()) {
    return std::nullopt;
  }
  context.sampled = (flags[0] & 1U) != 0;
  return context;
}

std::string ToParent(const Context& context) {
  return fmt::format("00-{}-{}-{}", ToHex(context.trace), ToHex(context.span),
                     context.sampled ? "01" : "00");
}

const Context& Current() { return current; }

Scope::Scope(const Context& context) : before_(std::exchange(current, context)) {}
Scope::~Scope() { current = before_; }

void Start(Sink sink, std::int64_t per_million) {
  std::shared_ptr<const Tracer> tracer;
  if (sink) tracer = std::make_shared<const Tracer>(Tracer{std::move(sink), per_million});
  enabled = tracer != nullptr;
  *TheTracer().lock() = std::move(tracer);
}

bool Enabled() { return enabled.load(std::memory_order_relaxed); }

Span Span::Begin(std::string name, Kind kind, const Context& parent) {
  Span span;
  if (!Enabled()) return span;
  const std::shared_ptr<const Tracer> tracer = *TheTracer().lock();
  if (!tracer) return span;
  span.context_ = parent;
  if (!parent.valid()) {
    span.context_.trace = RandomId<16>();
    span.context_.sampled = std::uniform_int_distribution<std::int64_t>(0, kMillion - 1)(Random()) <
                            tracer->per_million;
  }
  span.context_.span = RandomId<8>();
  if (!span.context_.sampled) return span;
  span.data_ = std::make_unique<SpanData>();
  span.data_->context = span.context_;
  if (parent.valid()) span.data_->parent = parent.span;
  span.data_->name = std::move(name);
  span.data_->kind = kind;
  span.data_->start = std::chrono::system_clock::now();
  return span;
}

void Span::Set(std::string key, std::string value) {
  if (data_) data_->attributes.emplace_back(std::move(key), std::move(value));
}

void Span::End(const Status& status) {
  const std::unique_ptr<SpanData> data = std::move(data_);
  if (!data) return;
  const std::shared_ptr<const Tracer> tracer = *TheTracer().lock();
  if (!tracer) return;
  data->status = status;
  data->end = std::chrono::system_clock::now();
  tracer->sink(std::move(*data));
}

}  // namespace crisp::trace
