#pragma once

#include <cstdint>
#include <string_view>

#include "services/rund/logger/bucket.h"
#include "services/rund/logger/dropper.h"
#include "services/rund/logger/log_file.h"

namespace crisp::rund::logger {

struct RelayOptions {
  const char* name = "";      // of the log, in its directory
  const char* pid_file = "";  // of the container's first process
  std::uint64_t rate = 0;     // bytes a second; 0 = no limit
  std::uint64_t burst = 0;
  bool block = false;
  std::uint64_t max_size = 0;  // of the file; 0 = no limit
  bool again = false;          // instead of one that was lost
};

/// All that crisp-log does, on the descriptors that main.cpp describes. One thread.
class Relay {
 public:
  explicit Relay(const RelayOptions& options);

  /// The log's file; 0 or the errno.
  int Open();
  /// Until the FIFO ends.
  void Run();

 private:
  /// Longer than any line of conmon's, which reads 8 KiB at a time.
  static constexpr std::size_t kBuffer = 64 << 10;

  std::string_view Held() const { return {buffer_ + begin_, end_ - begin_}; }
  std::string_view WholeLines() const;
  bool Read();
  Nanoseconds Pass(Nanoseconds now);
  Nanoseconds PassSome(std::string_view lines, Nanoseconds now);
  void SkipTornLine();
  void End();
  void WatchContainer();
  bool ContainerEnded() const;
  void Serve();
  void Drain();

  RelayOptions options_;
  LogFile file_;
  Bucket bucket_;
  Dropper dropper_;
  /// Nobody is held up any more: the container has ended, and what it left is not much.
  bool free_;
  /// What comes first may be the rest of a line of which the beginning was lost.
  bool torn_;
  int container_ = -1;  // a pidfd, from the first time that it has to wait
  std::size_t begin_ = 0, end_ = 0;
  char buffer_[kBuffer];
};

}  // namespace crisp::rund::logger
