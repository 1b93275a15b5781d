#include <CLI/CLI.hpp>
#include <memory>

#include "libs/base/try.h"
#include "libs/json/json.h"
#include "libs/settings/settings.h"
#include "services/crispctl/commands/commands.h"
#include "services/crispctl/output.h"
#include "services/crispctl/why/report.h"

namespace crisp::ctl {
namespace {

constexpr std::chrono::seconds kSlow{1};
constexpr std::size_t kFailures = 5;
/// For the front, which may be what hangs.
constexpr std::chrono::seconds kPatience{3};

Result<int> ShowWhy(const Shared& shared, const std::string& what) {
  const Endpoint endpoint = CRISP_TRY(FindEndpoint(shared.socket, shared.config));
  settings::Settings settings =
      settings::Load(SettingsPath(shared).value_or(std::string(settings::kDefaultPath)))
          .value_or(settings::Settings().Resolved());
  settings.run_root = endpoint.run_root;
  why::Picture picture = why::Look(endpoint, settings);
  if (!what.empty()) {
    Client client(endpoint);
    client.LimitCalls(kPatience);
    picture = why::About(std::move(picture), what, client);
  }
  const why::Report report =
      why::Judge(picture, what.empty() ? kSlow : std::chrono::seconds(0), kFailures);
  const bool found = report.Anything(/*failures_count=*/!what.empty());
  if (shared.json()) {
    Print(json::Dump(why::AsJson(report)));
  } else {
    const std::string text = why::AsText(report);
    if (!text.empty()) Print(text);
    if (!found) {
      Complain(what.empty() ? "nothing takes longer than a second, and all daemons answer"
                            : fmt::format("nothing is under way for '{}', and nothing of it has "
                                          "failed lately",
                                          what));
    }
  }
  return found ? kDone : kFailed;
}

}  // namespace

void AddWhyCommand(CLI::App& app, Shared& shared) {
  const auto what = std::make_shared<std::string>();
  CLI::App* verb = app.add_subcommand(
      "why", "What a pod, a container or a pull waits for, and what failed last and why");
  verb->add_option("WHAT", *what,
                   "Id or name of a pod or a container, or an image; without it, all that takes "
                   "longer than a second");
  verb->footer("Exit code: 0 something is found, 1 nothing is under way and nothing is wrong.");
  verb->callback([&shared, what] {
    const Result<int> shown = ShowWhy(shared, *what);
    shared.exit_code = shown.ok() ? *shown : Tell(shown.status());
  });
}

}  // namespace crisp::ctl
