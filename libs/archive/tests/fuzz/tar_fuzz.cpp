// Any bytes as a tar archive: one error or a sound entry, never more data than the entry says.
#include <cstdlib>

#include "libs/archive/tar.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace crisp::archive;
  if (size == 0) return 0;
  // The first byte says in which pieces the source comes.
  StringSource source({reinterpret_cast<const char*>(data) + 1, size - 1}, data[0] * 7U + 1);
  TarReader reader(source, {.max_entries = 1000, .max_header = crisp::KiB(64)});
  TarEntry entry;
  while (true) {
    const auto more = reader.Next(entry);
    if (!more.ok() || !*more) break;
    if (entry.path.empty() || entry.path.size() > 4096) std::abort();
    std::uint64_t stored = entry.size;
    if (entry.sparse) {
      stored = 0;
      std::uint64_t end = 0;
      for (const Extent& extent : entry.extents) {
        if (extent.offset < end || extent.size == 0) std::abort();
        end = extent.offset + extent.size;
        stored += extent.size;
      }
      if (end > entry.size) std::abort();
    }
    // Every other entry is read, the rest is skipped.
    if (entry.path.size() % 2 == 0) continue;
    while (true) {
      const auto piece = reader.Data();
      if (!piece.ok()) return 0;
      if (piece->empty()) break;
      if (piece->size() > stored) std::abort();
      stored -= piece->size();
    }
    if (stored != 0) std::abort();
  }
  static_cast<void>(reader.Drain().ok());
  return 0;
}
