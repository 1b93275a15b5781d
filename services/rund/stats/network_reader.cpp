#include "services/rund/stats/network_reader.h"

#include <fcntl.h>
#include <sched.h>

#include <charconv>
#include <system_error>
#include <thread>

#include "libs/os/files.h"
#include "services/rund/stats/cgroup_text.h"
#include "services/rund/stats/kept_file.h"

namespace crisp::rund {
namespace {

std::uint64_t NextNumber(std::string_view& line) {
  const std::string_view word = NextWord(line);
  std::uint64_t value = 0;
  std::from_chars(word.data(), word.data() + word.size(), value);
  return value;
}

}  // namespace

std::vector<InterfaceUsage> ParseNetDev(std::string_view text) {
  std::vector<InterfaceUsage> found;
  ForEachLine(text, [&found](std::string_view line) {
    // Two lines of headings have no colon in front of a number.
    const std::size_t colon = line.find(':');
    if (colon == line.npos || line.find('|') != line.npos) return;
    std::string_view name = line.substr(0, colon);
    line.remove_prefix(colon + 1);
    name = NextWord(name);
    if (name == "lo") return;
    InterfaceUsage usage{.name = std::string(name)};
    usage.rx_bytes = NextNumber(line);
    usage.rx_packets = NextNumber(line);
    usage.rx_errors = NextNumber(line);
    usage.rx_dropped = NextNumber(line);
    for (int skipped = 0; skipped < 4; ++skipped)
      NextNumber(line);  // fifo frame compressed multicast
    usage.tx_bytes = NextNumber(line);
    usage.tx_packets = NextNumber(line);
    usage.tx_errors = NextNumber(line);
    usage.tx_dropped = NextNumber(line);
    found.push_back(std::move(usage));
  });
  return found;
}

std::vector<std::optional<std::vector<InterfaceUsage>>> ReadNetworks(
    const std::vector<std::string>& namespaces) {
  std::vector<std::optional<std::vector<InterfaceUsage>>> found(namespaces.size());
  if (namespaces.empty()) return found;
  try {
    std::thread reader([&namespaces, &found] {
      Scratch scratch;
      for (std::size_t i = 0; i < namespaces.size(); ++i) {
        const auto fd = os::Open(namespaces[i], O_RDONLY);
        if (!fd.ok() || ::setns(fd->get(), CLONE_NEWNET) != 0) continue;
        found[i] = ParseNetDev(ReadOnce("/proc/thread-self/net/dev", scratch));
      }
    });
    reader.join();
  } catch (const std::system_error&) {
    // No thread to be had now: the values are absent this time.
  }
  return found;
}

}  // namespace crisp::rund
