#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "integration/harness/spdy_client.h"
#include "libs/os/unique_fd.h"

namespace crisp::bench {

/// Somebody who sends back what he gets. One thread sends, one receives. All throw when the
/// connection ends too early.
class Echo {
 public:
  virtual ~Echo() = default;
  virtual void Send(std::string_view bytes) = 0;
  /// Until so many bytes have come back since the beginning.
  virtual void AwaitTotal(std::uint64_t total) = 0;
};

/// Behind a TCP connection, with nothing between: the floor.
class PlainEcho final : public Echo {
 public:
  /// `address`: IPv4:port.
  explicit PlainEcho(const std::string& address)
      : fd_(harness::ConnectTo("tcp://" + address + "/")) {}
  void Send(std::string_view bytes) override;
  void AwaitTotal(std::uint64_t total) override;

 private:
  os::UniqueFd fd_;
  std::uint64_t got_ = 0;
};

/// Behind streams of a SPDY session, which outlives it.
class StreamEcho final : public Echo {
 public:
  StreamEcho(harness::SpdyClient& client, std::uint32_t in, std::uint32_t out);
  void Send(std::string_view bytes) override { client_.Send(in_, bytes); }
  void AwaitTotal(std::uint64_t total) override;

 private:
  harness::SpdyClient& client_;
  std::uint32_t in_, out_;
};

}  // namespace crisp::bench
