#include <CLI/CLI.hpp>
#include <algorithm>

#include "libs/base/closest.h"
#include "libs/settings/settings.h"
#include "services/crispctl/command_table.h"
#include "services/crispctl/commands/commands.h"
#include "services/crispctl/output.h"

namespace crisp::ctl {
namespace {

void AddTextCommands(CLI::App& app) {
  const auto shell = std::make_shared<std::string>();
  CLI::App* completion = app.add_subcommand("completion", "The completion script of a shell");
  completion->add_option("SHELL", *shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  completion->callback([&app, shell] { Print(Completion(CommandTable(app), *shell)); });

  // For the manual pages: not for people.
  const auto what = std::make_shared<std::string>();
  CLI::App* reference = app.add_subcommand("reference", "Markdown of commands or settings");
  reference->group("");
  reference->add_option("WHAT", *what, "commands or settings")
      ->required()
      ->check(CLI::IsMember({"commands", "settings"}));
  reference->callback([&app, what] {
    Print(*what == "settings" ? settings::Reference() : CommandReference(CommandTable(app)));
  });
}

constexpr const char* kCommand = "COMMAND";

const CLI::App* VerbOf(const CLI::App& app, const std::string& name) {
  for (const CLI::App* verb : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (verb->check_name(name)) return verb;
  }
  return nullptr;
}

/// Of the verb, or else of crispctl itself. `name` has its dashes.
const CLI::Option* FindOption(const CLI::App& verb, const CLI::App& app, const std::string& name) {
  const CLI::Option* option = verb.get_option_no_throw(name);
  return option != nullptr ? option : app.get_option_no_throw(name);
}

bool WantsValue(const CLI::Option* option) {
  return option != nullptr && option->get_items_expected_min() > 0;
}

/// Whether the word after this option ("--name", "-it", "-eA=b") is its value.
bool TakesNextWord(const CLI::App& verb, const CLI::App& app, const std::string& word) {
  if (word.starts_with("--")) {
    return word.find('=') == word.npos && WantsValue(FindOption(verb, app, word));
  }
  for (std::size_t i = 1; i < word.size(); ++i) {
    const CLI::Option* option = FindOption(verb, app, {'-', word[i]});
    if (option == nullptr) return false;
    if (WantsValue(option)) return i + 1 == word.size();
  }
  return false;
}

/// Where the COMMAND of a verb that has one begins.
struct CommandPlace {
  std::size_t start;    // words.size(): there is none
  bool marked = false;  // a "--" is before it
};
CommandPlace FindCommand(const CLI::App& app, const std::vector<std::string>& words) {
  const CLI::App* verb = &app;
  bool marked = false;
  bool named = false;  // IMAGE or CONTAINER was there
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (!marked && word == "--") {
      marked = true;
    } else if (!marked && word.size() > 1 && word.front() == '-') {
      if (TakesNextWord(*verb, app, word)) ++i;
    } else if (verb == &app) {
      verb = VerbOf(app, word);
      if (verb == nullptr || verb->get_option_no_throw(kCommand) == nullptr) break;
    } else if (named) {
      return {i, marked};
    } else {
      named = true;
    }
  }
  return {words.size(), marked};
}

using Words = std::vector<std::string>;

Words NamesOfVerbs(const CLI::App& app) {
  Words names;
  for (const CLI::App* verb : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (!verb->get_group().empty()) names.push_back(verb->get_name());
  }
  return names;
}

Words NamesOfOptions(const CLI::App& verb, const CLI::App& app) {
  Words names;
  for (const CLI::App* one : {&verb, &app}) {
    for (const CLI::Option* option : one->get_options()) {
      for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    }
  }
  return names;
}

[[noreturn]] void Refuse(const std::string& sentence) {
  throw CLI::ParseError(sentence, CLI::ExitCodes::ExtrasError);
}

/// Throws for the first verb or long option that there is none of, with what was probably meant:
/// CLI11 only says that it is not expected. `words` end where a COMMAND begins.
void CheckWords(const CLI::App& app, Words::const_iterator word, Words::const_iterator end) {
  const CLI::App* verb = &app;
  for (; word != end && *word != "--"; ++word) {
    if (word->size() > 1 && word->front() == '-') {
      const std::string name = word->substr(0, word->find('='));
      const bool is_long = name.starts_with("--");
      if (is_long && FindOption(*verb, app, name) == nullptr) {
        Refuse(fmt::format("there is no option {}{}", name,
                           DidYouMean(name, NamesOfOptions(*verb, app))));
      }
      if (TakesNextWord(*verb, app, *word) && std::next(word) != end) ++word;
      continue;
    }
    const Words known = NamesOfVerbs(*verb);
    if (known.empty()) continue;  // an operand
    const CLI::App* below = VerbOf(*verb, *word);
    if (below == nullptr) {
      const std::string above = verb == &app ? "" : verb->get_name() + " ";
      Refuse(fmt::format("there is no command '{}{}'{}", above, *word, DidYouMean(*word, known)));
    }
    verb = below;
  }
}

}  // namespace

CLI::Option* AddCommandOperand(CLI::App& verb, const std::string& text) {
  return verb.add_option_function<Words>(
      kCommand, [](const Words& /*Shared has them*/) {}, text);
}

void ParseCommandLine(CLI::App& app, Shared& shared, std::vector<std::string> words) {
  const CommandPlace place = FindCommand(app, words);
  const auto start = words.begin() + static_cast<std::ptrdiff_t>(place.start);
  shared.command.assign(start, words.end());
  CheckWords(app, words.begin(), start);
  if (start != words.end() && !place.marked) words.insert(start, "--");
  std::reverse(words.begin(), words.end());
  app.parse(std::move(words));
}

void AddCommandLine(CLI::App& app, Shared& shared) {
  app.description("crispctl: look at and work with crisp on this node");
  app.set_version_flag("--version", "crispctl " CRISP_VERSION, "Show the version and exit");
  app.add_option("-s,--socket", shared.socket,
                 "crisp's CRI socket, or unix:// and its path [CRISP_ENDPOINT]; else the settings'")
      ->type_name("SOCKET");
  app.add_option("-c,--config", shared.config, "Settings file [/etc/crisp/crisp.yaml]")
      ->type_name("FILE");
  app.add_option("-o,--output", shared.output, "table or json")
      ->check(CLI::IsMember({"table", "json"}));
  app.require_subcommand(1);
  app.fallthrough();
  app.footer(
      "Exit codes: 0 done, 1 it failed, 2 wrong use, 3 crisp was not reached; run and exec end as\n"
      "the command does, or with 125.");
  AddNodeCommands(app, shared);
  AddWhyCommand(app, shared);
  AddConfigCommands(app, shared);
  AddImageCommands(app, shared);
  AddArchiveCommands(app, shared);
  AddRunCommand(app, shared);
  AddListCommands(app, shared);
  AddProcessCommands(app, shared);
  AddObserveCommands(app, shared);
  AddTopCommand(app, shared);
  AddStoreCommands(app, shared);
  AddNetworkCommands(app, shared);
  AddDebugCommands(app, shared);
  AddStreamCommands(app, shared);
  AddEndCommands(app, shared);
  AddTextCommands(app);
}

}  // namespace crisp::ctl
