#pragma once

#include <vector>

#include "services/crispctl/convert/rule.h"

namespace crisp::ctl::convert {

const std::vector<Rule>& CrioRules();
/// What CRI-O does where its files are silent, and crisp would do otherwise.
const std::vector<Default>& CrioDefaults();

}  // namespace crisp::ctl::convert
