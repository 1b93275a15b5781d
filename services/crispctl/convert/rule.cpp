#include "services/crispctl/convert/rule.h"

#include <fmt/format.h>

namespace crisp::ctl::convert {
namespace {

std::string NameOf(const Draft::Path& key) { return fmt::format("{}", fmt::join(key, ".")); }

Finding Outcomes(const Status& done, const Draft::Path& key, std::string changed) {
  if (!done.ok()) {
    return {Outcome::kNotSupported, "", fmt::format("crisp does not take it: {}", done.message())};
  }
  const Outcome outcome = changed.empty() ? Outcome::kTaken : Outcome::kChanged;
  return {outcome, NameOf(key), std::move(changed)};
}

bool IsEmptyText(const config::TomlValue& value) {
  return value.kind == config::TomlValue::Kind::kString && value.text.empty();
}

}  // namespace

Finding Case::Put(std::string_view key, const Result<std::string>& yaml,
                  std::string changed) const {
  const Draft::Path path = KeyPath(key, name);
  const Status done = yaml.ok() ? draft.Set(path, *yaml, option) : yaml.status();
  return Outcomes(done, path, std::move(changed));
}

Finding Case::Append(std::string_view key, const std::string& entry, std::string changed) const {
  const Draft::Path path = KeyPath(key, name);
  return Outcomes(draft.Append(path, entry, option), path, std::move(changed));
}

Finding NotNeededHere(std::string_view why) { return {Outcome::kNotNeeded, "", std::string(why)}; }

Finding NotSupportedHere(std::string_view instead) {
  return {Outcome::kNotSupported, "", std::string(instead)};
}

Judge Take(std::string_view key, ToYaml value) { return Change(key, value, ""); }

Judge Change(std::string_view key, ToYaml value, std::string_view how) {
  return [key, value, how](const Case& one) {
    if (IsEmptyText(one.option.value)) return NotNeededHere("is empty: crisp's own default counts");
    return one.Put(key, value(one.option.value), std::string(how));
  };
}

Judge NotNeeded(std::string_view why) {
  return [why](const Case&) { return NotNeededHere(why); };
}

Judge NotSupported(std::string_view instead) {
  return [instead](const Case& one) {
    if (IsOff(one.option.value)) return NotNeededHere("is off, as it is in crisp");
    return NotSupportedHere(instead);
  };
}

Finding JudgeOption(const std::vector<Rule>& rules, const Option& option, const Options& all,
                    Draft& draft) {
  for (const Rule& rule : rules) {
    std::string name;
    if (Matches(rule.option, option.path, &name)) return rule.judge({option, name, all, draft});
  }
  return {Outcome::kUnknown, "", ""};
}

}  // namespace crisp::ctl::convert
