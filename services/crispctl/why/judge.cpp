#include "services/crispctl/why/judge.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "services/crispctl/hints.h"
#include "services/crispctl/output.h"

namespace crisp::ctl::why {
namespace {

using daemon::v1::Stage;

/// The places of those that are under way and have no part that is.
std::vector<int> LeavesOf(const Operation& operation) {
  std::vector<int> leaves;
  for (int i = 0; i < operation.stages_size(); ++i) {
    if (!operation.stages(i).under_way()) continue;
    const bool inner =
        std::any_of(operation.stages().begin(), operation.stages().end(),
                    [i](const Stage& stage) { return stage.under_way() && stage.parent() == i; });
    if (!inner) leaves.push_back(i);
  }
  return leaves;
}

bool HasPart(const Request& request, const std::string& daemon) {
  return std::any_of(request.parts.begin(), request.parts.end(),
                     [&daemon](const Part& part) { return part.daemon == daemon; });
}

/// A step that waits for the end of a process has that; else the daemon's own thread may hang.
std::optional<Place> PlaceOfStage(const Part& part, const Stage& stage) {
  if (stage.process() > 0) return PlaceOf(stage.process());
  if (stage.thread() > 0 && part.pid > 0) {
    auto place = PlaceOfThread(part.pid, stage.thread());
    if (place && place->uninterruptible()) return place;
  }
  return std::nullopt;
}

/// What comes behind the marker up to the next one of `ends`; "" without it.
std::string WordAfter(std::string_view text, std::string_view marker, std::string_view ends) {
  const std::size_t at = text.find(marker);
  if (at == text.npos) return {};
  text.remove_prefix(at + marker.size());
  return std::string(text.substr(0, text.find_first_of(ends)));
}

/// Whose way of sleeping it is, by the kernel's own names.
struct SleepHint {
  std::string_view function;  // in the stack, or where it waits
  std::string_view who;
  std::string_view hint;
};
constexpr std::array kSleepHints = {
    SleepHint{"fuse", "the server of a FUSE file system does not answer",
              "look after the program that serves the volume; without it: "
              "echo 1 > /sys/fs/fuse/connections/*/abort of that one frees who waits"},
    SleepHint{"nfs", "an NFS server does not answer",
              "look after the server and the network to it; what waits goes on when it is back"},
    SleepHint{"rpc_wait", "an NFS server does not answer",
              "look after the server and the network to it; what waits goes on when it is back"},
    SleepHint{"cifs", "an SMB server does not answer", "look after the server and the network"},
    SleepHint{"percpu_rwsem", "its file system is frozen",
              "thaw it: fsfreeze --unfreeze MOUNTPOINT; who has frozen it (a backup, a snapshot) "
              "may have died"},
    SleepHint{"percpu_down_read", "its file system is frozen",
              "thaw it: fsfreeze --unfreeze MOUNTPOINT; who has frozen it (a backup, a snapshot) "
              "may have died"},
    SleepHint{"sb_start_write", "its file system is frozen",
              "thaw it: fsfreeze --unfreeze MOUNTPOINT; who has frozen it (a backup, a snapshot) "
              "may have died"},
};
constexpr std::string_view kDiskHint =
    "dmesg tells of failing disks; a volume's server may be away. Nothing ends the process before "
    "what it waits for comes, or the node is rebooted";

const SleepHint* SleepHintFor(const Place& place) {
  for (const SleepHint& hint : kSleepHints) {
    if (place.waits_in.find(hint.function) != std::string::npos) return &hint;
    for (const std::string& frame : place.stack) {
      if (frame.find(hint.function) != std::string::npos) return &hint;
    }
  }
  return nullptr;
}

/// Steps by how their names begin (they are ours: see work::Stage in the daemons).
struct StepHint {
  std::string_view begin;
  std::string_view who;  // {} is the rest of the step's name
  std::string_view hint;
};
constexpr std::array kStepHints = {
    StepHint{"plugin ", "the network plugin {}",
             "look at the plugin's own log and at what its process waits for; netd ends it after "
             "netd.attach_timeout"},
    StepHint{"runtime ", "the OCI runtime {}",
             "look at what its process waits for: a hook, a device, a volume; rund ends it after "
             "rund.runtime_timeout"},
    StepHint{"ask ", "the registry {}",
             "is it up, and the network to it? 'curl -v https://REGISTRY/v2/' shows it"},
    StepHint{"wait for a network that is ready", "no network is ready",
             "'crispctl status' says what is wrong with the network's configuration"},
    StepHint{"wait for another call that is at ", "another call has {}",
             "that one is shown too: it is the one to look after"},
    StepHint{"wait for the same call", "the same call, which began earlier",
             "that one is shown too: it is the one to look after"},
    StepHint{"wait for a thread of lane ", "too many calls are under way in lane {}",
             "those that hang hold the threads: 'crispctl why' without an argument shows them"},
    StepHint{"wait for a turn", "other pulls are under way",
             "imaged.parallel_pulls and imaged.parallel_unpackers say how many there may be"},
    StepHint{"wait for a connection", "other layers are being downloaded",
             "imaged.parallel_downloads says how many connections there may be"},
    StepHint{"wait for the end of the container", "the container's processes do not end",
             "its grace may not be over; SIGKILL follows then"},
    StepHint{"look at volumes", "a volume's path on the node", kDiskHint},
    StepHint{"mount ", "a mount of the container", kDiskHint},
    StepHint{"unmount ", "a mount of the container", kDiskHint},
};

}  // namespace

Wait WaitOf(const Request& request) {
  Wait wait;
  bool found = false;
  bool found_behind = false;  // of another daemon than the front
  for (const Part& part : request.parts) {
    const bool behind = !part.daemon.starts_with("crid/");
    for (const int leaf : LeavesOf(part.operation)) {
      const Stage& stage = part.operation.stages(leaf);
      // Who works for us is to be looked at, not who waits for that.
      if (!stage.peer().empty() && HasPart(request, stage.peer())) continue;
      const bool better = !found || (behind && !found_behind) ||
                          (behind == found_behind && stage.took() > wait.took.count());
      if (!better) continue;
      found = true;
      found_behind = behind;
      wait = {.daemon = part.daemon,
              .step = stage.what(),
              .how_far = stage.how_far(),
              .took = std::chrono::nanoseconds(stage.took()),
              .place = PlaceOfStage(part, stage),
              .peer = stage.peer()};
    }
  }
  if (found || request.parts.empty()) return wait;
  // In none of its steps: the thread itself.
  const Part& last = request.parts.back();
  wait.daemon = last.daemon;
  wait.step = last.operation.kind();
  wait.took = std::chrono::nanoseconds(last.operation.took());
  if (last.operation.thread() > 0 && last.pid > 0) {
    wait.place = PlaceOfThread(last.pid, last.operation.thread());
    if (wait.place && !wait.place->uninterruptible()) wait.place.reset();
  }
  return wait;
}

Culprit JudgePlace(const Place& place) {
  const SleepHint* sleep = SleepHintFor(place);
  if (!place.uninterruptible()) return {PlaceText(place), ""};
  return {fmt::format("a volume or a disk: {}{}{}", PlaceText(place), sleep == nullptr ? "" : ": ",
                      sleep == nullptr ? "" : sleep->who),
          std::string(sleep == nullptr ? kDiskHint : sleep->hint)};
}

Culprit JudgeDaemon(const Daemon& daemon) {
  const std::string since = daemon.since.empty() ? "" : fmt::format(" ({})", daemon.since);
  if (daemon.answer.code() == Code::kPermissionDenied) {
    return {daemon.name + " may not be asked by this user", "try again as root"};
  }
  if (daemon.pid == 0) {
    return {
        fmt::format("{} is not running{}", daemon.name, since),
        fmt::format("start it: systemctl start {0}; why it ended: journalctl -u {0}", daemon.unit)};
  }
  const std::string where =
      daemon.place ? PlaceText(*daemon.place) : fmt::format("process {}", daemon.pid);
  std::string hint = fmt::format(
      "restart it: systemctl restart {0}; its last words: "
      "journalctl -u {0}",
      daemon.unit);
  if (daemon.place && daemon.place->stopped()) {
    hint = fmt::format("somebody has stopped it: kill -CONT {}", daemon.pid);
  } else if (daemon.place && daemon.place->uninterruptible()) {
    hint = JudgePlace(*daemon.place).hint;
  }
  return {fmt::format("{} does not answer{}: {}", daemon.name, since, where), hint};
}

Culprit JudgeDisk(const FullDisk& disk) {
  constexpr std::string_view kHint =
      "'crispctl images' shows what can go with 'crispctl rmi'; what else is on that file system: "
      "du -x --max-depth=2";
  if (disk.out_of_files) {
    return {
        fmt::format("the disk below {} is full: {} inodes are left", disk.path, disk.free_files),
        std::string(kHint)};
  }
  return {fmt::format("the disk below {} is full: {} are left", disk.path, Size(disk.free_bytes)),
          std::string(kHint)};
}

Culprit JudgeRequest(const Wait& wait, const std::vector<Daemon>& daemons) {
  const auto away = std::find_if(daemons.begin(), daemons.end(), [&wait](const Daemon& daemon) {
    return daemon.name == wait.peer && !daemon.answer.ok();
  });
  if (away != daemons.end()) return JudgeDaemon(*away);
  if (wait.place && wait.place->uninterruptible()) {
    Culprit culprit = JudgePlace(*wait.place);
    culprit.what += fmt::format(" (in {}: {})", wait.daemon, wait.step);
    return culprit;
  }
  const std::string place = wait.place ? ": " + PlaceText(*wait.place) : "";
  // A registry is named by who serves the layer, which may be a mirror.
  if (wait.step.starts_with("layer ")) {
    const std::string host = WordAfter(wait.how_far, " from ", ", ");
    return {fmt::format("the registry {}: {}", host, wait.how_far),
            "it is slow, or the network to it is; imaged gives one up that is slower than "
            "imaged.min_rate. A mirror in registries.conf may be faster"};
  }
  for (const StepHint& hint : kStepHints) {
    if (!wait.step.starts_with(hint.begin)) continue;
    const std::string rest = wait.step.substr(hint.begin.size());
    return {fmt::format("{}{}", fmt::format(fmt::runtime(hint.who), rest), place),
            std::string(hint.hint)};
  }
  return {fmt::format("{} in {}{}", wait.step, wait.daemon, place), ""};
}

std::optional<Culprit> JudgeFailure(const Failure& failure) {
  const Status status(static_cast<Code>(failure.operation.code()), failure.operation.error());
  if (status.message().find("No space left on device") != std::string::npos) {
    return Culprit{"a full disk", std::string(HintFor(ResourceExhausted("{}", status.message())))};
  }
  const std::string_view hint = HintFor(status);
  if (hint.empty()) return std::nullopt;
  return Culprit{"", std::string(hint)};
}

}  // namespace crisp::ctl::why
