#include "services/crispctl/why/gather.h"

#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <future>
#include <nlohmann/json.hpp>
#include <utility>

#include "libs/base/ids.h"
#include "libs/json/json.h"
#include "libs/os/files.h"
#include "libs/process/command.h"
#include "services/crispctl/findings.h"
#include "services/crispctl/output.h"

namespace crisp::ctl::why {
namespace {

/// Below both a disk is full for all that we do with it.
constexpr std::uint64_t kLittle = std::uint64_t{64} << 20U;
constexpr std::uint64_t kPart = 100;  // a hundredth

/// "crisp-rund@1.service" is active since when, as systemd has it; "" without systemd.
std::string SinceBySystemd(const std::string& unit) {
  if (!os::IsDirectory("/run/systemd/system")) return {};
  process::Command command;
  command.program = "/usr/bin/systemctl";
  command.args = {"show", "--property=ActiveState,SubState,StateChangeTimestamp", unit};
  command.env = process::PlainEnvironment();
  const auto ran =
      process::Run(CallContext::Background(std::chrono::seconds(2), "crispctl"), command);
  if (!ran.ok() || ran->exit_code != 0) return {};
  std::map<std::string, std::string> values;
  std::string_view rest = ran->out;
  while (!rest.empty()) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    const std::size_t equals = line.find('=');
    if (equals != line.npos) values.emplace(line.substr(0, equals), line.substr(equals + 1));
  }
  if (values["StateChangeTimestamp"].empty()) return {};
  return fmt::format("{} ({}) since {}, as systemd has it", values["ActiveState"],
                     values["SubState"], values["StateChangeTimestamp"]);
}

std::string SinceBySocket(const std::string& socket) {
  struct stat file {};
  if (::lstat(socket.c_str(), &file) != 0) return "it has no socket";
  return fmt::format("its socket has been there for {}",
                     Since(static_cast<std::int64_t>(file.st_mtim.tv_sec) * 1'000'000'000));
}

Daemon Ask(const DaemonPlace& place) {
  Daemon daemon{.name = place.service + "/" + place.instance};
  daemon.unit = UnitOf(place.service, place.instance);
  daemon.answer = Client::Operations(place.socket);
  daemon.pid = Client::ListenerOf(place.socket);
  if (daemon.answer.ok()) return daemon;
  if (daemon.pid > 0) daemon.place = PlaceOf(daemon.pid);
  daemon.since = SinceBySystemd(daemon.unit);
  if (daemon.since.empty()) daemon.since = SinceBySocket(place.socket);
  return daemon;
}

std::optional<FullDisk> LookAt(const std::string& path) {
  struct statvfs info {};
  if (path.empty() || ::statvfs(path.c_str(), &info) != 0) return std::nullopt;
  const std::uint64_t free = info.f_bavail * info.f_frsize;
  const std::uint64_t size = info.f_blocks * info.f_frsize;
  const bool out_of_bytes = free < kLittle && free < size / kPart;
  const bool out_of_files = info.f_files > 0 && info.f_favail < info.f_files / kPart;
  if (!out_of_bytes && !out_of_files) return std::nullopt;
  return FullDisk{path, free, info.f_favail, out_of_files && !out_of_bytes};
}

/// Ids that calls get are of this form; those of background work are words, and shared by all of
/// it.
bool IsOfACall(const std::string& request_id) { return request_id.find('-') != std::string::npos; }

int Rank(const std::string& daemon) { return daemon.starts_with("crid/") ? 0 : 1; }

bool IsAbout(const Operation& operation, const std::set<std::string>& names) {
  return std::any_of(
      operation.subjects().begin(), operation.subjects().end(), [&names](const auto& subject) {
        return std::any_of(names.begin(), names.end(),
                           [&subject](const auto& name) { return IsMeant(subject, name); });
      });
}

/// The pods and containers that a person may mean.
struct Meant {
  std::set<std::string> names;  // ids too
  std::vector<runtime::v1::Container> containers;
};

Meant WhoIsMeant(const std::string& text, Client& client) {
  Meant meant;
  meant.names.insert(text);
  if (!client.Reach().ok()) return meant;
  const auto is_meant = [&text](const auto& item) {
    return IsMeant(item.id(), text) || item.metadata().name() == text;
  };
  std::set<std::string> pods;
  if (const auto list = client.ListPods(); list.ok()) {
    for (const auto& pod : list->items()) {
      const std::string full = pod.metadata().namespace_() + "/" + pod.metadata().name();
      if (is_meant(pod) || full == text) pods.insert(pod.id());
    }
  }
  if (const auto list = client.ListContainers(); list.ok()) {
    for (const auto& container : list->containers()) {
      if (!is_meant(container) && !pods.contains(container.pod_sandbox_id())) continue;
      meant.names.insert(container.id());
      meant.containers.push_back(container);
    }
  }
  meant.names.merge(pods);
  return meant;
}

std::optional<Sleeping> SleepersOf(const runtime::v1::Container& container, Client& client) {
  const auto status = client.ContainerStatus(container.id(), true);
  if (!status.ok() || !status->info().contains("info")) return std::nullopt;
  const auto info = json::Parse(status->info().at("info"));
  if (!info.ok()) return std::nullopt;
  const std::int64_t pid = json::GetInt(*info, "pid").value_or(0);
  if (pid <= 0) return std::nullopt;
  Sleeping sleeping{.id = container.id(), .name = container.metadata().name()};
  sleeping.places = SleepersBeside(static_cast<pid_t>(pid));
  if (sleeping.places.empty()) return std::nullopt;
  return sleeping;
}

}  // namespace

bool IsMeant(const std::string& subject, const std::string& text) {
  if (text.empty()) return false;
  if (subject == text) return true;
  constexpr std::size_t kShortestId = 4;
  if (IsFullId(subject)) return text.size() >= kShortestId && subject.starts_with(text);
  // "web" of "default/web", "nginx" of "docker.io/library/nginx:1.25".
  const std::string last = subject.substr(subject.rfind('/') + 1);
  return last == text || last.substr(0, last.find_first_of(":@")) == text ||
         (text.find('/') != text.npos && subject.ends_with("/" + text));
}

std::vector<Request> Join(const std::vector<Daemon>& daemons) {
  std::vector<Request> requests;
  std::map<std::string, std::size_t> places;
  for (const Daemon& daemon : daemons) {
    if (!daemon.answer.ok()) continue;
    for (const Operation& operation : daemon.answer->under_way()) {
      const std::string& id = operation.request_id();
      auto found = places.find(id);
      if (found == places.end() || !IsOfACall(id)) {
        requests.push_back({.id = id});
        found = places.insert_or_assign(id, requests.size() - 1).first;
      }
      Request& request = requests[found->second];
      request.parts.push_back({daemon.name, daemon.pid, operation});
      request.took = std::max(request.took, std::chrono::nanoseconds(operation.took()));
    }
  }
  for (Request& request : requests) {
    std::stable_sort(request.parts.begin(), request.parts.end(),
                     [](const Part& a, const Part& b) { return Rank(a.daemon) < Rank(b.daemon); });
  }
  std::stable_sort(requests.begin(), requests.end(),
                   [](const Request& a, const Request& b) { return a.took > b.took; });
  return requests;
}

Picture Look(const Endpoint& endpoint, const settings::Settings& settings) {
  Picture picture;
  std::vector<std::future<Daemon>> asked;
  for (const DaemonPlace& place : DaemonsOf(endpoint)) {
    // One that does not answer takes its time.
    asked.push_back(std::async(std::launch::async, [place] { return Ask(place); }));
  }
  for (std::future<Daemon>& each : asked) picture.daemons.push_back(each.get());
  picture.requests = Join(picture.daemons);
  for (const Daemon& daemon : picture.daemons) {
    if (!daemon.answer.ok()) continue;
    for (const Operation& operation : daemon.answer->failed()) {
      picture.failures.push_back({daemon.name, operation});
    }
  }
  const auto ended = [](const Failure& failure) {
    return failure.operation.started_at() + failure.operation.took();
  };
  std::stable_sort(picture.failures.begin(), picture.failures.end(),
                   [&ended](const Failure& a, const Failure& b) { return ended(a) > ended(b); });
  for (const std::string& path :
       {settings.state_root, settings.imaged.image_root, settings.run_root}) {
    if (auto full = LookAt(path)) picture.disks.push_back(*std::move(full));
  }
  return picture;
}

Picture About(Picture all, const std::string& text, Client& client) {
  const Meant meant = WhoIsMeant(text, client);
  std::erase_if(all.requests, [&meant](const Request& request) {
    return std::none_of(request.parts.begin(), request.parts.end(), [&meant](const Part& part) {
      return IsAbout(part.operation, meant.names);
    });
  });
  std::erase_if(all.failures, [&meant](const Failure& failure) {
    return !IsAbout(failure.operation, meant.names);
  });
  for (const auto& container : meant.containers) {
    if (auto sleeping = SleepersOf(container, client)) {
      all.sleeping.push_back(*std::move(sleeping));
    }
  }
  return all;
}

}  // namespace crisp::ctl::why
