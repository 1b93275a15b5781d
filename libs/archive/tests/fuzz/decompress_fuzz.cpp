// Any bytes as a compressed stream, in pieces of any size; at most 4 MB are taken out of it.
#include <vector>

#include "libs/archive/decompress.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace crisp::archive;
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto kind = DetectCompression(text.substr(0, 6));
  if (!kind.ok()) return 0;
  StringSource source(text, data[0] * 5U + 1);
  const auto reader = MakeDecompressor(*kind, source);
  std::vector<char> into(64U << 10U);
  for (int i = 0; i < 64; ++i) {
    const auto count = reader->Read(into);
    if (!count.ok() || *count < into.size()) break;
  }
  return 0;
}
