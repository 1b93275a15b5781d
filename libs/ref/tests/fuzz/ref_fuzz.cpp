// A reference that parses says the same when it is printed and parsed again.
#include <cstdlib>
#include <string_view>

#include "libs/ref/ref.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using crisp::ref::Parse;
  const auto parsed = Parse(std::string_view(reinterpret_cast<const char*>(data), size));
  if (!parsed.ok()) return 0;
  const auto again = Parse(parsed->ToString());
  if (!again.ok() || again->ToString() != parsed->ToString()) std::abort();
  if (again->Name() != parsed->Name() || parsed->domain.empty() || parsed->path.empty())
    std::abort();
  return 0;
}
