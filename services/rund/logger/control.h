#pragma once

// What rund asks of crisp-log, over the socket `log.sock` of the bundle (SOCK_SEQPACKET): one
// request a connection, a word; one answer, "ok DROPPED_LINES DROPPED_BYTES LOST_LINES LOST_BYTES
// PID" (all since it was started: left out because of the limit, and not written because of an
// error; and which process it is), or "error ERRNO".
namespace crisp::rund::logger {

/// Go on in the file that has the log's name now. It is there when the answer comes.
inline constexpr char kReopen[] = "reopen";
/// The container has ended: write what is in the FIFO, and what stands for a gap that is open.
inline constexpr char kDrain[] = "drain";
/// Only the counts.
inline constexpr char kCounts[] = "counts";

/// The last argument of one that stands in for another that was lost.
inline constexpr char kAgain[] = "again";

/// In the bundle.
inline constexpr char kFifoName[] = "log";
inline constexpr char kSocketName[] = "log.sock";

inline constexpr int kDirectoryFd = 3;
inline constexpr int kSocketFd = 4;

}  // namespace crisp::rund::logger
