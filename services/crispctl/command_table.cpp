#include "services/crispctl/command_table.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string_view>

#include "libs/base/text.h"

namespace crisp::ctl {
namespace {

/// "TEXT:{table,json}" of a choice.
void AddChoices(Flag& flag) {
  const std::size_t open = flag.value.find(":{");
  if (open == std::string::npos) return;
  std::string_view rest = std::string_view(flag.value).substr(open + 2);
  rest = rest.substr(0, rest.find('}'));
  while (!rest.empty()) {
    const std::string_view one = rest.substr(0, rest.find(','));
    flag.choices.emplace_back(one);
    rest.remove_prefix(std::min(rest.size(), one.size() + 1));
  }
  flag.value = fmt::format("{}", fmt::join(flag.choices, "|"));
}

Flag FlagOf(const CLI::Option& option) {
  Flag flag;
  if (option.get_positional()) {
    flag.names = {option.get_single_name()};
  } else {
    for (const std::string& name : option.get_snames()) flag.names.push_back("-" + name);
    for (const std::string& name : option.get_lnames()) flag.names.push_back("--" + name);
  }
  flag.text = option.get_description();
  flag.required = option.get_required();
  flag.many = option.get_items_expected_max() > 1;
  flag.repeats = flag.many || option.get_allow_extra_args();
  if (option.get_type_size() > 0) {
    flag.value = option.get_type_name();
    AddChoices(flag);
    if (const std::size_t check = flag.value.find(':'); check != std::string::npos) {
      flag.value.resize(check);  // "INT:INT in [0 - 86400]"
    }
  }
  return flag;
}

void AddVerb(const CLI::App& app, const std::string& path, std::vector<Verb>& table) {
  Verb verb{.path = path, .text = app.get_description(), .footer = app.get_footer()};
  // Who has none of his own has that of crispctl.
  if (!table.empty() && verb.footer == table.front().footer) verb.footer.clear();
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_group().empty()) continue;
    (option->get_positional() ? verb.operands : verb.flags).push_back(FlagOf(*option));
  }
  std::vector<const CLI::App*> below;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (sub->get_group().empty()) continue;
    below.push_back(sub);
    verb.verbs.push_back(sub->get_name());
  }
  table.push_back(std::move(verb));
  for (const CLI::App* sub : below) {
    AddVerb(*sub, path.empty() ? sub->get_name() : path + " " + sub->get_name(), table);
  }
}

void AppendFlag(std::string& out, const Flag& flag) {
  std::vector<std::string> names;
  for (const std::string& name : flag.names)
    names.push_back(fmt::format("**{}**", EscapeMarkdown(name)));
  std::string head = fmt::format("{}", fmt::join(names, ", "));
  if (!flag.value.empty()) head += fmt::format(" *{}*", EscapeMarkdown(flag.value));
  out += fmt::format("{}\n:   {}\n\n", head, EscapeMarkdown(flag.text));
}

std::string OperandText(const Flag& operand) {
  const std::string name = fmt::format("*{}*{}", operand.names.front(), operand.many ? "..." : "");
  return operand.required ? " " + name : fmt::format(" \\[{}\\]", name);
}

void AppendVerb(std::string& out, const Verb& verb) {
  out += fmt::format("## {}\n\n", verb.path);
  out += fmt::format("**crispctl {}**{}", verb.path,
                     verb.flags.size() > 1 ? " \\[*OPTION*...\\]" : "");
  for (const Flag& operand : verb.operands) {
    // A command's own options are not ours.
    if (operand.names.front() == "COMMAND") out += " \\[**--**\\]";
    out += OperandText(operand);
  }
  out += fmt::format("\n\n{}.\n\n", EscapeMarkdown(verb.text));
  for (const Flag& operand : verb.operands) {
    out += fmt::format("*{}*\n:   {}\n\n", operand.names.front(), EscapeMarkdown(operand.text));
  }
  for (const Flag& flag : verb.flags) {
    if (flag.names.back() != "--help") AppendFlag(out, flag);
  }
  if (!verb.footer.empty()) out += EscapeMarkdown(verb.footer) + "\n\n";
}

}  // namespace

bool Flag::IsFile() const {
  const std::string& kind = value == "TEXT" || value.empty() ? names.front() : value;
  return kind == "FILE" || kind == "PATH" || kind == "SOCKET";
}

std::vector<Verb> CommandTable(const CLI::App& app) {
  std::vector<Verb> table;
  AddVerb(app, "", table);
  return table;
}

const Verb* FindVerb(const std::vector<Verb>& table, const std::string& path) {
  for (const Verb& verb : table) {
    if (verb.path == path) return &verb;
  }
  return nullptr;
}

std::string CommandReference(const std::vector<Verb>& table) {
  std::string out = "# OPTIONS\n\n";
  for (const Flag& flag : table.front().flags) AppendFlag(out, flag);
  out += "# COMMANDS\n\n";
  for (const Verb& verb : table) {
    // What only leads to others has nothing to say.
    if (!verb.path.empty() && verb.verbs.empty()) AppendVerb(out, verb);
  }
  return out;
}

}  // namespace crisp::ctl
