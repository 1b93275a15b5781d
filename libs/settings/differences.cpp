#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "libs/base/check.h"
#include "libs/base/try.h"
#include "libs/config/schema.h"
#include "libs/config/yaml_edit.h"
#include "libs/settings/schema.h"
#include "libs/settings/settings.h"

namespace crisp::settings {
namespace {

using Path = std::vector<std::string>;

/// Takes out the paths that follow from the roots.
Settings Unresolved(Settings settings) {
  if (settings.crid.socket == Settings{.run_root = settings.run_root}.Resolved().crid.socket) {
    settings.crid.socket.clear();
  }
  return settings;
}

std::vector<config::KeyValue> ValuesOf(const Settings& settings) {
  Settings copy = Unresolved(settings);
  return MakeSchema(copy).Values();
}

std::map<Path, config::KeyValue> ValuesByPath(const Settings& settings) {
  std::map<Path, config::KeyValue> values;
  for (config::KeyValue& value : ValuesOf(settings)) values.emplace(value.path, std::move(value));
  return values;
}

std::string KeyOf(const Path& path) { return fmt::format("{}", fmt::join(path, ".")); }

/// {"rund", "runtimes", "kata"}: the entry of a map that it is in.
Path EntryOf(const config::KeyValue& value) {
  return {value.path.begin(), value.path.begin() + static_cast<std::ptrdiff_t>(value.entry)};
}

/// Keys without a section, and log's, are everybody's. netd sets the sysctls of the network.
bool Concerns(std::string_view key, std::string_view service) {
  if (key == "rund.default_sysctls" && service == "netd") return true;
  const std::string_view section = key.substr(0, key.find('.'));
  for (const std::string_view other : {"crid", "imaged", "netd", "rund"}) {
    if (section == other) return section == service;
  }
  return true;
}

}  // namespace

std::string Difference::Key() const { return KeyOf(path); }

std::vector<Difference> Differences(const Settings& settings) {
  std::map<Path, config::KeyValue> initial = ValuesByPath(Settings());
  // What the keys of an entry are that no file speaks of.
  Settings bare;
  for (const auto& [name, runtime] : settings.rund.runtimes) bare.rund.runtimes[name] = Runtime();
  const std::map<Path, config::KeyValue> nothing = ValuesByPath(bare);
  std::vector<Difference> differences;
  for (config::KeyValue& one : ValuesOf(settings)) {
    const auto known = initial.find(one.path);
    const bool is_known = known != initial.end();
    const bool same = (is_known ? known->second : nothing.at(one.path)).text == one.text;
    std::string before = is_known ? known->second.text : "";
    if (is_known) initial.erase(known);
    if (!same) differences.push_back({std::move(one.path), std::move(one.text), std::move(before)});
  }
  // What is left belongs to entries that are no longer there.
  for (const auto& [path, value] : initial) {
    const Path entry = EntryOf(value);
    if (!differences.empty() && differences.back().path == entry) continue;
    differences.push_back({entry, "null", ""});
  }
  return differences;
}

std::vector<Change> Changes(const Settings& before, const Settings& now, std::string_view service) {
  const std::map<Path, config::KeyValue> old_values = ValuesByPath(before);
  const std::map<Path, config::KeyValue> new_values = ValuesByPath(now);
  std::map<std::string, bool> live_of;
  for (const auto& [path, value] : old_values) {
    const auto found = new_values.find(path);
    if (found == new_values.end()) {
      live_of[KeyOf(EntryOf(value))] = true;
    } else if (found->second.text != value.text) {
      live_of[KeyOf(path)] = value.cost == config::Cost::kLive;
    }
  }
  for (const auto& [path, value] : new_values) {
    if (!old_values.contains(path)) live_of[KeyOf(EntryOf(value))] = true;
  }
  std::vector<Change> changes;
  for (const auto& [key, live] : live_of) {
    if (Concerns(key, service)) changes.push_back({key, live});
  }
  return changes;
}

Settings InForce(const Settings& started, const Settings& now) {
  const std::map<Path, config::KeyValue> old_values = ValuesByPath(started);
  // What waits for a restart is as it was; an entry that has come since has nothing of that kind.
  std::string kept;
  for (const auto& [path, value] : ValuesByPath(now)) {
    const auto before = old_values.find(path);
    if (value.cost == config::Cost::kLive || before == old_values.end()) continue;
    if (before->second.text == value.text) continue;
    Result<std::string> with = config::WithValue(kept, path, before->second.text);
    CRISP_CHECK(with.ok());  // it is our own text
    kept = *std::move(with);
  }
  Settings in_force = Unresolved(now);
  CRISP_CHECK(MakeSchema(in_force).LoadText(kept, "settings").ok());
  return in_force.Resolved();
}

std::optional<std::string> ValueOf(const Settings& settings, const std::string& key) {
  for (const config::KeyValue& value : ValuesOf(settings)) {
    if (KeyOf(value.path) == key) return value.text;
  }
  return std::nullopt;
}

Result<KeyFacts> FindKey(const std::string& key) {
  Settings settings;
  const config::Schema schema = MakeSchema(settings);
  // Of an entry as a whole: it is taken when the handlers are.
  KeyFacts facts{.path = CRISP_TRY(schema.PathOf(key)),
                 .cost = std::string(config::CostText(config::Cost::kLive))};
  for (const config::Key& one : schema.Keys()) {
    const Result<Path> parts = schema.PathOf(one.path);
    if (!parts.ok() || parts->size() != facts.path.size()) continue;  // a section; another depth
    // Keys() has a stand-in, <name>, for the name of an entry.
    const bool same = std::equal(parts->begin(), parts->end(), facts.path.begin(),
                                 [](const std::string& known, const std::string& asked) {
                                   return known == asked || known.starts_with('<');
                                 });
    if (same) facts.cost = config::CostText(one.doc.cost);
  }
  return facts;
}

}  // namespace crisp::settings
