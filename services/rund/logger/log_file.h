#pragma once

#include <cstdint>
#include <string_view>

#include "services/rund/logger/lines.h"

namespace crisp::rund::logger {

/// The file that a container's log goes to. Nobody else writes it. What cannot be written (a full
/// disk above all) is left out rather than waited for: the file keeps whole lines only, and once it
/// can be written again one line says what is missing.
class LogFile final : public Sink {
 public:
  /// `name` in `directory`, for which both stay valid. A file of `max_size` bytes is replaced by an
  /// empty one; 0 = never.
  LogFile(int directory, const char* name, std::uint64_t max_size)
      : directory_(directory), name_(name), max_size_(max_size) {}

  /// Goes on in the file that has the name, made when there is none (mode 0640). 0, or the errno:
  /// then nothing has changed.
  int Reopen();
  /// Whoever wrote it before was ended within a line: what comes next begins a new one.
  void EndTornLine();
  void Write(std::string_view lines) override;
  /// No line comes any more.
  void End();

  /// All that could not be written so far.
  const Count& lost() const { return lost_; }

 private:
  int OpenFile(const char* name, int flags) const;
  void StartAnew();
  std::size_t Append(std::string_view lines);

  int directory_;
  const char* name_;
  std::uint64_t max_size_;
  int fd_ = -1;
  int error_ = 0;
  Gap gap_;
  Count lost_;
};

}  // namespace crisp::rund::logger
