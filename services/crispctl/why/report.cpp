#include "services/crispctl/why/report.h"

#include <fmt/format.h>

#include <algorithm>

#include "libs/base/ids.h"
#include "libs/work/operations.h"
#include "services/crispctl/output.h"

namespace crisp::ctl::why {
namespace {

using work::TimeText;

std::string Shown(const std::string& subject) {
  return IsFullId(subject) ? ShortId(subject) : subject;
}

/// Each once, names before ids.
std::string SubjectsText(const Operation& operation) {
  std::vector<std::string> subjects;
  for (const bool ids : {false, true}) {
    for (const std::string& subject : operation.subjects()) {
      if (IsFullId(subject) != ids) continue;
      const std::string shown = Shown(subject);
      if (std::find(subjects.begin(), subjects.end(), shown) == subjects.end()) {
        subjects.push_back(shown);
      }
    }
  }
  return fmt::format("{}", fmt::join(subjects, ", "));
}

std::string Title(const Operation& operation) {
  const std::string about = SubjectsText(operation);
  return about.empty() ? operation.kind() : fmt::format("{} of {}", operation.kind(), about);
}

void AddCulprit(const Culprit& culprit, std::string& out) {
  out += "  culprit: " + culprit.what + "\n";
  if (!culprit.hint.empty()) out += "  what to do: " + culprit.hint + "\n";
}

void AddPlace(const Place& place, std::string& out) {
  out += "  " + PlaceText(place) + "\n";
  if (!place.stack.empty()) {
    out += fmt::format("    kernel: {}\n", fmt::join(place.stack, " < "));
  }
}

void AddSlow(const Report::Slow& slow, std::string& out) {
  const Part& front = slow.request.parts.front();
  out += fmt::format("{}, for {}\n", Title(front.operation), TimeText(slow.request.took));
  for (const Part& part : slow.request.parts) {
    const std::string& times = part.operation.times();
    out += fmt::format("  {}: {}{}\n", part.daemon, part.operation.kind(),
                       times.empty() ? "" : ": " + times);
    if (part.operation.code() != 0) {
      out += fmt::format("    its caller was told: {}\n", part.operation.error());
    }
  }
  if (slow.wait.place) AddPlace(*slow.wait.place, out);
  AddCulprit(slow.culprit, out);
  out += "\n";
}

void AddFailure(const Failure& failure, std::string& out) {
  const Operation& operation = failure.operation;
  out += fmt::format("  {} ago {}: {}", Since(operation.started_at() + operation.took()),
                     failure.daemon, Title(operation));
  if (operation.failures() > 1) out += fmt::format(" ({} times)", operation.failures());
  out += fmt::format("\n    {}\n", operation.error());
  if (const auto culprit = JudgeFailure(failure)) {
    if (!culprit->what.empty()) out += "    culprit: " + culprit->what + "\n";
    if (!culprit->hint.empty()) out += "    what to do: " + culprit->hint + "\n";
  }
}

nlohmann::json Json(const Place& place) {
  return {{"pid", place.pid},
          {"thread", place.thread},
          {"command", place.command},
          {"commandLine", place.line},
          {"state", std::string(1, place.state)},
          {"waitsIn", place.waits_in},
          {"stack", place.stack},
          {"file", place.file},
          {"mount", place.mount}};
}

nlohmann::json Json(const Culprit& culprit) {
  return {{"culprit", culprit.what}, {"hint", culprit.hint}};
}

nlohmann::json Json(const Operation& operation, const std::string& daemon) {
  nlohmann::json stages = nlohmann::json::array();
  for (const auto& stage : operation.stages()) {
    stages.push_back({{"what", stage.what()},
                      {"peer", stage.peer()},
                      {"howFar", stage.how_far()},
                      {"process", stage.process()},
                      {"thread", stage.thread()},
                      {"parent", stage.parent()},
                      {"beganNanoseconds", stage.began()},
                      {"tookNanoseconds", stage.took()},
                      {"underWay", stage.under_way()}});
  }
  return {{"daemon", daemon},
          {"kind", operation.kind()},
          {"subjects",
           std::vector<std::string>(operation.subjects().begin(), operation.subjects().end())},
          {"request", operation.request_id()},
          {"startedAt", operation.started_at()},
          {"tookNanoseconds", operation.took()},
          {"stages", std::move(stages)},
          {"code", operation.code()},
          {"error", operation.error()},
          {"failures", operation.failures()}};
}

}  // namespace

bool Report::Anything(bool failures_count) const {
  return !slow.empty() || !daemons.empty() || !disks.empty() || !sleeping.empty() ||
         (failures_count && !failures.empty());
}

Report Judge(const Picture& picture, std::chrono::nanoseconds from, std::size_t failures) {
  Report report;
  for (const Request& request : picture.requests) {
    if (request.took < from) continue;
    Wait wait = WaitOf(request);
    Culprit culprit = JudgeRequest(wait, picture.daemons);
    report.slow.push_back({request, std::move(wait), std::move(culprit)});
  }
  for (const Daemon& daemon : picture.daemons) {
    if (!daemon.answer.ok()) report.daemons.push_back(JudgeDaemon(daemon));
  }
  for (const FullDisk& disk : picture.disks) report.disks.push_back(JudgeDisk(disk));
  for (const Sleeping& sleeping : picture.sleeping) {
    report.sleeping.emplace_back(sleeping, JudgePlace(sleeping.places.front()));
  }
  report.failures = picture.failures;
  if (report.failures.size() > failures) report.failures.resize(failures);
  return report;
}

std::string AsText(const Report& report) {
  std::string out;
  for (const Culprit& daemon : report.daemons) {
    out += daemon.what + "\n";
    if (!daemon.hint.empty()) out += "  what to do: " + daemon.hint + "\n";
    out += "\n";
  }
  for (const Culprit& disk : report.disks) {
    out += disk.what + "\n  what to do: " + disk.hint + "\n\n";
  }
  for (const Report::Slow& slow : report.slow) AddSlow(slow, out);
  for (const auto& [sleeping, culprit] : report.sleeping) {
    out += fmt::format("container {} ({})\n", sleeping.name, ShortId(sleeping.id));
    for (const Place& place : sleeping.places) AddPlace(place, out);
    AddCulprit(culprit, out);
    out += "\n";
  }
  if (!report.failures.empty()) {
    out += "What failed last:\n";
    for (const Failure& failure : report.failures) AddFailure(failure, out);
  }
  while (out.ends_with("\n\n")) out.pop_back();
  return out;
}

nlohmann::json AsJson(const Report& report) {
  nlohmann::json out = {{"slow", nlohmann::json::array()},
                        {"daemons", nlohmann::json::array()},
                        {"disks", nlohmann::json::array()},
                        {"sleeping", nlohmann::json::array()},
                        {"failures", nlohmann::json::array()}};
  for (const Report::Slow& slow : report.slow) {
    nlohmann::json one = Json(slow.culprit);
    one["tookNanoseconds"] = slow.request.took.count();
    one["step"] = slow.wait.step;
    one["daemon"] = slow.wait.daemon;
    if (slow.wait.place) one["place"] = Json(*slow.wait.place);
    for (const Part& part : slow.request.parts) {
      one["parts"].push_back(Json(part.operation, part.daemon));
    }
    out["slow"].push_back(std::move(one));
  }
  for (const Culprit& daemon : report.daemons) out["daemons"].push_back(Json(daemon));
  for (const Culprit& disk : report.disks) out["disks"].push_back(Json(disk));
  for (const auto& [sleeping, culprit] : report.sleeping) {
    nlohmann::json one = Json(culprit);
    one["container"] = sleeping.id;
    one["name"] = sleeping.name;
    for (const Place& place : sleeping.places) one["places"].push_back(Json(place));
    out["sleeping"].push_back(std::move(one));
  }
  for (const Failure& failure : report.failures) {
    nlohmann::json one = Json(failure.operation, failure.daemon);
    if (const auto culprit = JudgeFailure(failure)) one.update(Json(*culprit));
    out["failures"].push_back(std::move(one));
  }
  return out;
}

}  // namespace crisp::ctl::why
