#pragma once

#include <string>

#include "libs/base/result.h"

namespace crisp::bench {

struct Pulled {
  double seconds = 0;
  double compressed_mb = 0;
  double tar_mb = 0;
};

/// What a pull cannot be faster than: HTTP socket → SHA-256 → inflate → SHA-256 → untar, four
/// threads for each layer, `parallel` layers side by side, into fresh directories below
/// `directory`. No records, no locks, no resumption. `reference` is HOST:PORT/REPOSITORY:TAG of a
/// plain HTTP registry at a loopback address.
Result<Pulled> PullByItself(const std::string& reference, const std::string& directory,
                            int parallel);

}  // namespace crisp::bench
