#include "libs/log/log.h"

#include <spdlog/logger.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <mutex>

#include "libs/base/text.h"
#include "libs/log/journal.h"
#include "libs/log/level.h"

namespace crisp::log {
namespace {

/// In double quotes with JSON's escapes; what is no UTF-8 becomes U+FFFD.
void AppendQuoted(std::string& out, std::string_view text) {
  out += '"';
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = Utf8Length(text.substr(i));
    if (length != 1) {
      out += length == 0 ? std::string_view("\xEF\xBF\xBD") : text.substr(i, length);
      i += length == 0 ? 1 : length;
      continue;
    }
    const char c = text[i++];
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
          out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
        } else {
          out += c;
        }
    }
  }
  out += '"';
}

bool NeedsQuotes(std::string_view text) {
  if (text.empty()) return true;
  for (const char c : text) {
    if (static_cast<unsigned char>(c) <= 0x20 || static_cast<unsigned char>(c) >= 0x7F ||
        c == '"' || c == '=' || c == '\\') {
      return true;
    }
  }
  return false;
}

void AppendText(std::string& out, std::string_view key, std::string_view value) {
  out += ' ';
  out += key;
  out += '=';
  if (NeedsQuotes(value)) {
    AppendQuoted(out, value);
  } else {
    out += value;
  }
}

void AppendJson(std::string& out, std::string_view key, std::string_view value, bool is_text) {
  out += ',';
  AppendQuoted(out, key);
  out += ':';
  // inf and nan are no JSON.
  if (is_text || value.find_first_of("in") == 0 || value.find("nan") != value.npos ||
      value.find("inf") != value.npos) {
    AppendQuoted(out, value);
  } else {
    out += value;
  }
}

/// The one global of the process: where its lines go.
struct Sink {
  Sink()
      : is_journal(IsJournalStream(STDERR_FILENO, std::getenv("JOURNAL_STREAM"))),
        logger("crisp", std::make_shared<spdlog::sinks::stderr_sink_mt>()) {
    logger.set_level(spdlog::level::trace);
    Format(log::Format::kText);
  }

  void Format(log::Format format) {
    const char* pattern = format == log::Format::kJson ? R"({"time":"%Y-%m-%dT%H:%M:%S.%eZ",%v)"
                                                       : "%Y-%m-%dT%H:%M:%S.%eZ %v";
    // journald keeps its own time and takes the priority from a prefix.
    if (format == log::Format::kText && is_journal) pattern = "%v";
    logger.set_formatter(
        std::make_unique<spdlog::pattern_formatter>(pattern, spdlog::pattern_time_type::utc, "\n"));
  }

  const bool is_journal;  // what stderr is
  spdlog::logger logger;
  std::atomic<Level> level{Level::kInfo};
  std::mutex mutex;  // of options
  Options options;
};

Sink& TheSink() {
  static Sink* const kSink = new Sink;  // never destroyed: the last lines come late
  return *kSink;
}

std::string RenderLine(const Options& options, Level level, std::string_view event, Fields fields) {
  std::string line;
  if (options.format == Format::kJson) {
    line += "\"level\":\"";
    line += LevelName(level);
    line += "\",\"event\":";
    AppendQuoted(line, event);
    if (!options.service.empty()) AppendJson(line, "service", options.service, true);
    if (!options.instance.empty()) AppendJson(line, "instance", options.instance, true);
    for (const Field& field : fields) AppendJson(line, field.key, field.value, field.is_text);
    line += '}';
    return line;
  }
  line += fmt::format("{:<5} {}", LevelName(level), event);
  if (!options.service.empty()) {
    AppendText(
        line, "from",
        options.instance.empty() ? options.service : options.service + "/" + options.instance);
  }
  for (const Field& field : fields) AppendText(line, field.key, field.value);
  return line;
}

void Write(Level level, std::string_view event, Fields fields) {
  if (!Enabled(level)) return;
  Sink& sink = TheSink();
  Options options;
  {
    std::lock_guard lock(sink.mutex);
    options = sink.options;
  }
  std::string line = RenderLine(options, level, event, fields);
  if (options.format == Format::kText && sink.is_journal) {
    if (SendToJournal(kJournalSocket, JournalEntry(options, level, line, fields))) return;
    static constexpr std::array<const char*, kLevels> kPriorities = {"<7>", "<7>", "<6>",
                                                                     "<4>", "<3>", "<2>"};
    line.insert(0, kPriorities.at(static_cast<std::size_t>(level)));
  }
  sink.logger.log(spdlog::level::info, spdlog::string_view_t(line.data(), line.size()));
}

}  // namespace

Result<Level> ParseLevel(std::string_view text) {
  for (const Level level :
       {Level::kTrace, Level::kDebug, Level::kInfo, Level::kWarn, Level::kError, Level::kFatal}) {
    if (text == LevelName(level)) return level;
  }
  return InvalidArgument("'{}' is no log level (trace, debug, info, warn, error, fatal)", text);
}

Result<Format> ParseFormat(std::string_view text) {
  if (text == "text") return Format::kText;
  if (text == "json") return Format::kJson;
  return InvalidArgument("'{}' is no log format (text, json)", text);
}

void Init(const Options& options) {
  Sink& sink = TheSink();
  std::lock_guard lock(sink.mutex);
  sink.options = options;
  sink.level = options.level;
  sink.Format(options.format);
}

void SetLevel(Level level) { TheSink().level = level; }

bool Enabled(Level level) { return level >= TheSink().level.load(std::memory_order_relaxed); }

void Trace(std::string_view event, Fields fields) { Write(Level::kTrace, event, fields); }
void Debug(std::string_view event, Fields fields) { Write(Level::kDebug, event, fields); }
void Info(std::string_view event, Fields fields) { Write(Level::kInfo, event, fields); }
void Warn(std::string_view event, Fields fields) { Write(Level::kWarn, event, fields); }
void Error(std::string_view event, Fields fields) { Write(Level::kError, event, fields); }
void Fatal(std::string_view event, Fields fields) { Write(Level::kFatal, event, fields); }

void IfError(std::string_view what, const Status& status) {
  if (!status.ok()) Warn(what, {{"error", status}});
}

std::string Render(Format format, Level level, std::string_view event, Fields fields) {
  Options options;
  options.format = format;
  std::string line = RenderLine(options, level, event, fields);
  return format == Format::kJson ? "{" + line : line;
}

}  // namespace crisp::log
