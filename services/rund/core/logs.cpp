#include "services/rund/core/logs.h"

#include <fcntl.h>
#include <poll.h>

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

constexpr seconds kAnswerTime{2};

LogLimits LimitsOf(const ContainerRecord& container) {
  const v1::LogLimitsRecord& record = container.log_limits();
  return {.rate = Bytes(record.rate()),
          .burst = Bytes(record.burst()),
          .block = record.block(),
          .max_size = Bytes(record.max_size()),
          .guarded = record.guarded()};
}

bool HasLogger(const ContainerRecord& container) {
  return !container.log_path().empty() && LimitsOf(container).any();
}

// Of whatever starts, asks or reopens a log.
std::string LogLockKey(const ContainerRecord& container) { return "log/" + container.id(); }

}  // namespace

Result<Logs::Place> Logs::Prepare(const CallContext& cc, const PodRecord& pod,
                                  const ContainerRecord& container) {
  Place place{.path = container.log_path()};
  if (place.path.empty()) return place;
  if (!HasLogger(container)) {
    CRISP_TRY(PrepareLog(pod.config().log_directory(), container.config().log_path()));
    return place;
  }
  place.lifeline = CRISP_TRY(Start(cc, pod, container, /*again=*/false));
  place.path = LoggerFifo(p_.config.layout.Bundle(ContainerId(container.id())));
  known_.lock()->insert_or_assign(container.id(), Known());
  const auto asked = Ask(cc.Within(kAnswerTime), container, logger::kCounts);
  if (asked.ok()) Watch(container, asked->pid);
  return place;
}

Result<os::UniqueFd> Logs::Start(const CallContext& cc, const PodRecord& pod,
                                 const ContainerRecord& container, bool again) {
  const std::string& log_path = container.config().log_path();
  const os::Beneath directory = CRISP_TRY(PrepareLog(pod.config().log_directory(), log_path));
  return StartLogger(cc, {.program = p_.config.log_helper,
                          .bundle = p_.config.layout.Bundle(ContainerId(container.id())),
                          .directory = directory.fd(),
                          .name = log_path.substr(log_path.rfind('/') + 1),
                          .limits = LimitsOf(container),
                          .again = again});
}

Result<LoggerAnswer> Logs::Ask(const CallContext& cc, const ContainerRecord& container,
                               std::string_view request) {
  const LoggerAnswer answer =
      CRISP_TRY(AskLogger(cc, p_.config.layout.Bundle(ContainerId(container.id())), request));
  const LogCounts& now = answer.counts;
  auto known = known_.lock();
  const auto [entry, fresh] = known->try_emplace(container.id());
  LogCounts& before = entry->second.counted;
  // What was left out before our start was counted by the one before us.
  if (fresh) {
    before = now;
    return answer;
  }
  // Less: an answer that came later than the next one.
  const auto since = [](std::uint64_t total, std::uint64_t& counted) {
    return total > counted ? total - std::exchange(counted, total) : 0;
  };
  p_.metrics.LogsLeftOut(since(now.dropped_lines, before.dropped_lines),
                         since(now.dropped_bytes, before.dropped_bytes),
                         since(now.lost_lines, before.lost_lines),
                         since(now.lost_bytes, before.lost_bytes));
  return answer;
}

Status Logs::Reopen(const CallContext& cc, const ContainerRecord& container) {
  if (container.log_path().empty()) return Status::Ok();
  const auto held = CRISP_TRY(p_.locks.Lock(cc, LogLockKey(container)));
  if (!HasLogger(container)) {
    return ReopenLog(cc, p_.config.layout.Bundle(ContainerId(container.id())), container.log_path(),
                     ProcessOf(container.monitor()));
  }
  auto asked = Ask(cc.Within(kAnswerTime), container, logger::kReopen);
  if (asked.code() == Code::kNotFound) {
    // It was killed: a new one opens the file as well.
    CheckLocked(cc, container);
    asked = Ask(cc.Within(kAnswerTime), container, logger::kReopen);
  }
  return asked.ok() ? Status::Ok() : asked.status();
}

void Logs::Finish(const ContainerRecord& container) {
  if (!HasLogger(container)) return;
  // Short: other exits wait for this one. Not there: it has ended, and so has written all.
  const CallContext cc = CallContext::Background(milliseconds(500), "log");
  const auto asked = Ask(cc, container, logger::kDrain);
  if (asked.ok() || asked.code() == Code::kNotFound) return;
  log::Warn("the end of a log may come late",
            {{"container", container.id()}, {"error", asked.status()}});
}

void Logs::Check(const CallContext& cc, const ContainerRecord& container) {
  if (!HasLogger(container)) return;
  // One of us at a time: two crisp-logs would share the lines between them.
  const auto held = p_.locks.Lock(cc, LogLockKey(container));
  if (held.ok()) CheckLocked(cc, container);
}

void Logs::CheckLocked(const CallContext& cc, const ContainerRecord& container) {
  const auto asked = Ask(cc.Within(kAnswerTime), container, logger::kCounts);
  if (asked.ok()) return Watch(container, asked->pid);
  if (!IsWanted(container)) return;
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
  const auto started = Start(cc, *pod, container, /*again=*/true);
  log::IfError("start crisp-log again", started.ok() ? Status::Ok() : started.status());
  {
    auto known = known_.lock();
    Known& entry = (*known)[container.id()];
    entry.counted = LogCounts();
    // What the container writes is lost, rather than that it waits for one that may never come.
    if (!started.ok()) entry.kept_open.reset();
  }
  if (!started.ok()) return;
  const auto again = Ask(cc.Within(kAnswerTime), container, logger::kCounts);
  if (again.ok()) Watch(container, again->pid);
}

/// There is, or may come, something to write: crisp-log is not there because it was killed, and not
/// because conmon has closed the FIFO.
bool Logs::IsWanted(const ContainerRecord& container) {
  {
    auto known = known_.lock();
    const auto found = known->find(container.id());
    if (found != known->end() && found->second.kept_open.valid()) {
      pollfd fifo{.fd = found->second.kept_open.get(), .events = POLLIN, .revents = 0};
      if (poll(&fifo, 1, 0) > 0) return (fifo.revents & POLLIN) != 0;
    }
  }
  return os::Alive(ProcessOf(container.monitor()));
}

void Logs::Watch(const ContainerRecord& container, pid_t logger) {
  const ContainerId id(container.id());
  auto known = known_.lock();
  Known& entry = (*known)[container.id()];
  if (!entry.kept_open.valid()) {
    const std::string fifo = LoggerFifo(p_.config.layout.Bundle(id));
    entry.kept_open.reset(open(fifo.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  }
  if (logger == 0 || entry.watched == logger) return;
  entry.watched = logger;
  // One that has gone meanwhile is told like one that goes later.
  p_.supervisor->WatchLogger(id, os::ProcessId::Of(logger).value_or({}));
}

}  // namespace crisp::rund
