#include "libs/settings/settings.h"

#include <algorithm>
#include <functional>

#include "libs/base/check.h"
#include "libs/base/text.h"
#include "libs/base/try.h"
#include "libs/config/schema.h"
#include "libs/config/yaml_edit.h"
#include "libs/settings/schema.h"

namespace crisp::settings {
namespace {

using config::Schema;

/// An OCI runtime's or an instance's name: a path component and a label.
Status CheckName(const std::string& name) {
  if (name.empty() || name.size() > 63) return InvalidArgument("'{}' is no name", name);
  for (const char c : name) {
    if ((c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.') {
      return InvalidArgument("'{}' is no name (a-z, 0-9, '-', '.')", name);
    }
  }
  if (name.front() == '.' || name.front() == '-') return InvalidArgument("'{}' is no name", name);
  return Status::Ok();
}

constexpr std::string_view kHead =
    "# crisp's settings, one file for all daemons: the defaults. Keys may be left out. What is in\n"
    "# crisp.yaml.d/*.yaml comes over this file, in the order of the names. An unknown key fails "
    "the\n"
    "# start by name.\n\n";

/// The schema knows the defaults; the values are then those of `settings`.
std::string DumpOf(const Settings& settings, bool commented) {
  Settings copy;
  const Schema schema = MakeSchema(copy);
  copy = settings;
  return schema.Dump(commented);
}

}  // namespace

Status Settings::Validate() const {
  if (rund.streaming_tls_cert.empty() != rund.streaming_tls_key.empty()) {
    return InvalidArgument(
        "rund.streaming_tls_cert and rund.streaming_tls_key: one is of no use without the other");
  }
  if (rund.log_rate > Bytes(0) && rund.log_rate < kMinLogRate) {
    return InvalidArgument("rund.log_rate: {} bytes a second are too few: 0 or at least {}",
                           rund.log_rate.count(), kMinLogRate.count());
  }
  if (rund.runtimes.empty()) return InvalidArgument("rund.runtimes: none is left");
  for (const auto& [name, runtime] : rund.runtimes) {
    CRISP_TRY(CheckName(name).While("rund.runtimes.{}", name));
    if (runtime.path.empty()) return InvalidArgument("rund.runtimes.{}.path: has no value", name);
    for (const auto& [other, its] : rund.runtimes) {
      if (other < name && !its.root.empty() && its.root == runtime.root &&
          its.path != runtime.path) {
        return InvalidArgument("rund.runtimes.{}.root: '{}' has it too, which is another program",
                               name, other);
      }
    }
  }
  if (!rund.runtimes.contains(rund.default_runtime)) {
    std::vector<std::string> names;
    for (const auto& [name, runtime] : rund.runtimes) names.push_back(name);
    return InvalidArgument("rund.default_runtime: '{}' is none of rund.runtimes ({})",
                           rund.default_runtime, fmt::join(names, ", "));
  }
  if (state_root == run_root) return InvalidArgument("state_root and run_root are the same");
  if (netd.conf_dirs.empty()) return InvalidArgument("netd.conf_dirs: none is left");
  if (netd.bin_dirs.empty()) return InvalidArgument("netd.bin_dirs: none is left");
  // sockaddr_un has 107 characters; the longest of ours is that of a 32-character instance.
  const std::string longest = MetricsSocket("imaged", std::string(32, 'x'));
  if (longest.size() > 107) {
    return InvalidArgument("run_root: '{}' is too long for the sockets below it", run_root);
  }
  // One less: it gets its name when it is ready, and has a longer one before.
  if (Resolved().crid.socket.size() > 106) {
    return InvalidArgument("crid.socket: '{}' is too long for a socket", crid.socket);
  }
  return Status::Ok();
}

Settings Settings::Resolved() const {
  Settings resolved = *this;
  if (resolved.crid.socket.empty()) resolved.crid.socket = run_root + "/crisp.sock";
  return resolved;
}

std::string Settings::Socket(std::string_view service, std::string_view instance) const {
  return fmt::format("{}/{}/{}.sock", run_root, service, instance);
}

std::string Settings::MetricsSocket(std::string_view service, std::string_view instance) const {
  return fmt::format("{}/{}/{}.metrics.sock", run_root, service, instance);
}

Result<std::string> Settings::RuntimeRoot(const std::string& name,
                                          std::string_view instance) const {
  const auto found = rund.runtimes.find(name);
  if (found == rund.runtimes.end()) return NotFound("no runtime handler '{}'", name);
  if (!found->second.root.empty()) return found->second.root;
  return fmt::format("{}/rund/{}/runtimes/{}", run_root, instance, name);
}

namespace {

/// Reads with `read`, then looks at the whole.
Result<Loaded> LoadBy(const std::function<Status(const Schema&)>& read, const std::string& name) {
  Settings settings;
  const Schema schema = MakeSchema(settings);
  CRISP_TRY(read(schema));
  Loaded loaded{settings.Resolved(), schema.Fingerprint(), schema.AllPlaces()};
  if (const Status valid = settings.Validate(); !valid.ok()) {
    Status located = loaded.Located(valid);
    return located.message() == valid.message() ? valid.While("{}", name) : located;
  }
  return loaded;
}

}  // namespace

Status Loaded::Located(Status error) const {
  if (error.ok()) return error;
  const std::string_view message = error.message();
  const std::string place = config::PlaceOf(places, message.substr(0, message.find_first_of(": ")));
  if (place.empty()) return error;
  return std::move(error).While("{}", place);
}

Result<Loaded> LoadFingerprinted(const std::string& path) {
  return LoadBy(
      [&path](const Schema& schema) { return schema.LoadFiles(path, path == kDefaultPath); }, path);
}

Result<Settings> Load(const std::string& path) {
  return CRISP_TRY(LoadFingerprinted(path)).settings;
}

Result<Settings> LoadWith(const std::string& path, const std::string& name,
                          const std::string& text) {
  const auto read = [&](const Schema& schema) {
    return schema.LoadFiles(path, path == kDefaultPath, config::Texts{{name, text}});
  };
  return CRISP_TRY(LoadBy(read, path)).settings;
}

Result<Settings> LoadDropIns(const std::string& path) {
  const auto read = [&path](const Schema& schema) {
    return schema.LoadFiles(path, /*optional=*/true);
  };
  return CRISP_TRY(LoadBy(read, path)).settings;
}

Result<Settings> Parse(std::string_view yaml, const std::string& name) {
  const auto read = [&](const Schema& schema) { return schema.LoadText(yaml, name); };
  return CRISP_TRY(LoadBy(read, name)).settings;
}

Status CheckPart(std::string_view yaml, const std::string& name) {
  Settings settings;
  return MakeSchema(settings).LoadText(yaml, name);
}

std::string DumpCommented(const Settings& settings) {
  return std::string(kHead) + DumpOf(settings, true);
}

std::string Dump(const Settings& settings) { return DumpOf(settings, false); }

std::string DumpWhole(const Settings& settings) {
  std::string text = Dump(settings);
  for (const Difference& one : Differences(settings)) {
    if (one.value != "null") continue;
    Result<std::string> with = config::WithValue(text, one.path, one.value);
    CRISP_CHECK(with.ok());  // it is our own text
    text = *std::move(with);
  }
  return text;
}

std::string Reference() {
  Settings settings;
  std::string out;
  for (const config::Key& key : MakeSchema(settings).Keys()) {
    if (key.section) {
      out += fmt::format("## {}\n\n{}\n\n", EscapeMarkdown(key.path), EscapeMarkdown(key.doc.text));
      continue;
    }
    std::vector<std::string> facts;
    if (!key.initial.empty())
      facts.push_back(fmt::format("Default: {}.", EscapeMarkdown(key.initial)));
    if (!key.doc.unit.empty()) facts.push_back(fmt::format("Unit: {}.", key.doc.unit));
    if (!key.doc.allowed.empty()) facts.push_back(fmt::format("Values: {}.", key.doc.allowed));
    facts.push_back(fmt::format("To change: {}.", config::CostText(key.doc.cost)));
    out += fmt::format("**{}**\n:   {}\n\n    {}\n\n", EscapeMarkdown(key.path),
                       EscapeMarkdown(key.doc.text), fmt::join(facts, " "));
  }
  return out;
}

}  // namespace crisp::settings
