#pragma once

#include <cstddef>
#include <cstdint>
#include <ctime>
#include <string_view>

// The lines of a CRI log: "TIME STREAM TAG TEXT\n". A text line that is longer than the monitor's
// buffer comes in several of them, all but the last tagged P.
namespace crisp::rund::logger {

struct Line {
  std::string_view time;
  std::string_view stream;  // stdout or stderr
  bool partial = false;
};

/// Of one line; whatever is not as it should be comes out as a whole line of stdout.
Line ParseLine(std::string_view line);

/// It is a whole line as the monitor writes it, not the end of one.
bool IsLine(std::string_view line);

inline constexpr std::size_t kMaxNote = 160;
/// "TIME stdout F [crisp: WHAT]\n", cut where it is too long; in `text`.
std::string_view Note(const timespec& time, std::string_view what, char (&text)[kMaxNote]);

/// Takes the first line with its newline off `lines`; all of it when there is none.
std::string_view TakeLine(std::string_view& lines);

/// Where whole lines go.
class Sink {
 public:
  virtual ~Sink() = default;
  virtual void Write(std::string_view lines) = 0;
};

struct Count {
  std::uint64_t lines = 0;  // of text: of one that comes in pieces the last counts
  std::uint64_t bytes = 0;  // in the log

  void Add(const Line& parsed, std::string_view line) {
    lines += parsed.partial ? 0 : 1;
    bytes += line.size();
  }
};

/// Lines that did not get into the log, one after the other, and the one line that stands for them.
class Gap {
 public:
  bool empty() const { return count_.bytes == 0; }
  void Add(const Line& parsed, std::string_view line);
  /// "TIME STREAM F [crisp: 3 lines (120 bytes) WHY]\n", with the time and stream of the last one;
  /// `why` is cut where it is too long. The gap is empty afterwards. Valid until the next call.
  std::string_view Close(std::string_view why);

 private:
  Count count_;
  char head_[80];
  std::size_t head_size_ = 0;
  char text_[240];
};

}  // namespace crisp::rund::logger
