#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "libs/base/ids.h"
#include "libs/base/result.h"
#include "services/rund/store/layout.h"

namespace crisp::rund {

/// What conmon leaves of a container that has ended.
struct ExitRecord {
  int code = 255;  // 128 + n for signal n
  bool oom = false;
  std::int64_t finished_at = 0;  // Unix nanoseconds
};

/// Nothing while it runs. kDataLoss: the file is there and makes no sense.
Result<std::optional<ExitRecord>> ReadExit(const Layout& layout, const ContainerId& id);

}  // namespace crisp::rund
