#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "services/crispctl/convert/draft.h"
#include "services/crispctl/convert/option.h"
#include "services/crispctl/convert/values.h"

namespace crisp::ctl::convert {

enum class Outcome { kUnknown, kNotSupported, kChanged, kTaken, kNotNeeded };

/// What became of one option.
struct Finding {
  Outcome outcome;
  std::string key;   // of crisp.yaml, where its value went; empty: nowhere
  std::string text;  // how its meaning changes, why it is not needed, what to do instead
};

/// What a rule sees.
struct Case {
  const Option& option;
  const std::string& name;  // what stands at the place of its pattern's *
  const Options& all;
  Draft& draft;

  /// Puts `yaml` at `key` (with the name for a *), else says why crisp.yaml does not take it.
  Finding Put(std::string_view key, const Result<std::string>& yaml,
              std::string changed = {}) const;
  /// One more entry of the list at `key`.
  Finding Append(std::string_view key, const std::string& entry, std::string changed = {}) const;
};

using Judge = std::function<Finding(const Case&)>;

/// One line of a table: an option (a pattern, see Matches) and what becomes of it.
struct Rule {
  std::string_view option;
  Judge judge;
};

// What most lines say.

/// The value goes to `key`. An empty text leaves crisp's default.
Judge Take(std::string_view key, ToYaml value);
/// The same, with a word on what is different.
Judge Change(std::string_view key, ToYaml value, std::string_view how);
Judge NotNeeded(std::string_view why);
/// Unless it is turned off: then nothing is missing.
Judge NotSupported(std::string_view instead);

// The same for functions that judge themselves.
Finding NotNeededHere(std::string_view why);
Finding NotSupportedHere(std::string_view instead);

/// A default of the other runtime that crisp does not share, so that it must be written: it is
/// judged as if it stood in the file.
struct Default {
  std::string_view option;
  config::TomlValue value;
};

/// The first rule that matches; kUnknown: none does.
Finding JudgeOption(const std::vector<Rule>& rules, const Option& option, const Options& all,
                    Draft& draft);

}  // namespace crisp::ctl::convert
