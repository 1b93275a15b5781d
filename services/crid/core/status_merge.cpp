#include "services/crid/core/status_merge.h"

#include <map>
#include <utility>

namespace crisp::crid {
namespace {

void AddCondition(runtime::v1::StatusResponse& out, const std::string& type, bool status,
                  const std::string& reason = {}, const std::string& message = {}) {
  auto* condition = out.mutable_status()->add_conditions();
  condition->set_type(type);
  condition->set_status(status);
  condition->set_reason(reason);
  condition->set_message(message);
}

void AddRuntimeReady(runtime::v1::StatusResponse& out, const std::vector<RundStatus>& runds) {
  if (runds.empty()) {
    AddCondition(out, "RuntimeReady", false, "RundNotRunning", "rund/1 is not running");
    return;
  }
  std::string away;
  bool any = false;
  for (const RundStatus& rund : runds) {
    const Status& why = rund.answer.ok() ? rund.away : rund.answer.status();
    if (!why.ok() && away.empty()) away = why.message();
    if (!rund.answer.ok()) continue;
    any = true;
    for (const auto& condition : rund.answer->conditions()) {
      if (condition.type() != "RuntimeReady" || condition.status()) continue;
      AddCondition(out, "RuntimeReady", false,
                   condition.reason().empty() ? "RundNotReady" : condition.reason(),
                   condition.message());
      return;
    }
  }
  if (!any) return AddCondition(out, "RuntimeReady", false, "RundNotRunning", away);
  AddCondition(out, "RuntimeReady", true, away.empty() ? "" : "RundAway", away);
}

void AddNetworkReady(runtime::v1::StatusResponse& out,
                     const Result<netd::v1::StatusResponse>& netd) {
  if (!netd.ok()) {
    AddCondition(out, "NetworkReady", false, "NetdNotRunning", netd.status().message());
  } else if (!netd->ready()) {
    AddCondition(out, "NetworkReady", false,
                 netd->reason().empty() ? "NetworkPluginNotReady" : netd->reason(),
                 netd->message());
  } else {
    // With a reason while netd only bears with a network that is being replaced.
    AddCondition(out, "NetworkReady", true, netd->reason(), netd->message());
  }
}

}  // namespace

runtime::v1::StatusResponse MergeStatus(const std::vector<RundStatus>& runds,
                                        const Result<netd::v1::StatusResponse>& netd,
                                        const Status& imaged) {
  runtime::v1::StatusResponse out;
  AddRuntimeReady(out, runds);
  AddNetworkReady(out, netd);
  if (imaged.ok()) {
    AddCondition(out, "CrispImageService", true);
  } else {
    AddCondition(out, "CrispImageService", false, "ImagedNotRunning", imaged.message());
  }
  // Handlers in a stable order; the first instance that knows one describes it.
  std::map<std::string, runtime::v1::RuntimeHandler> handlers;
  bool features = false;
  std::map<std::string, bool> extra;
  for (const RundStatus& rund : runds) {
    if (!rund.answer.ok()) continue;
    for (const auto& handler : rund.answer->handlers()) handlers.emplace(handler.name(), handler);
    if (!std::exchange(features, true)) *out.mutable_features() = rund.answer->features();
    for (const auto& condition : rund.answer->conditions()) {
      if (condition.type() == "RuntimeReady" || condition.type() == "NetworkReady") continue;
      if (extra.emplace(condition.type(), true).second) {
        *out.mutable_status()->add_conditions() = condition;
      }
    }
  }
  for (auto& [name, handler] : handlers) *out.add_runtime_handlers() = std::move(handler);
  return out;
}

template <typename Answer>
Result<Answer> StatusGrace::Take(Result<Answer> answer, std::optional<Last<Answer>>& last,
                                 Status& away) const {
  const SteadyTime now = clock_.Now();
  if (answer.ok()) {
    last = Last<Answer>{*answer, now};
    return answer;
  }
  if (answer.code() != Code::kUnavailable || !last || now - last->given >= grace_) return answer;
  away = answer.status();
  return last->answer;
}

RundStatus StatusGrace::Rund(const std::string& instance,
                             Result<rund::v1::NodeStatusResponse> answer) {
  std::lock_guard lock(mutex_);
  Status away;
  auto counts = Take(std::move(answer), runds_[instance], away);
  return {instance, std::move(counts), std::move(away)};
}

Result<netd::v1::StatusResponse> StatusGrace::Netd(Result<netd::v1::StatusResponse> answer) {
  std::lock_guard lock(mutex_);
  Status away;
  auto counts = Take(std::move(answer), netd_, away);
  if (!away.ok() && counts->ready()) {
    counts->set_reason("NetdAway");
    counts->set_message(away.message());
  }
  return counts;
}

}  // namespace crisp::crid
