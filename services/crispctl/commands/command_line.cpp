#include <CLI/CLI.hpp>

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

}  // namespace

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
