#include "libs/daemon/memory.h"

#include <link.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

namespace crisp::daemon {
namespace {

constexpr int kArenas = 2;
constexpr int kTrimThreshold = 128 << 10;
constexpr int kMmapThreshold = 256 << 10;
constexpr std::size_t kKeptFree = std::size_t{64} << 10U;

/// dl_iterate_phdr's callback: one loaded object.
int ReleaseObject(dl_phdr_info* info, std::size_t /*size*/, void* page_size) {
  const std::uintptr_t page = *static_cast<const std::size_t*>(page_size);
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& segment = info->dlpi_phdr[i];
    // Only what nobody can have written since it was mapped: relocated constants lie in writable
    // segments.
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_W) != 0) continue;
    const std::uintptr_t begin = info->dlpi_addr + segment.p_vaddr;
    const std::uintptr_t first = begin & ~(page - 1);
    const std::uintptr_t last = (begin + segment.p_memsz + page - 1) & ~(page - 1);
    // A failure (a mapping of another kind: the vdso) leaves the pages where they are.
    static_cast<void>(madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED));
  }
  return 0;
}

}  // namespace

void LimitMemory() {
  mallopt(M_ARENA_MAX, kArenas);
  mallopt(M_TRIM_THRESHOLD, kTrimThreshold);
  mallopt(M_MMAP_THRESHOLD, kMmapThreshold);
}

void ReleaseIdleMemory() {
  malloc_trim(kKeptFree);
  auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  dl_iterate_phdr(&ReleaseObject, &page);
}

}  // namespace crisp::daemon
