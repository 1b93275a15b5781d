#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/result.h"
#include "services/crispctl/convert/option.h"

namespace crisp::ctl::convert {

/// The crisp.yaml that comes to be: keys with their values, and where each came from.
class Draft {
 public:
  using Path = std::vector<std::string>;

  /// `value` as YAML. kInvalidArgument: crisp.yaml does not take it; then nothing has changed.
  Status Set(const Path& key, const std::string& value, const Option& from);
  /// One more entry of a list.
  Status Append(const Path& key, const std::string& entry, const Option& from);
  bool Has(const Path& key) const { return origins_.contains(key); }

  /// The file: the values that are not crisp's defaults, each below a comment that names its
  /// origin. Passes crisp's own validation, else kInvalidArgument.
  Result<std::string> Render(std::string_view head) const;

 private:
  std::string yaml_;
  std::map<Path, std::string> origins_;
  std::map<Path, std::vector<std::string>> lists_;
};

/// "rund.runtimes.*.path" with the name for the *.
Draft::Path KeyPath(std::string_view key, const std::string& name);

}  // namespace crisp::ctl::convert
