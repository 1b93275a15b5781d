#pragma once

#include <string>
#include <vector>

#include "libs/base/result.h"
#include "services/crispctl/convert/rule.h"
#include "services/crispctl/convert/source.h"

namespace crisp::ctl::convert {

/// One line of the report.
struct Entry {
  Option option;
  Finding finding;
};

struct Conversion {
  std::string yaml;  // a crisp.yaml that passes crisp's own validation
  std::vector<Entry> entries;
};

/// What crisp.yaml says of a configuration, and what became of each of its options.
Result<Conversion> Convert(const Source& source);

/// For people: what needs them first. No value is in it, as some are secrets.
std::string Report(const Source& source, const std::vector<Entry>& entries);
/// The same as JSON.
std::string ReportJson(const Source& source, const std::vector<Entry>& entries);

}  // namespace crisp::ctl::convert
