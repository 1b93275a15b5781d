#include <CLI/CLI.hpp>
#include <chrono>
#include <ctime>
#include <filesystem>

#include "libs/base/try.h"
#include "libs/os/files.h"
#include "libs/settings/settings.h"
#include "services/crispctl/commands/commands.h"
#include "services/crispctl/debug/collect.h"
#include "services/crispctl/output.h"

namespace crisp::ctl {
namespace {

/// "crisp-debug-20261126-014500", in UTC.
std::string BundleName() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  std::array<char, 32> text{};
  const std::size_t size = std::strftime(text.data(), text.size(), "%Y%m%d-%H%M%S", &parts);
  return fmt::format("crisp-debug-{}", std::string_view(text.data(), size));
}

Result<int> WriteBundle(const Shared& shared, const std::string& out) {
  const std::string name = BundleName();
  const std::string path = out.empty() ? name + ".tar.gz" : out;
  if (os::Exists(path)) return AlreadyExists("{} is there already", path);
  debug::Scope scope;
  scope.config = SettingsPath(shared).value_or(std::string(settings::kDefaultPath));
  // With settings that are wrong, the sockets are looked for at their usual place.
  const settings::Settings usual = settings::Settings().Resolved();
  scope.endpoint = FindEndpoint(shared.socket, shared.config)
                       .value_or(Endpoint{usual.crid.socket, usual.run_root});
  const Findings found = LookAround(scope.endpoint);
  debug::Bundle bundle;
  debug::CollectCrisp(scope, found, bundle);
  debug::CollectNode(scope, found, bundle);
  CRISP_TRY(bundle.Write(path, name));
  Print(
      fmt::format("{} is written. Secrets that crispctl knows of are taken out: look through it "
                  "all the same before you hand it on.",
                  path));
  if (bundle.failures() > 0) {
    Print(fmt::format("{} parts could not be had: its index.txt says why.", bundle.failures()));
  }
  return kDone;
}

}  // namespace

void AddDebugCommands(CLI::App& app, Shared& shared) {
  CLI::App* group = app.add_subcommand("debug", "For those who look for the cause of a problem");
  group->require_subcommand(1);
  const auto out = std::make_shared<std::string>();
  CLI::App* bundle = group->add_subcommand(
      "bundle", "One archive for a bug report: what crisp and the node are like, without secrets");
  bundle->add_option("-o,--out", *out, "The archive; without it crisp-debug-<time>.tar.gz here")
      ->type_name("FILE");
  bundle->callback([&shared, out] {
    const Result<int> done = WriteBundle(shared, *out);
    shared.exit_code = done.ok() ? *done : Tell(done.status());
  });
}

}  // namespace crisp::ctl
