#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "libs/base/status.h"

// Spans of distributed traces: what a call did, in whichever daemons, as a tree with times. The
// context of a trace goes with the thread (Current), with work that is handed to a pool, and
// between processes as the W3C's `traceparent`. Off (no sink), all of this costs a look at a flag.
namespace crisp::trace {

using TraceId = std::array<std::uint8_t, 16>;
using SpanId = std::array<std::uint8_t, 8>;

/// Where in which trace something happens. Without a trace: all zero.
struct Context {
  TraceId trace{};
  SpanId span{};
  bool sampled = false;

  bool valid() const { return trace != TraceId{} && span != SpanId{}; }
};
/// "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" (W3C Trace Context, level 1); nothing
/// for what is none.
std::optional<Context> ParseParent(std::string_view text);
std::string ToParent(const Context& context);

/// The span that the calling thread is at work for.
const Context& Current();
/// Makes `context` the current one until the scope ends.
class Scope {
 public:
  explicit Scope(const Context& context);
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;
  ~Scope();

 private:
  const Context before_;
};

enum class Kind { kInternal, kServer, kClient };

/// A span that has ended.
struct SpanData {
  Context context;
  SpanId parent{};  // zero: it is the first of its trace
  std::string name;
  Kind kind = Kind::kInternal;
  std::chrono::system_clock::time_point start;
  std::chrono::system_clock::time_point end;
  Status status;
  std::vector<std::pair<std::string, std::string>> attributes;
};

/// Gets each span that is sampled, on the thread that ended it: it must not block.
using Sink = std::function<void(SpanData)>;
/// From now on spans are made; of those that begin a trace `per_million` are sampled, others go by
/// their parent. An empty sink ends it. Any thread.
void Start(Sink sink, std::int64_t per_million);
bool Enabled();

/// One span under way. Moved, not copied; one that is never ended is not told of. One thread at a
/// time.
class Span {
 public:
  /// None: everything is without effect.
  Span() = default;
  /// A child of `parent`, or the beginning of a trace where that is not valid. Without a sink:
  /// none.
  static Span Begin(std::string name, Kind kind, const Context& parent);

  /// For Scope and for what is sent on. Not valid for none.
  const Context& context() const { return context_; }
  /// Never secrets: see log.h.
  void Set(std::string key, std::string value);
  /// The first one counts.
  void End(const Status& status);

 private:
  Context context_;
  std::unique_ptr<SpanData> data_;  // null: not sampled, or ended
};

}  // namespace crisp::trace
