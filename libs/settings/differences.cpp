#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "libs/base/try.h"
#include "libs/config/schema.h"
#include "libs/settings/schema.h"
#include "libs/settings/settings.h"

namespace crisp::settings {
namespace {

using Path = std::vector<std::string>;

std::vector<config::KeyValue> ValuesOf(const Settings& settings) {
  Settings copy = settings;
  if (copy.crid.socket == Settings{.run_root = copy.run_root}.Resolved().crid.socket) {
    copy.crid.socket.clear();
  }
  return MakeSchema(copy).Values();
}

/// What the keys of an entry are that no file speaks of.
bool IsNothing(const std::string& text) {
  return text == "\"\"" || text == "[]" || text == "false";
}

/// {"rund", "runtimes", "crun", "path"}: of an entry of a map.
Path EntryOf(const Path& path) { return {path.begin(), path.end() - 1}; }

}  // namespace

std::string Difference::Key() const { return fmt::format("{}", fmt::join(path, ".")); }

std::vector<Difference> Differences(const Settings& settings) {
  std::map<Path, std::string> initial;
  for (config::KeyValue& one : ValuesOf(Settings())) initial[one.path] = std::move(one.text);
  std::vector<Difference> differences;
  for (config::KeyValue& one : ValuesOf(settings)) {
    const auto known = initial.find(one.path);
    const bool same = known == initial.end() ? IsNothing(one.text) : known->second == one.text;
    std::string before = known == initial.end() ? "" : known->second;
    if (known != initial.end()) initial.erase(known);
    if (!same) differences.push_back({std::move(one.path), std::move(one.text), std::move(before)});
  }
  // What is left belongs to entries that are no longer there.
  for (const auto& [path, text] : initial) {
    const Path entry = EntryOf(path);
    if (!differences.empty() && differences.back().path == entry) continue;
    differences.push_back({entry, "null", ""});
  }
  return differences;
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
