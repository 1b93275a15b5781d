#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace crisp::ctl {

/// What the command line is made of, as the completions and the manual page tell it.
struct Flag {
  std::vector<std::string> names;    // "-q", "--quiet"; of an operand its one name, "IMAGE"
  std::string value;                 // "TEXT"; empty when the flag takes none
  std::vector<std::string> choices;  // where the value is one of these
  std::string text;
  bool required = false;
  bool many = false;
  bool repeats = false;  // may be given again

  /// The value or the operand is a file.
  bool IsFile() const;
};

struct Verb {
  std::string path;  // "image import"; empty: crispctl itself
  std::string text;
  std::string footer;
  std::vector<Flag> flags;
  std::vector<Flag> operands;
  std::vector<std::string> verbs;  // the next words of the path
};

/// crispctl itself, then each verb after the one that it is below. Hidden ones are left out.
std::vector<Verb> CommandTable(const CLI::App& app);
const Verb* FindVerb(const std::vector<Verb>& table, const std::string& path);

/// The verbs and their options as Markdown, for the manual page crispctl(1).
std::string CommandReference(const std::vector<Verb>& table);

/// A script for the shell (bash, zsh, fish) that completes verbs, options, choices and files.
std::string Completion(const std::vector<Verb>& table, const std::string& shell);

}  // namespace crisp::ctl
