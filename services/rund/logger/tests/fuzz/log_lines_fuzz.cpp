// Whatever a monitor writes into crisp-log's pipe: no byte of it is lost uncounted.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "services/rund/logger/dropper.h"
#include "services/rund/logger/lines.h"

using namespace crisp::rund::logger;

namespace {

void Need(bool good) {
  if (!good) std::abort();
}

/// Tells the input's own lines from those that the dropper makes, by where they are.
class Log final : public Sink {
 public:
  explicit Log(std::string_view input) : input_(input), next_(input.data()) {}

  void Write(std::string_view lines) override {
    if (lines.data() >= input_.data() && lines.data() < input_.data() + input_.size()) {
      Need(lines.data() >= next_);  // in their order, each once
      next_ = lines.data() + lines.size();
      passed_ += lines.size();
      for (std::string_view rest = lines; !rest.empty();) Note(TakeLine(rest), /*own=*/false);
      return;
    }
    // A line of ours: whole, and nothing but one.
    Need(lines.ends_with('\n') && lines.find('\n') == lines.size() - 1);
    Note(lines, /*own=*/true);
  }
  std::uint64_t passed() const { return passed_; }
  std::uint64_t markers() const { return markers_; }

 private:
  void Note(std::string_view line, bool own) {
    const Line parsed = ParseLine(line);
    Need(parsed.stream == "stdout" || parsed.stream == "stderr");
    bool& open = parsed.stream == "stderr" ? err_open_ : out_open_;
    if (own) {
      Need(!parsed.partial);
      const bool marker = line.find("[crisp: ") != std::string_view::npos;
      markers_ += static_cast<std::uint64_t>(marker);
      // Nobody puts what comes after a gap to what was before it.
      if (marker) Need(!out_open_ && !err_open_);
    }
    open = parsed.partial;
  }

  const std::string_view input_;
  const char* next_;
  std::uint64_t passed_ = 0;
  std::uint64_t markers_ = 0;
  bool out_open_ = false, err_open_ = false;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  if (size < 4) return 0;
  const std::uint64_t rate = bytes[0] + 1U;
  const std::uint64_t burst = bytes[1] * 4U + 1U;
  const std::size_t lines_at_once = bytes[2] % 8U + 1U;
  const Nanoseconds tick = Nanoseconds{bytes[3]} * 20'000'000;
  const std::string_view input(reinterpret_cast<const char*>(bytes) + 4, size - 4);
  Dropper dropper(Bucket(rate, burst, 0), rate);
  Log log(input);
  Nanoseconds now = 0;
  for (std::string_view rest = input; !rest.empty();) {
    const char* begin = rest.data();
    for (std::size_t i = 0; i < lines_at_once; ++i) TakeLine(rest);
    dropper.Pass({begin, static_cast<std::size_t>(rest.data() - begin)}, now, log);
    Need(dropper.Wait(now) >= -1);
    now += tick;
    dropper.Tick(now, log);
  }
  dropper.End(log);
  Need(dropper.Wait(now) == -1);
  Need(log.passed() + dropper.dropped().bytes == input.size());
  // What is missing is told.
  Need((dropper.dropped().bytes > 0) == (log.markers() > 0));
  return 0;
}
