#pragma once

#include <cstddef>
#include <string_view>

#include "libs/log/log.h"

// For this library's own files.
namespace crisp::log {

inline constexpr std::size_t kLevels = 6;

constexpr std::string_view LevelName(Level level) {
  switch (level) {
    case Level::kTrace: return "trace";
    case Level::kDebug: return "debug";
    case Level::kInfo: return "info";
    case Level::kWarn: return "warn";
    case Level::kError: return "error";
    case Level::kFatal: return "fatal";
  }
  return "unknown";
}

}  // namespace crisp::log
