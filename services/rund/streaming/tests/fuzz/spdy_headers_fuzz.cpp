// Header blocks: as they are, after our own compressor, and inflated ones.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "services/rund/streaming/spdy_headers.h"

using namespace crisp::rund::streaming::spdy;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const std::string_view all(reinterpret_cast<const char*>(bytes), size);
  {
    HeaderReader reader;
    const std::size_t half = size / 2;
    if (reader.Read(all.substr(0, half)).ok())
      static_cast<void>(reader.Read(all.substr(half)).ok());
  }
  const auto headers = ParseHeaders(all);
  if (!headers.ok()) return 0;
  HeaderWriter writer;
  HeaderReader reader;
  const auto again = reader.Read(writer.Write(*headers));
  if (!again.ok() || *again != *headers) std::abort();
  return 0;
}
