#pragma once

#include <vector>

#include "services/crispctl/convert/rule.h"

namespace crisp::ctl::convert {

/// "cri" at the start of a pattern stands for the CRI plugin, whose options version 2 has in one
/// table and versions 3 and 4 in three (CanonicalPath).
const std::vector<Rule>& ContainerdRules();
/// What containerd does where its files are silent, and crisp would do otherwise. `version` of the
/// configuration: what older ones are written for has fewer defaults.
const std::vector<Default>& ContainerdDefaults(std::int64_t version);

/// {"plugins", "io.containerd.cri.v1.runtime", "cni", "bin_dirs"} is {"cri", "cni", "bin_dirs"}.
std::vector<std::string> CanonicalPath(const std::vector<std::string>& path);

}  // namespace crisp::ctl::convert
