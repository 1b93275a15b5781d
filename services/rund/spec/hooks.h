#pragma once

#include <array>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/guarded.h"
#include "libs/base/result.h"
#include "services/rund/spec/spec_dirs.h"

namespace crisp::rund {

/// Of the OCI runtime's hooks.
inline constexpr std::array<std::string_view, 6> kHookStages = {
    "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"};

/// A regular expression, compiled once.
class Pattern {
 public:
  /// kInvalidArgument: too long, or none.
  static Result<Pattern> Compile(const std::string& text);
  /// Of a long text only the beginning counts: the matcher's stack grows with it, and pods write
  /// it.
  bool Matches(std::string_view text) const;

 private:
  struct Compiled;
  std::shared_ptr<const Compiled> compiled_;
};

/// What conditions of hooks are about.
struct HookSubject {
  const std::map<std::string, std::string>& annotations;
  std::string command;  // the path of the process: args[0]
  bool bind_mounts = false;
};

/// A hook file, version 1.0.0: what is run, when, and in which stages of the container's life.
struct HookFile {
  nlohmann::json hook;  // the OCI hook: path, args, env, timeout
  std::vector<std::string> stages;
  bool always = false;
  bool has_always = false;
  bool has_bind_mounts = false;
  bool bind_mounts = false;
  std::vector<std::pair<Pattern, Pattern>> annotations;  // of key and value
  std::vector<Pattern> commands;

  /// kInvalidArgument says what is wrong with it.
  static Result<HookFile> Parse(std::string_view text);
  /// All conditions hold, and there is at least one. Of `commands` one is enough.
  bool Matches(const HookSubject& subject) const;
};

/// Directories of hook files. A file takes the place of one with the same name in an earlier
/// directory. What changes there counts for the next container. Any thread.
class HookDirs {
 public:
  explicit HookDirs(std::vector<std::string> directories) : directories_(std::move(directories)) {}

  /// Adds the hooks that match to spec["hooks"], in the order of the files' names.
  /// kInvalidArgument names the file that cannot be read: no container starts without a hook that
  /// may have been meant for it.
  Status Apply(const HookSubject& subject, nlohmann::json& spec) const;

 private:
  using Parsed = std::map<std::string, HookFile>;  // by file name
  struct Cache {
    std::vector<SpecFile> files;
    std::shared_ptr<const Parsed> parsed;
  };
  Result<std::shared_ptr<const Parsed>> Current() const;

  std::vector<std::string> directories_;
  mutable Guarded<Cache> cache_;
};

}  // namespace crisp::rund
