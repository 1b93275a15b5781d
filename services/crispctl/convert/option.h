#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "libs/config/toml.h"

namespace crisp::ctl::convert {

/// One option of the other runtime's configuration, as it is in force there.
struct Option {
  std::vector<std::string> path;  // {"crio", "runtime", "conmon"}: what rules and Find go by
  std::vector<std::string> written = {};  // where the file has it otherwise; else empty
  config::TomlValue value;
  std::string file = {};               // empty: set nowhere; the value is the runtime's default
  std::vector<std::string> over = {};  // "file:line" of those that it came over

  /// As TOML has it: crio.runtime.runtimes."a.b".runtime_path
  std::string Name() const;
  /// "/etc/crio/crio.conf:12", or "not set".
  std::string Where() const;
};

/// Matches a pattern like "crio/runtime/runtimes/*/runtime_path": * is any one part of the path, **
/// at the end any number of them. `name` becomes what the first * stands for.
bool Matches(std::string_view pattern, const std::vector<std::string>& path, std::string* name);

/// The options of all files together.
class Options {
 public:
  /// All values of a document, over those that are there already.
  void Add(const config::TomlValue& document, const std::string& file);
  /// What nobody has set. A * in the path is each name that other options have at its place.
  void AddDefault(std::string_view path, const config::TomlValue& value);
  /// Gives each option the path that `rename` says; the files' own stay its name for people. Of
  /// two with the same one the later counts.
  void Rename(std::vector<std::string> (*rename)(const std::vector<std::string>& path));
  /// Forgets what matches.
  void Erase(std::string_view pattern);
  /// The option of "crio/api/listen"; null: there is none.
  const Option* Find(std::string_view path) const;
  /// Its text; `fallback` when it is not there, empty or no text.
  std::string Text(std::string_view path, const std::string& fallback = {}) const;
  /// False when it is not there.
  bool Bool(std::string_view path) const;
  /// What stands at the place of the pattern's *, each once, in the order of the files.
  std::vector<std::string> Names(std::string_view pattern) const;

  const std::vector<Option>& all() const { return options_; }

 private:
  void AddBelow(std::vector<std::string>& path, const config::TomlValue& value,
                const std::string& file);
  void Set(Option option);

  std::vector<Option> options_;
};

}  // namespace crisp::ctl::convert
