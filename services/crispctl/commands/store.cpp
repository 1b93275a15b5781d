#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <memory>

#include "services/crispctl/commands/commands.h"
#include "services/crispctl/programs.h"

namespace crisp::ctl {

void AddStoreCommands(CLI::App& app, Shared& shared) {
  struct Flags {
    bool quick = false;
    bool repair = false;
    bool wipe = false;
  };
  const auto flags = std::make_shared<Flags>();
  CLI::App* store = app.add_subcommand("store", "The image store on this node's disk");
  store->require_subcommand(1);
  CLI::App* check = store->add_subcommand(
      "check", "Compare the store with its catalogue (exit 1: damaged); no daemon is needed");
  auto* quick =
      check->add_flag("--quick", flags->quick, "Count and measure files, do not read them");
  auto* repair = check->add_flag(
      "--repair", flags->repair,
      "Forget what is damaged, delete what belongs to nothing; imaged must be stopped");
  auto* wipe = check->add_flag("--wipe", flags->wipe,
                               "Delete all images; imaged must be stopped and no container left");
  quick->excludes(repair)->excludes(wipe);
  repair->excludes(wipe);
  check->callback([&shared, flags] {
    std::string program = FindProgram("crisp-store-check", shared.program_dir);
    if (program.empty()) {
      shared.exit_code = Tell(NotFound("crisp-store-check is not installed here"));
      return;
    }
    std::string config = shared.config;
    std::vector<std::string> words = {program};
    if (!config.empty()) words.insert(words.end(), {"--config", config});
    if (flags->quick) words.emplace_back("--quick");
    if (flags->repair) words.emplace_back("--repair");
    if (flags->wipe) words.emplace_back("--wipe");
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    ::execv(program.c_str(), arguments.data());
    shared.exit_code = Tell(Status::Errno(errno, "run {}", program));
  });
}

}  // namespace crisp::ctl
