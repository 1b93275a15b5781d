#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>

#include "services/crispctl/convert/convert.h"

namespace crisp::ctl::convert {
namespace {

struct Heading {
  Outcome outcome;
  std::string_view word;
  std::string_view text;
};

constexpr std::array<Heading, 5> kHeadings = {{
    {Outcome::kUnknown, "unknown", "crispctl does not know it: look whether it is spelled right"},
    {Outcome::kNotSupported, "not supported", "what to do instead"},
    {Outcome::kChanged, "changed in meaning", "how"},
    {Outcome::kTaken, "taken", "as which key"},
    {Outcome::kNotNeeded, "no longer needed", "why"},
}};

std::vector<const Entry*> Of(Outcome outcome, const std::vector<Entry>& entries) {
  std::vector<const Entry*> some;
  for (const Entry& entry : entries) {
    if (entry.finding.outcome == outcome) some.push_back(&entry);
  }
  return some;
}

std::string WhereOf(const Source& source, const Option& option) {
  if (option.file.empty()) return fmt::format("default of {}", NameOf(source.runtime));
  std::string where = option.Where();
  if (!option.over.empty()) where += fmt::format(" (over {})", fmt::join(option.over, ", "));
  return where;
}

void AppendIndented(std::string& out, std::string_view text) {
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    out += fmt::format("      {}\n", line);
    text.remove_prefix(std::min(text.size(), line.size() + 1));
  }
}

}  // namespace

std::string Report(const Source& source, const std::vector<Entry>& entries) {
  std::string out = fmt::format("{} options of {} in {}\n", entries.size(), NameOf(source.runtime),
                                fmt::join(source.files, ", "));
  for (const Heading& heading : kHeadings) {
    const std::vector<const Entry*> some = Of(heading.outcome, entries);
    if (some.empty()) continue;
    out += fmt::format("\n{} ({}): {}\n", heading.word, some.size(), heading.text);
    for (const Entry* entry : some) {
      out += fmt::format("  {}\n    {}", WhereOf(source, entry->option), entry->option.Name());
      if (!entry->finding.key.empty()) out += fmt::format(" -> {}", entry->finding.key);
      out += '\n';
      AppendIndented(out, entry->finding.text);
    }
  }
  return out;
}

std::string ReportJson(const Source& source, const std::vector<Entry>& entries) {
  nlohmann::json options = nlohmann::json::array();
  for (const Heading& heading : kHeadings) {
    for (const Entry* entry : Of(heading.outcome, entries)) {
      nlohmann::json one = {{"outcome", heading.word}, {"option", entry->option.Name()}};
      if (!entry->option.file.empty()) {
        one["file"] = entry->option.file;
        one["line"] = entry->option.value.line;
      }
      if (!entry->finding.key.empty()) one["key"] = entry->finding.key;
      if (!entry->finding.text.empty()) one["text"] = entry->finding.text;
      options.push_back(std::move(one));
    }
  }
  return nlohmann::json{
      {"runtime", NameOf(source.runtime)}, {"files", source.files}, {"options", std::move(options)}}
      .dump(2, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace crisp::ctl::convert
