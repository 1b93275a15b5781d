#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "libs/base/try.h"
#include "libs/config/yaml_edit.h"
#include "libs/config/yaml_json.h"
#include "libs/os/atomic_file.h"
#include "libs/os/files.h"
#include "libs/settings/settings.h"
#include "services/crispctl/commands/commands.h"
#include "services/crispctl/in_force.h"
#include "services/crispctl/output.h"
#include "services/crispctl/programs.h"
#include "services/crispctl/unit_drop_ins.h"

namespace crisp::ctl {
namespace {

/// What "config set" writes. After the drop-ins of people and tools, as its name sorts late.
constexpr const char* kOurDropIn = "90-crispctl.yaml";
constexpr std::string_view kOurHead =
    "# Written by 'crispctl config set'; comments in it do not last.\n";
/// What "config units --write" writes for each unit.
constexpr const char* kUnitDropIn = "50-crisp-settings.conf";
constexpr std::string_view kUnitHead = "# Written by 'crispctl config units --write'.\n";

/// `head`: comments that go before.
Result<int> Show(const Shared& shared, const settings::Settings& settings, bool plain,
                 const std::string& head = {}) {
  const std::string bare = settings::Dump(settings);
  if (shared.json()) {
    const nlohmann::json json = CRISP_TRY(config::YamlToJson(bare));
    Print(json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
  } else {
    Print(head + (plain ? bare : settings::DumpCommented(settings)));
  }
  return kDone;
}

/// What the daemons were told; where none runs nothing, and the person hears of it.
Result<std::optional<InForce>> AskTheNode(const Shared& shared, const settings::Settings& files) {
  const Endpoint endpoint = CRISP_TRY(FindEndpoint(shared.socket, shared.config));
  Result<InForce> found = AskInForce(endpoint, files);
  if (found.ok()) return std::optional<InForce>(*std::move(found));
  Remark(fmt::format("crispctl: {}: this is what the files say\n", found.status().message()));
  return std::optional<InForce>();
}

/// Who has said so, and what the files say otherwise, as comments.
std::string HeadOf(const InForce& in_force, const std::string& path) {
  std::string head =
      fmt::format("# In force at {}, with {}.\n", fmt::join(in_force.daemons, ", "), path);
  for (const std::string& service : in_force.silent) {
    head += fmt::format("# {} does not answer: its part is what the files say.\n", service);
  }
  for (const PendingKey& one : in_force.pending) {
    head += fmt::format("# {} waits for a {} of {}: {} is in force, the files have {}\n", one.key,
                        one.Takes(), one.daemon, one.running, one.files);
  }
  return head + "\n";
}

Result<int> ShowEffective(const Shared& shared, bool plain) {
  const std::string path = CRISP_TRY(SettingsPath(shared));
  const settings::Settings files = CRISP_TRY(settings::Load(path));
  const std::optional<InForce> in_force = CRISP_TRY(AskTheNode(shared, files));
  if (!in_force) return Show(shared, files, plain);
  return Show(shared, in_force->settings, plain, HeadOf(*in_force, path));
}

Result<int> ShowPending(const Shared& shared) {
  const std::string path = CRISP_TRY(SettingsPath(shared));
  const settings::Settings files = CRISP_TRY(settings::Load(path));
  const Endpoint endpoint = CRISP_TRY(FindEndpoint(shared.socket, shared.config));
  const InForce in_force = CRISP_TRY(AskInForce(endpoint, files));
  if (shared.json()) {
    nlohmann::json list = nlohmann::json::array();
    for (const PendingKey& one : in_force.pending) {
      list.push_back({{"daemon", one.daemon},
                      {"key", one.key},
                      {"running", one.running},
                      {"files", one.files},
                      {"takes", one.Takes()}});
    }
    Print(list.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
    return kDone;
  }
  Table table({"DAEMON", "KEY", "IN FORCE", "FILES", "WAITS FOR"});
  for (const PendingKey& one : in_force.pending) {
    table.Add({one.daemon, one.key, one.running, one.files, std::string(one.Takes())});
  }
  Print(table.Render());
  return kDone;
}

Result<int> ShowDiff(const Shared& shared) {
  const std::string path = CRISP_TRY(SettingsPath(shared));
  const auto differences = settings::Differences(CRISP_TRY(settings::Load(path)));
  if (shared.json()) {
    nlohmann::json list = nlohmann::json::array();
    for (const settings::Difference& one : differences) {
      list.push_back({{"key", one.Key()}, {"value", one.value}, {"default", one.initial}});
    }
    Print(list.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
    return kDone;
  }
  Table table({"KEY", "VALUE", "DEFAULT"});
  for (const settings::Difference& one : differences) {
    table.Add({one.Key(), one.value, one.initial.empty() ? "-" : one.initial});
  }
  Print(table.Render());
  return kDone;
}

/// The settings file that a path on the command line stands for.
Result<std::string> SettingsFileOf(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  if (!os::IsDirectory(path)) return path;
  if (os::Exists(path + "/crisp.yaml") || os::IsDirectory(path + "/crisp.yaml.d")) {
    return path + "/crisp.yaml";
  }
  if (path.ends_with(".d")) return path.substr(0, path.size() - 2);
  return NotFound("{}: there is no crisp.yaml in it, and it is no crisp.yaml.d", path);
}

Result<int> Check(const Shared& shared, const std::string& given) {
  const std::string path = CRISP_TRY(given.empty() ? SettingsPath(shared) : SettingsFileOf(given));
  // A directory of drop-ins may be there without the file that they go over.
  const bool drop_ins_only = !os::Exists(path) && os::IsDirectory(path + ".d");
  const auto settings =
      CRISP_TRY(drop_ins_only ? settings::LoadDropIns(path) : settings::Load(path));
  // The files that it names are the daemons' to judge.
  const Status files =
      drop_ins_only ? NotFound("there is no {}", path) : CheckByDaemons(path, shared.program_dir);
  if (!files.ok() && files.code() != Code::kNotFound) return files;
  Print(
      fmt::format("{} is in order; {} keys are not the defaults: 'crispctl --config {} config "
                  "diff' shows them",
                  path, settings::Differences(settings).size(), path));
  if (!files.ok()) Print("The files that it names were not looked at: " + files.message());
  for (const UnitDropIn& one : UnitDropIns(settings)) {
    Print(
        fmt::format("under systemd {} has to be told of other places than the shipped ones: "
                    "'crispctl --config {} config units'",
                    one.unit, path));
  }
  return kDone;
}

/// A drop-in that is not needed any more goes.
Status WriteUnits(const std::vector<UnitDropIn>& drop_ins, const std::string& directory) {
  for (const char* unit : {"crisp-crid.socket", "crisp-crid.service", "crisp-imaged@.service"}) {
    const std::string file = fmt::format("{}/{}.d/{}", directory, unit, kUnitDropIn);
    const auto one = std::find_if(drop_ins.begin(), drop_ins.end(),
                                  [&](const UnitDropIn& each) { return each.unit == unit; });
    if (one == drop_ins.end()) {
      if (os::Exists(file)) CRISP_TRY(os::RemoveFile(file));
      continue;
    }
    CRISP_TRY(os::MakeDirs(fmt::format("{}/{}.d", directory, unit)));
    CRISP_TRY(os::WriteFileAtomic(file, std::string(kUnitHead) + one->text, 0644, /*sync=*/true));
  }
  return {};
}

Result<int> Units(const Shared& shared, const std::string& directory) {
  const std::string path = CRISP_TRY(SettingsPath(shared));
  const auto drop_ins = UnitDropIns(CRISP_TRY(settings::Load(path)));
  if (!directory.empty()) {
    CRISP_TRY(WriteUnits(drop_ins, directory));
    Print(
        fmt::format("{} drop-ins are in {}; 'systemctl daemon-reload' and 'systemctl restart "
                    "crisp.target' for systemd and the daemons to take them",
                    drop_ins.size(), directory));
    return kDone;
  }
  if (drop_ins.empty()) Print("the units need not be told of anything");
  for (const UnitDropIn& one : drop_ins) {
    Print(fmt::format("# {}.d/{}\n{}", one.unit, kUnitDropIn, one.text));
  }
  return kDone;
}

/// Puts `text` in the place of `old` (empty: there was no file), unless the daemons refuse it.
Status Replace(const Shared& shared, const std::string& path, const std::string& file,
               const std::string& old, const std::string& text) {
  CRISP_TRY(os::WriteFileAtomic(file, text, 0644, /*sync=*/true));
  Status checked = CheckByDaemons(path, shared.program_dir);
  if (checked.ok() || checked.code() == Code::kNotFound) return Status::Ok();
  CRISP_TRY(old.empty() ? os::RemoveFile(file) : os::WriteFileAtomic(file, old, 0644, true));
  return checked;
}

Result<int> Set(const Shared& shared, const std::string& key, const std::string& value) {
  const std::string path = CRISP_TRY(SettingsPath(shared));
  const std::string directory = path + ".d";
  const std::string file = fmt::format("{}/{}", directory, kOurDropIn);
  const settings::KeyFacts facts = CRISP_TRY(settings::FindKey(key));
  const std::string old = os::Exists(file) ? CRISP_TRY(os::ReadFile(file)) : std::string();
  const std::string text = std::string(kOurHead) +
                           CRISP_TRY(config::WithValue(old, facts.path, value).While("{}", file));
  // As a whole: what a daemon would refuse does not stay.
  CRISP_TRY(settings::LoadWith(path, kOurDropIn, text));
  CRISP_TRY(os::MakeDirs(directory));
  CRISP_TRY(Replace(shared, path, file, old, text));
  Print(fmt::format("{} is set in {}; for the daemons to take it: {}", key, file, facts.cost));
  return kDone;
}

int ExitCode(const Result<int>& done) {
  if (done.ok()) return *done;
  // The node whose settings they are.
  return done.code() == Code::kUnavailable ? TellNotReached(done.status()) : Tell(done.status());
}

}  // namespace

void AddConfigCommands(CLI::App& app, Shared& shared) {
  CLI::App* config = app.add_subcommand(
      "config", "The configuration: what is in force, what is wrong with it, and changes");
  const auto plain = std::make_shared<bool>(false);
  config->add_flag("--plain", *plain, "Without comments");
  config->callback([config, &shared, plain] {
    if (config->get_subcommands().empty())
      shared.exit_code = ExitCode(ShowEffective(shared, *plain));
  });

  CLI::App* effective = config->add_subcommand(
      "effective",
      "The configuration in force, as the daemons have it (without them: what the files say), with "
      "what each key means and which keys wait for a reload or a restart; also config alone");
  effective->add_flag("--plain", *plain, "Without comments");
  effective->callback(
      [&shared, plain] { shared.exit_code = ExitCode(ShowEffective(shared, *plain)); });

  CLI::App* initial =
      config->add_subcommand("default", "The defaults: what the shipped crisp.yaml says");
  initial->add_flag("--plain", *plain, "Without comments");
  initial->callback([&shared, plain] {
    shared.exit_code = ExitCode(Show(shared, settings::Settings(), *plain));
  });

  const auto running = std::make_shared<bool>(false);
  CLI::App* diff = config->add_subcommand("diff", "Which keys are not the defaults");
  diff->add_flag("--running", *running,
                 "Which keys of the files the running daemons do not have yet, and whether they "
                 "wait for a reload or a restart");
  diff->callback([&shared, running] {
    shared.exit_code = ExitCode(*running ? ShowPending(shared) : ShowDiff(shared));
  });

  const auto path = std::make_shared<std::string>();
  CLI::App* check = config->add_subcommand(
      "check",
      "Whether the daemons would take a configuration and the files that it names (exit 1: no, and "
      "why)");
  check->add_option("FILE", *path, "A settings file with its .d directory, or a directory of one")
      ->type_name("FILE");
  check->callback([&shared, path] { shared.exit_code = ExitCode(Check(shared, *path)); });

  const auto directory = std::make_shared<std::string>();
  CLI::App* units = config->add_subcommand(
      "units", "What systemd's units must be told of places that are not the shipped ones");
  units
      ->add_option("--write", *directory,
                   "Write the drop-ins below this directory, as /etc/systemd/system, and take away "
                   "those that are not needed any more")
      ->type_name("DIR");
  units->callback([&shared, directory] { shared.exit_code = ExitCode(Units(shared, *directory)); });

  const auto key = std::make_shared<std::string>();
  const auto value = std::make_shared<std::string>();
  CLI::App* set = config->add_subcommand(
      "set", "Change a key in crisp.yaml.d/90-crispctl.yaml, if the daemons would take it");
  set->add_option("KEY", *key, "As rund.default_umask, rund.runtimes.kata.path")->required();
  set->add_option("VALUE", *value, "As YAML: debug, '[a, b]'; null takes a runtime away")
      ->required();
  set->callback([&shared, key, value] { shared.exit_code = ExitCode(Set(shared, *key, *value)); });

  AddConvertCommand(*config, shared);
}

}  // namespace crisp::ctl
