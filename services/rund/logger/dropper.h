#pragma once

#include <string_view>

#include "services/rund/logger/bucket.h"
#include "services/rund/logger/lines.h"

namespace crisp::rund::logger {

/// Lets lines through as long as there is room in the bucket. Once there is none, all are left out
/// until it has a second's worth again: so a container that writes too much has gaps of about a
/// second in its log rather than one after each line, and one line stands for each gap.
class Dropper {
 public:
  Dropper(Bucket bucket, std::uint64_t rate) : bucket_(bucket), rate_(rate) {}

  /// Whole lines; those that may pass go to `sink`.
  void Pass(std::string_view lines, Nanoseconds now, Sink& sink);
  /// Writes the line that stands for a gap, when the gap is over.
  void Tick(Nanoseconds now, Sink& sink);
  /// Until Tick has something to do; -1 = it has not.
  Nanoseconds Wait(Nanoseconds now) { return gap_.empty() ? -1 : bucket_.Until(Enough(), now); }
  /// No line comes any more.
  void End(Sink& sink);

  /// All that was left out so far.
  const Count& dropped() const { return dropped_; }

 private:
  std::uint64_t Enough() const;
  void Note(std::string_view line);
  void Drop(std::string_view line, Sink& sink);
  void CloseOpenLines(std::string_view time, Sink& sink);

  Bucket bucket_;
  std::uint64_t rate_;
  Gap gap_;
  Count dropped_;
  /// The last line that passed was tagged P; by stream.
  bool out_open_ = false, err_open_ = false;
};

}  // namespace crisp::rund::logger
