#pragma once

#include <cstdint>

namespace crisp::rund::streaming {

/// How far the other side of a TCP connection is with what we have written.
struct TcpProgress {
  std::uint64_t acknowledged = 0;  // bytes, ever
  int outstanding = 0;             // bytes (and our end counts as one) that it has not taken
  bool operator==(const TcpProgress&) const = default;
};
/// All zero when the socket is none.
TcpProgress ProgressOf(int socket);

/// A peer that has gone without a word is found within two minutes. One that is there and takes
/// nothing may go on so: a person may be looking at a full screen (which is why it is not
/// TCP_USER_TIMEOUT).
void KeepAlive(int socket);

}  // namespace crisp::rund::streaming
