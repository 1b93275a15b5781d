#include "services/rund/core/logs.h"

#include <utility>

#include "libs/base/try.h"
#include "libs/log/log.h"
#include "libs/os/pidfd.h"
#include "services/rund/core/log_path.h"
#include "services/rund/logger/control.h"
#include "services/rund/runtime/conmon.h"

namespace crisp::rund {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

LogLimits LimitsOf(const ContainerRecord& container) {
  const v1::LogLimitsRecord& record = container.log_limits();
  return {.rate = Bytes(record.rate()),
          .burst = Bytes(record.burst()),
          .block = record.block(),
          .max_size = Bytes(record.max_size())};
}

}  // namespace

Result<Logs::Place> Logs::Prepare(const CallContext& cc, const PodRecord& pod,
                                  const ContainerRecord& container) {
  Place place{.path = container.log_path()};
  if (place.path.empty()) return place;
  if (!LimitsOf(container).any()) {
    CRISP_TRY(PrepareLog(pod.config().log_directory(), container.config().log_path()));
    return place;
  }
  place.lifeline = CRISP_TRY(Start(cc, pod, container));
  place.path = LoggerFifo(p_.config.layout.Bundle(ContainerId(container.id())));
  known_.lock()->insert_or_assign(container.id(), LogCounts());
  return place;
}

Result<os::UniqueFd> Logs::Start(const CallContext& cc, const PodRecord& pod,
                                 const ContainerRecord& container) {
  const std::string& log_path = container.config().log_path();
  const os::Beneath directory = CRISP_TRY(PrepareLog(pod.config().log_directory(), log_path));
  return StartLogger(cc, {.program = p_.config.log_helper,
                          .bundle = p_.config.layout.Bundle(ContainerId(container.id())),
                          .directory = directory.fd(),
                          .name = log_path.substr(log_path.rfind('/') + 1),
                          .limits = LimitsOf(container)});
}

Result<LogCounts> Logs::Ask(const CallContext& cc, const ContainerRecord& container,
                            std::string_view request) {
  const LogCounts now =
      CRISP_TRY(AskLogger(cc, p_.config.layout.Bundle(ContainerId(container.id())), request));
  auto known = known_.lock();
  const auto [entry, fresh] = known->try_emplace(container.id(), now);
  // What was left out before our start was counted by the one before us.
  if (fresh) return now;
  LogCounts& before = entry->second;
  // Less: an answer that came later than the next one.
  const auto since = [](std::uint64_t total, std::uint64_t& counted) {
    return total > counted ? total - std::exchange(counted, total) : 0;
  };
  p_.metrics.LogsLeftOut(since(now.dropped_lines, before.dropped_lines),
                         since(now.dropped_bytes, before.dropped_bytes),
                         since(now.lost_lines, before.lost_lines),
                         since(now.lost_bytes, before.lost_bytes));
  return now;
}

Status Logs::Reopen(const CallContext& cc, const ContainerRecord& container) {
  if (container.log_path().empty()) return Status::Ok();
  if (!LimitsOf(container).any()) {
    return ReopenLog(cc, p_.config.layout.Bundle(ContainerId(container.id())), container.log_path(),
                     ProcessOf(container.monitor()));
  }
  auto asked = Ask(cc.Within(seconds(2)), container, logger::kReopen);
  if (asked.code() == Code::kNotFound) {
    // It was killed: a new one opens the file as well.
    Check(cc, container);
    asked = Ask(cc.Within(seconds(2)), container, logger::kReopen);
  }
  return asked.ok() ? Status::Ok() : asked.status();
}

void Logs::Finish(const ContainerRecord& container) {
  if (container.log_path().empty() || !LimitsOf(container).any()) return;
  // Short: other exits wait for this one. Not there: it has ended, and so has written all.
  const CallContext cc = CallContext::Background(milliseconds(500), "log");
  const auto asked = Ask(cc, container, logger::kDrain);
  if (asked.ok() || asked.code() == Code::kNotFound) return;
  log::Warn("the end of a log may come late",
            {{"container", container.id()}, {"error", asked.status()}});
}

void Logs::Check(const CallContext& cc, const ContainerRecord& container) {
  if (container.log_path().empty() || !LimitsOf(container).any()) return;
  // One of us at a time: two crisp-logs would share the lines between them.
  const auto held = p_.locks.Lock(cc, "log/" + container.id());
  if (!held.ok()) return;
  const auto asked = Ask(cc.Within(seconds(2)), container, logger::kCounts);
  if (asked.ok() || !os::Alive(ProcessOf(container.monitor()))) return;
  if (asked.code() != Code::kNotFound) {
    log::Warn("crisp-log does not answer",
              {{"container", container.id()}, {"error", asked.status()}});
    return;
  }
  const PodRef pod = p_.state.FindPod(PodId(container.pod_id()));
  if (!pod) return;
  log::Error("crisp-log ended while its container runs; starting it again",
             {{"container", container.id()}});
  // Its lifeline is let go at once: conmon has the FIFO open.
  const auto started = Start(cc, *pod, container);
  if (started.ok()) known_.lock()->insert_or_assign(container.id(), LogCounts());
  log::IfError("start crisp-log again", started.ok() ? Status::Ok() : started.status());
}

}  // namespace crisp::rund
