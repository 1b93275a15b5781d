#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>

#include "services/crispctl/commands/commands.h"

int main(int argc, char** argv) {
  crisp::ctl::Shared shared;
  CLI::App app("", "crispctl");
  crisp::ctl::AddCommandLine(app, shared);
  try {
    crisp::ctl::ParseCommandLine(app, shared, {argv + std::min(argc, 1), argv + argc});
  } catch (const CLI::ParseError& e) {
    // Help and version are "errors" with code 0.
    return app.exit(e, std::cout, std::cerr) == 0 ? crisp::ctl::kDone : crisp::ctl::kWrongUse;
  }
  return shared.exit_code;
}
