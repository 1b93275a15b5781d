#include "services/crispctl/convert/convert.h"

#include <fmt/format.h>

#include "libs/base/try.h"
#include "services/crispctl/convert/containerd.h"
#include "services/crispctl/convert/crio.h"

namespace crisp::ctl::convert {

Result<Conversion> Convert(const Source& source) {
  const std::vector<Rule>& rules =
      source.runtime == Runtime::kCrio ? CrioRules() : ContainerdRules();
  Conversion conversion;
  Draft draft;
  for (const Option& option : source.options.all()) {
    if (option.value.kind == config::TomlValue::Kind::kTable) continue;  // an empty one
    Finding finding = JudgeOption(rules, option, source.options, draft);
    // What crisp has by default, and nobody has asked for, is not worth a word.
    const bool silent = option.file.empty() && finding.outcome == Outcome::kNotNeeded;
    if (!silent) conversion.entries.push_back({option, std::move(finding)});
  }
  const std::string head = fmt::format(
      "# What {} was told in {},\n# by 'crispctl config convert'. What is not here is as crisp has "
      "it by default: crisp.yaml(5).\n",
      NameOf(source.runtime), fmt::join(source.files, ", "));
  conversion.yaml = CRISP_TRY(draft.Render(head).While("the settings that come of it do not hold"));
  return conversion;
}

}  // namespace crisp::ctl::convert
