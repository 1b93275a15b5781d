#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace crisp::rund {

/// The counters of one network interface.
struct InterfaceUsage {
  std::string name;
  std::uint64_t rx_bytes = 0;
  std::uint64_t rx_packets = 0;
  std::uint64_t rx_errors = 0;
  std::uint64_t rx_dropped = 0;
  std::uint64_t tx_bytes = 0;
  std::uint64_t tx_packets = 0;
  std::uint64_t tx_errors = 0;
  std::uint64_t tx_dropped = 0;
};

/// /proc/net/dev, without the loopback.
std::vector<InterfaceUsage> ParseNetDev(std::string_view text);

/// The interfaces of each of these network namespaces ("/run/netns/x"), in the same order; nothing
/// for one that cannot be entered. One thread, which ends with it, goes through all of them, and
/// nothing is kept: no namespace lives longer for having been looked at. Takes no lock that network
/// configuration holds.
std::vector<std::optional<std::vector<InterfaceUsage>>> ReadNetworks(
    const std::vector<std::string>& namespaces);

}  // namespace crisp::rund
