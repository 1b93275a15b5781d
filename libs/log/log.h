#pragma once

#include <fmt/format.h>

#include <chrono>
#include <concepts>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "libs/base/result.h"
#include "libs/base/status.h"

// A line is an event plus key=value. fatal = the process ends of it; error = an operator must look;
// warn = degraded; info = one line per state change; debug = the rest; trace = each call and each
// program that is run. Log an error once, where it is handled. Never credentials, environment
// values, annotations' contents or HTTP bodies. Any thread.
//
// Lines go to stderr. Where that is the journal's (systemd's JOURNAL_STREAM) they go there with
// each field apart: CRISP_POD, CRISP_CONTAINER, CRISP_RPC ...
namespace crisp::log {

enum class Level { kTrace, kDebug, kInfo, kWarn, kError, kFatal };
enum class Format { kText, kJson };

/// "trace", "debug", "info", "warn", "error", "fatal"; kInvalidArgument for anything else.
Result<Level> ParseLevel(std::string_view text);
/// "text" or "json".
Result<Format> ParseFormat(std::string_view text);

struct Options {
  Level level = Level::kInfo;
  Format format = Format::kText;
  /// In each line, when not empty.
  std::string service;
  std::string instance;
};

/// Before it is called, lines go out as text at level info. Again to change the options.
void Init(const Options& options);
/// Changes the level alone, at any time.
void SetLevel(Level level);
/// True when a line of that level would be written: for fields that cost something to make.
bool Enabled(Level level);

/// One key=value. Takes text, numbers, booleans, Status (its ToString), durations (in seconds) and
/// whatever fmt can print (the ids).
struct Field {
  // Implicit on purpose: fields are written {"key", value}.
  template <typename T>
  Field(std::string_view name, const T& from)  // NOLINT(google-explicit-constructor)
      : key(name) {
    if constexpr (std::same_as<T, bool>) {
      value = from ? "true" : "false";
      is_text = false;
    } else if constexpr (std::is_arithmetic_v<T>) {
      value = fmt::format("{}", from);
      is_text = false;
    } else if constexpr (std::same_as<T, Status>) {
      value = from.ToString();
    } else if constexpr (requires { std::chrono::duration<double>(from); }) {
      value = fmt::format("{:.6g}", std::chrono::duration<double>(from).count());
      is_text = false;
    } else if constexpr (std::convertible_to<const T&, std::string_view>) {
      value = std::string_view(from);
    } else {
      value = fmt::format("{}", from);
    }
  }

  std::string_view key;
  std::string value;
  /// False: a number or a boolean, written without quotes in JSON.
  bool is_text = true;
};

using Fields = std::initializer_list<Field>;

void Trace(std::string_view event, Fields fields = {});
void Debug(std::string_view event, Fields fields = {});
void Info(std::string_view event, Fields fields = {});
void Warn(std::string_view event, Fields fields = {});
void Error(std::string_view event, Fields fields = {});
/// Ends nothing by itself.
void Fatal(std::string_view event, Fields fields = {});

/// For undo and the like, where a failure can only be noted: a warning `what` with error=... unless
/// the status is Ok.
void IfError(std::string_view what, const Status& status);

/// Renders a line without its time, as Init's format would: for tests.
std::string Render(Format format, Level level, std::string_view event, Fields fields);

}  // namespace crisp::log
