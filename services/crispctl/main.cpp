#include <CLI/CLI.hpp>
#include <iostream>

#include "services/crispctl/commands/commands.h"

int main(int argc, char** argv) {
  crisp::ctl::Shared shared;
  CLI::App app("crispctl: look at and work with crisp on this node");
  app.set_version_flag("--version", "crispctl " CRISP_VERSION);
  app.add_option(
      "-s,--socket", shared.socket,
      "crisp's CRI socket, or unix:// and its path [CRISP_ENDPOINT]; else the settings'");
  app.add_option("-c,--config", shared.config, "Settings file [/etc/crisp/crisp.yaml]");
  app.add_option("-o,--output", shared.output, "table or json")
      ->check(CLI::IsMember({"table", "json"}));
  app.require_subcommand(1);
  app.fallthrough();
  app.footer(
      "Exit codes: 0 done, 1 it failed, 2 wrong use, 3 crisp was not reached; run and exec end as\n"
      "the command does, or with 125.");
  crisp::ctl::AddNodeCommands(app, shared);
  crisp::ctl::AddImageCommands(app, shared);
  crisp::ctl::AddArchiveCommands(app, shared);
  crisp::ctl::AddRunCommand(app, shared);
  crisp::ctl::AddListCommands(app, shared);
  crisp::ctl::AddProcessCommands(app, shared);
  crisp::ctl::AddObserveCommands(app, shared);
  crisp::ctl::AddStoreCommands(app, shared);
  crisp::ctl::AddStreamCommands(app, shared);
  crisp::ctl::AddEndCommands(app, shared);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    // Help and version are "errors" with code 0.
    return app.exit(e, std::cout, std::cerr) == 0 ? crisp::ctl::kDone : crisp::ctl::kWrongUse;
  }
  return shared.exit_code;
}
