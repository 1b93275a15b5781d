#include "libs/daemon/memory.h"

#include <fstream>
#include <string>

namespace crisp::daemon {
namespace {

/// KiB of mapped file pages.
long FileKib() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    long kib = 0;
    if (word == "RssFile:" && status >> kib) return kib;
  }
  return 0;
}

}  // namespace

TEST_CASE("idle memory is released and everything still works") {
  LimitMemory();
  const std::string text = fmt::format("{:.3f}", 1.5);
  const long before = FileKib();
  ReleaseIdleMemory();
  CHECK(FileKib() < before / 2);
  CHECK(fmt::format("{:.3f}", 1.5) == text);
  CHECK(nlohmann::json::parse("[1]")[0] == 1);
}

}  // namespace crisp::daemon
