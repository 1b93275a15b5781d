#include "services/crispctl/convert/draft.h"

#include <fmt/format.h>

#include <algorithm>

#include "libs/base/try.h"
#include "libs/config/yaml_edit.h"
#include "libs/settings/settings.h"
#include "services/crispctl/convert/values.h"

namespace crisp::ctl::convert {
namespace {

constexpr const char* kName = "crisp.yaml";

/// Text of a comment: one line.
std::string OneLine(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') c = ' ';
  }
  return text;
}

}  // namespace

Status Draft::Set(const Path& key, const std::string& value, const Option& from) {
  const std::string alone = CRISP_TRY(config::WithValue("", key, value));
  if (Status fits = settings::CheckPart(alone, kName); !fits.ok()) {
    // "crisp.yaml:1: key: why": the place is in no file yet.
    const std::string& message = fits.message();
    const std::size_t colon = message.find(": ");
    return InvalidArgument("{}", colon == message.npos ? message : message.substr(colon + 2));
  }
  yaml_ = CRISP_TRY(config::WithValue(yaml_, key, value));
  std::string& origin = origins_[key];
  origin += fmt::format("{}{}, {}", origin.empty() ? "" : "; ", from.Name(), from.Where());
  return Status::Ok();
}

Status Draft::Append(const Path& key, const std::string& entry, const Option& from) {
  std::vector<std::string> list = lists_[key];
  if (std::find(list.begin(), list.end(), entry) == list.end()) list.push_back(entry);
  CRISP_TRY(Set(key, YamlList(list), from));
  lists_[key] = std::move(list);
  return Status::Ok();
}

Result<std::string> Draft::Render(std::string_view head) const {
  const settings::Settings settings = CRISP_TRY(settings::Parse(yaml_, kName));
  std::string out(head);
  Path open;  // the sections that the last line is in
  for (const settings::Difference& one : settings::Differences(settings)) {
    const Path sections(one.path.begin(), one.path.end() - 1);
    const auto shared = std::mismatch(open.begin(), open.end(), sections.begin(), sections.end());
    for (auto it = shared.second; it != sections.end(); ++it) {
      const auto depth = static_cast<std::size_t>(it - sections.begin());
      out += fmt::format("{:{}}{}:\n", "", depth * 2, *it);
    }
    open = sections;
    const std::size_t indent = sections.size() * 2;
    if (const auto origin = origins_.find(one.path); origin != origins_.end()) {
      out += fmt::format("{:{}}# {}\n", "", indent, OneLine(origin->second));
    }
    out += fmt::format("{:{}}{}: {}\n", "", indent, one.path.back(), one.value);
  }
  // What is written is what was looked at.
  CRISP_TRY(settings::Parse(out, kName));
  return out;
}

Draft::Path KeyPath(std::string_view key, const std::string& name) {
  Draft::Path path;
  while (!key.empty()) {
    const std::string_view part = key.substr(0, key.find('.'));
    path.emplace_back(part == "*" ? std::string_view(name) : part);
    key.remove_prefix(std::min(key.size(), part.size() + 1));
  }
  return path;
}

}  // namespace crisp::ctl::convert
