#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "services/crispctl/command_table.h"

// The three scripts do the same: they walk over the words before the cursor, which leads to the
// verb's path, and offer what the table has for it. crispctl's own options are good everywhere, and
// after "--" the words are a command's own.

namespace crisp::ctl {
namespace {

/// In single quotes of any of the three shells.
std::string Quoted(std::string_view text, bool fish = false) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'') {
      out += fish ? "\\'" : "'\\''";
    } else {
      if (fish && c == '\\') out += '\\';
      out += c;
    }
  }
  return out + "'";
}

/// The names of flags of any verb whose next word is a value.
std::vector<std::string> NamesWithValue(const std::vector<Verb>& table, bool files_only = false) {
  std::vector<std::string> names;
  for (const Verb& verb : table) {
    for (const Flag& flag : verb.flags) {
      if (flag.value.empty() || (files_only && !flag.IsFile())) continue;
      for (const std::string& name : flag.names) {
        // The same name may stand for another thing elsewhere: -t is a time and a terminal.
        names.push_back(Quoted(fmt::format("{} {}", verb.path, name)));
        if (!verb.path.empty()) continue;
        for (const Verb& other : table) {
          if (!other.path.empty()) names.push_back(Quoted(fmt::format("{} {}", other.path, name)));
        }
      }
    }
  }
  return names;
}

bool WantsFile(const Verb& verb) {
  for (const Flag& operand : verb.operands) {
    if (operand.IsFile()) return true;
  }
  return false;
}

/// A verb may give a name of crispctl's own another meaning.
bool HasFlag(const Verb& verb, const std::string& name) {
  return std::any_of(verb.flags.begin(), verb.flags.end(), [&name](const Flag& flag) {
    return std::find(flag.names.begin(), flag.names.end(), name) != flag.names.end();
  });
}

/// Calls `add(path, "--output", "table json")` for each flag with choices, at each place where it
/// is good.
template <typename Add>
void EachChoice(const std::vector<Verb>& table, const Add& add) {
  for (const Verb& verb : table) {
    for (const Flag& flag : verb.flags) {
      if (flag.choices.empty()) continue;
      std::vector<std::string> places;
      for (const Verb& other : table) {
        if (!verb.path.empty() && other.path != verb.path) continue;
        for (const std::string& name : flag.names) {
          if (verb.path == other.path || !HasFlag(other, name))
            places.push_back(other.path + " " + name);
        }
      }
      add(places, flag.choices);
    }
  }
}

std::vector<std::string> AllQuoted(const std::vector<std::string>& words, bool fish = false) {
  std::vector<std::string> quoted;
  for (const std::string& word : words) quoted.push_back(Quoted(word, fish));
  return quoted;
}

/// The verb's own flags and those of crispctl.
std::vector<Flag> FlagsAt(const std::vector<Verb>& table, const Verb& verb) {
  std::vector<Flag> flags = verb.flags;
  if (verb.path.empty()) return flags;
  for (const Flag& flag : table.front().flags) {
    if (flag.names.back() == "--help" || flag.names.back() == "--version") continue;
    Flag left = flag;
    std::erase_if(left.names, [&verb](const std::string& name) { return HasFlag(verb, name); });
    if (!left.names.empty()) flags.push_back(std::move(left));
  }
  return flags;
}

std::string Bash(const std::vector<Verb>& table) {
  std::string out =
      "# bash completion of crispctl, written by 'crispctl completion bash'.\n"
      "_crispctl() {\n"
      "  local current=${COMP_WORDS[COMP_CWORD]} previous='' path='' word index\n"
      "  local words='' files=''\n"
      "  for ((index = 1; index < COMP_CWORD; ++index)); do\n"
      "    word=${COMP_WORDS[index]}\n"
      "    [[ $word != -- ]] || return 0\n"
      "    if [[ -n $previous ]]; then\n"
      "      previous=''\n"
      "      continue\n"
      "    fi\n"
      "    case \"$path $word\" in\n";
  out += fmt::format("      {}) previous=$word ;;\n", fmt::join(NamesWithValue(table), "|"));
  for (const Verb& verb : table) {
    for (const std::string& next : verb.verbs) {
      const std::string path = verb.path.empty() ? next : verb.path + " " + next;
      out += fmt::format("      {}) path={} ;;\n", Quoted(verb.path + " " + next), Quoted(path));
    }
  }
  out +=
      "    esac\n"
      "  done\n"
      "  COMPREPLY=()\n"
      "  if [[ -n $previous ]]; then\n"
      "    case \"$path $previous\" in\n";
  EachChoice(table, [&out](const auto& places, const auto& choices) {
    out += fmt::format("      {}) words='{}' ;;\n", fmt::join(AllQuoted(places), "|"),
                       fmt::join(choices, " "));
  });
  out += fmt::format("      {}) files=yes ;;\n", fmt::join(NamesWithValue(table, true), "|"));
  out +=
      "    esac\n"
      "  elif [[ $current == -* ]]; then\n"
      "    case \"$path\" in\n";
  for (const Verb& verb : table) {
    std::vector<std::string> names;
    for (const Flag& flag : FlagsAt(table, verb)) {
      names.insert(names.end(), flag.names.begin(), flag.names.end());
    }
    out += fmt::format("      {}) words='{}' ;;\n", Quoted(verb.path), fmt::join(names, " "));
  }
  out +=
      "    esac\n"
      "  else\n"
      "    case \"$path\" in\n";
  for (const Verb& verb : table) {
    if (!verb.verbs.empty()) {
      out +=
          fmt::format("      {}) words='{}' ;;\n", Quoted(verb.path), fmt::join(verb.verbs, " "));
    } else if (WantsFile(verb)) {
      out += fmt::format("      {}) files=yes ;;\n", Quoted(verb.path));
    }
  }
  out +=
      "    esac\n"
      "  fi\n"
      "  if [[ -n $files ]]; then\n"
      "    compopt -o filenames 2>/dev/null\n"
      "    mapfile -t COMPREPLY < <(compgen -f -- \"$current\")\n"
      "  fi\n"
      "  [[ -z $words ]] || mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\")\n"
      "}\n"
      "complete -F _crispctl crispctl\n";
  return out;
}

/// "name:text" as _describe takes it.
std::string Described(std::string_view name, std::string_view text) {
  std::string escaped;
  for (const char c : name) {
    if (c == ':') escaped += '\\';
    escaped += c;
  }
  return Quoted(fmt::format("{}:{}", escaped, text));
}

std::string Zsh(const std::vector<Verb>& table) {
  std::string out =
      "#compdef crispctl\n"
      "# zsh completion of crispctl, written by 'crispctl completion zsh'.\n"
      "_crispctl() {\n"
      "  local previous='' verb_path='' word\n"
      "  local -a found\n"
      "  integer index\n"
      "  for ((index = 2; index < CURRENT; ++index)); do\n"
      "    word=${words[index]}\n"
      "    [[ $word != -- ]] || { _normal; return }\n"
      "    if [[ -n $previous ]]; then\n"
      "      previous=''\n"
      "      continue\n"
      "    fi\n"
      "    case \"$verb_path $word\" in\n";
  out += fmt::format("      {}) previous=$word ;;\n", fmt::join(NamesWithValue(table), "|"));
  for (const Verb& verb : table) {
    for (const std::string& next : verb.verbs) {
      const std::string path = verb.path.empty() ? next : verb.path + " " + next;
      out +=
          fmt::format("      {}) verb_path={} ;;\n", Quoted(verb.path + " " + next), Quoted(path));
    }
  }
  out +=
      "    esac\n"
      "  done\n"
      "  if [[ -n $previous ]]; then\n"
      "    case \"$verb_path $previous\" in\n";
  EachChoice(table, [&out](const auto& places, const auto& choices) {
    out += fmt::format("      {}) found=({}) ;;\n", fmt::join(AllQuoted(places), "|"),
                       fmt::join(choices, " "));
  });
  out += fmt::format("      {}) _files; return ;;\n", fmt::join(NamesWithValue(table, true), "|"));
  out +=
      "    esac\n"
      "    (( ! $#found )) || _describe value found\n"
      "    return\n"
      "  fi\n"
      "  if [[ ${words[CURRENT]} == -* ]]; then\n"
      "    case \"$verb_path\" in\n";
  for (const Verb& verb : table) {
    std::vector<std::string> names;
    for (const Flag& flag : FlagsAt(table, verb)) {
      for (const std::string& name : flag.names) names.push_back(Described(name, flag.text));
    }
    out += fmt::format("      {}) found=(\n        {}\n      ) ;;\n", Quoted(verb.path),
                       fmt::join(names, "\n        "));
  }
  out +=
      "    esac\n"
      "    _describe -o option found\n"
      "    return\n"
      "  fi\n"
      "  case \"$verb_path\" in\n";
  for (const Verb& verb : table) {
    if (!verb.verbs.empty()) {
      std::vector<std::string> names;
      for (const std::string& next : verb.verbs) {
        const Verb* below = FindVerb(table, verb.path.empty() ? next : verb.path + " " + next);
        names.push_back(Described(next, below->text));
      }
      out += fmt::format("    {}) found=(\n      {}\n    ) ;;\n", Quoted(verb.path),
                         fmt::join(names, "\n      "));
    } else if (WantsFile(verb)) {
      out += fmt::format("    {}) _files; return ;;\n", Quoted(verb.path));
    }
  }
  out +=
      "  esac\n"
      "  (( ! $#found )) || _describe command found\n"
      "}\n"
      "if [[ ${zsh_eval_context[-1]} == loadautofunc ]]; then\n"
      "  _crispctl \"$@\"\n"
      "else\n"
      "  (( ! $+functions[compdef] )) || compdef _crispctl crispctl\n"
      "fi\n";
  return out;
}

std::string Fish(const std::vector<Verb>& table) {
  const auto quoted = [](const std::string& text) { return Quoted(text, true); };
  std::string out =
      "# fish completion of crispctl, written by 'crispctl completion fish'.\n"
      "# The verb's path, with the option behind it whose value comes next.\n"
      "function __crispctl_place\n"
      "    set -l words (commandline -opc)\n"
      "    set -l path ''\n"
      "    set -l previous ''\n"
      "    for word in $words[2..-1]\n"
      "        if test \"$word\" = --\n"
      "            echo --\n"
      "            return\n"
      "        end\n"
      "        if test -n \"$previous\"\n"
      "            set previous ''\n"
      "            continue\n"
      "        end\n"
      "        switch \"$path $word\"\n";
  out += fmt::format("            case {}\n                set previous $word\n",
                     fmt::join(NamesWithValue(table), " "));
  for (const Verb& verb : table) {
    for (const std::string& next : verb.verbs) {
      const std::string path = verb.path.empty() ? next : verb.path + " " + next;
      out += fmt::format("            case {}\n                set path {}\n",
                         quoted(verb.path + " " + next), quoted(path));
    }
  }
  out +=
      "        end\n"
      "    end\n"
      "    echo \"$path $previous\"\n"
      "end\n"
      "function __crispctl_at\n"
      "    contains -- (__crispctl_place) $argv\n"
      "end\n"
      "complete -c crispctl -f\n";
  for (const Verb& verb : table) {
    const std::string here =
        fmt::format("-n {}", Quoted("__crispctl_at " + quoted(verb.path + " "), true));
    for (const std::string& next : verb.verbs) {
      const Verb* below = FindVerb(table, verb.path.empty() ? next : verb.path + " " + next);
      out += fmt::format("complete -c crispctl {} -a {} -d {}\n", here, next, quoted(below->text));
    }
    if (WantsFile(verb)) out += fmt::format("complete -c crispctl {} -F\n", here);
    for (const Flag& flag : FlagsAt(table, verb)) {
      std::string names;
      for (const std::string& name : flag.names) {
        names += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
      }
      std::string value;
      if (!flag.choices.empty()) {
        value = fmt::format(" -x -a {}", quoted(fmt::format("{}", fmt::join(flag.choices, " "))));
      } else if (!flag.value.empty()) {
        value = flag.IsFile() ? " -r -F" : " -x";
      }
      // Also where the flag itself is the word before, or its value is not offered.
      std::vector<std::string> places = {quoted(verb.path + " ")};
      if (!flag.value.empty()) {
        for (const std::string& name : flag.names) places.push_back(quoted(verb.path + " " + name));
      }
      out += fmt::format("complete -c crispctl -n {}{}{} -d {}\n",
                         quoted(fmt::format("__crispctl_at {}", fmt::join(places, " "))), names,
                         value, quoted(flag.text));
    }
  }
  return out;
}

}  // namespace

std::string Completion(const std::vector<Verb>& table, const std::string& shell) {
  if (shell == "bash") return Bash(table);
  return shell == "zsh" ? Zsh(table) : Fish(table);
}

}  // namespace crisp::ctl
