#include <fmt/format.h>

#include <future>

#include "libs/base/try.h"
#include "libs/http/server.h"
#include "libs/loop/loop.h"
#include "libs/settings/settings.h"
#include "services/crispctl/debug/collect.h"
#include "services/crispctl/debug/redact.h"
#include "services/crispctl/output.h"
#include "services/crispctl/why/report.h"

namespace crisp::ctl::debug {
namespace {

constexpr std::chrono::seconds kCall{15};
constexpr int kMaxInspected = 500;

template <typename Message>
Result<std::string> Redacted(const Result<Message>& answer) {
  if (!answer.ok()) return answer.status();
  return RedactDocument(ToJson(*answer));
}

void CollectVersions(const Findings& found, Bundle& bundle) {
  std::string text = fmt::format("crispctl {}\n", CRISP_VERSION);
  for (const DaemonLine& line : found.daemons) {
    text += fmt::format("{}/{} {}\n", line.service, line.instance,
                        line.info.ok() ? line.info->version() : "away");
  }
  bundle.Add("versions.txt", std::move(text));
  bundle.Add(
      "status.json",
      RedactJson(AsJson(found)).dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

void CollectSettings(const Scope& scope, Bundle& bundle) {
  const auto loaded = settings::Load(scope.config);
  if (!loaded.ok()) {
    bundle.Failed("config/effective.yaml", loaded.status());
    return;
  }
  const settings::Settings settings = RedactSettings(*loaded);
  bundle.Add("config/effective.yaml", RedactText(settings::Dump(settings)));
  std::string differences;
  for (const settings::Difference& one : settings::Differences(settings)) {
    differences += fmt::format("{}: {} (default {})\n", one.Key(), one.value,
                               one.initial.empty() ? "none" : one.initial);
  }
  bundle.Add("config/differences.txt", RedactText(differences));
}

void CollectContainers(Client& client, Bundle& bundle) {
  const auto containers = client.ListContainers();
  bundle.Add("containers.json", Redacted(containers));
  if (!containers.ok()) return;
  int left = kMaxInspected;
  for (const auto& container : containers->containers()) {
    const std::string name = fmt::format("inspect/{}.json", ShortId(container.id()));
    if (left-- == 0) {
      bundle.Failed(name, ResourceExhausted("only the first {} are looked at", kMaxInspected));
      return;
    }
    const auto status = client.ContainerStatus(container.id(), /*verbose=*/true);
    bundle.Add(name, Redacted(status));
    if (status.code() == Code::kDeadlineExceeded) return;  // the others would take as long
  }
}

void CollectAnswers(const Scope& scope, Bundle& bundle) {
  Client client(scope.endpoint);
  client.LimitCalls(kCall);
  if (Status reached = client.Reach(); !reached.ok()) {
    for (const char* name : {"version.json", "node.json", "pods.json", "containers.json",
                             "images.json", "stats.json"}) {
      bundle.Failed(name, reached);
    }
    return;
  }
  bundle.Add("version.json", Redacted(client.Version()));
  bundle.Add("node.json", Redacted(client.NodeStatus(/*verbose=*/true)));
  bundle.Add("pods.json", Redacted(client.ListPods()));
  bundle.Add("images.json", Redacted(client.ListImages()));
  bundle.Add("stats.json", Redacted(client.ListContainerStats()));
  CollectContainers(client, bundle);
}

/// One page of a daemon's own listener.
Result<std::string> Page(loop::Loop& loop, const std::string& socket) {
  std::promise<Result<http::ServerResponse>> answer;
  http::GetUnix(loop, socket, "/metrics", kCall, [&answer](Result<http::ServerResponse> response) {
    answer.set_value(std::move(response));
  });
  const http::ServerResponse response = CRISP_TRY(answer.get_future().get());
  if (response.status != 200) return Unavailable("{}: HTTP {}", socket, response.status);
  return RedactText(response.body);
}

void CollectMetrics(const Scope& scope, const Findings& found, Bundle& bundle) {
  loop::Loop loop;
  loop.Start();
  for (const DaemonLine& line : found.daemons) {
    const std::string socket =
        fmt::format("{}/{}/{}.metrics.sock", scope.endpoint.run_root, line.service, line.instance);
    bundle.Add(fmt::format("metrics/{}-{}.txt", line.service, line.instance), Page(loop, socket));
  }
}

/// What hangs, and what failed last.
void CollectWhy(const Scope& scope, Bundle& bundle) {
  const settings::Settings settings =
      settings::Load(scope.config).value_or(settings::Settings().Resolved());
  const why::Report report =
      why::Judge(why::Look(scope.endpoint, settings), std::chrono::seconds(0), why::kEveryFailure);
  bundle.Add("why.txt", RedactText(why::AsText(report)));
}

}  // namespace

void CollectCrisp(const Scope& scope, const Findings& found, Bundle& bundle) {
  CollectVersions(found, bundle);
  CollectSettings(scope, bundle);
  CollectAnswers(scope, bundle);
  CollectMetrics(scope, found, bundle);
  CollectWhy(scope, bundle);
}

}  // namespace crisp::ctl::debug
