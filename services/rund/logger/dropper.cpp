#include "services/rund/logger/dropper.h"

#include <algorithm>
#include <cstdio>

namespace crisp::rund::logger {

std::uint64_t Dropper::Enough() const {
  constexpr std::uint64_t kAnyLine = 16 << 10;
  return std::max(bucket_.OneSecond(), kAnyLine);
}

void Dropper::Pass(std::string_view lines, Nanoseconds now, Sink& sink) {
  Tick(now, sink);
  while (!lines.empty()) {
    std::size_t passed = 0;
    std::string_view rest = lines;
    std::string_view line;
    while (gap_.empty() && !rest.empty()) {
      line = TakeLine(rest);
      if (!bucket_.Take(line.size(), now)) break;
      Note(line);
      passed += line.size();
      line = {};
    }
    if (passed > 0) sink.Write(lines.substr(0, passed));
    // Either the one that did not pass, or those of a gap that goes on.
    if (line.empty() && !rest.empty()) line = TakeLine(rest);
    if (!line.empty()) Drop(line, sink);
    lines = rest;
  }
}

void Dropper::Tick(Nanoseconds now, Sink& sink) {
  if (!gap_.empty() && bucket_.Until(Enough(), now) == 0) End(sink);
}

void Dropper::End(Sink& sink) {
  if (gap_.empty()) return;
  char why[64];
  const int size = std::snprintf(why, sizeof why, "left out: more than %llu bytes a second",
                                 static_cast<unsigned long long>(rate_));
  sink.Write(gap_.Close({why, static_cast<std::size_t>(size)}));
}

void Dropper::Note(std::string_view line) {
  const Line parsed = ParseLine(line);
  (parsed.stream == "stderr" ? err_open_ : out_open_) = parsed.partial;
}

void Dropper::Drop(std::string_view line, Sink& sink) {
  const Line parsed = ParseLine(line);
  CloseOpenLines(parsed.time, sink);
  gap_.Add(parsed, line);
  dropped_.Add(parsed, line);
}

/// Whoever puts pieces together again must not put what comes after the gap to what was before it.
void Dropper::CloseOpenLines(std::string_view time, Sink& sink) {
  const auto close = [&](bool& open, const char* stream) {
    if (!open) return;
    open = false;
    char text[96];
    const int size = std::snprintf(text, sizeof text, "%.*s %s F \n",
                                   static_cast<int>(std::min<std::size_t>(time.size(), 64)),
                                   time.data(), stream);
    sink.Write({text, static_cast<std::size_t>(size)});
  };
  close(out_open_, "stdout");
  close(err_open_, "stderr");
}

}  // namespace crisp::rund::logger
