#include "services/rund/spec/hooks.h"

#include <algorithm>
#include <regex>

#include "libs/base/try.h"
#include "libs/json/json.h"
#include "libs/os/files.h"

namespace crisp::rund {
namespace {

using nlohmann::json;

constexpr Bytes kMaxFile = KiB(256);
constexpr std::size_t kMaxPattern = 1024;
constexpr std::size_t kMaxSubject = 256;

Result<json> ParseHook(const json& given) {
  json hook = json::object();
  hook["path"] = CRISP_TRY(crisp::json::GetString(given, "path"));
  if (!hook["path"].get_ref<const std::string&>().starts_with('/')) {
    return InvalidArgument("path is not absolute");
  }
  for (const char* key : {"args", "env"}) {
    if (const auto texts = CRISP_TRY(crisp::json::OptStrings(given, key)); !texts.empty()) {
      hook[key] = texts;
    }
  }
  if (given.contains("timeout")) {
    const std::int64_t timeout = CRISP_TRY(crisp::json::GetInt(given, "timeout"));
    if (timeout <= 0) return InvalidArgument("timeout is {}", timeout);
    hook["timeout"] = timeout;
  }
  return hook;
}

Status ParseWhen(const json& when, HookFile& file) {
  for (const auto& [key, unused] : when.items()) {
    if (key != "always" && key != "annotations" && key != "commands" && key != "hasBindMounts") {
      return InvalidArgument("unknown condition \"{}\"", key);
    }
  }
  file.has_always = when.contains("always");
  file.always = CRISP_TRY(crisp::json::OptBool(when, "always"));
  file.has_bind_mounts = when.contains("hasBindMounts");
  file.bind_mounts = CRISP_TRY(crisp::json::OptBool(when, "hasBindMounts"));
  for (const std::string& pattern : CRISP_TRY(crisp::json::OptStrings(when, "commands"))) {
    file.commands.push_back(CRISP_TRY(Pattern::Compile(pattern)));
  }
  const json annotations = CRISP_TRY(crisp::json::OptObject(when, "annotations"));
  for (const auto& [key, value] : annotations.items()) {
    if (!value.is_string()) return InvalidArgument("annotations: a pattern is not a text");
    Pattern of_key = CRISP_TRY(Pattern::Compile(key));
    Pattern of_value = CRISP_TRY(Pattern::Compile(value.get_ref<const std::string&>()));
    file.annotations.emplace_back(std::move(of_key), std::move(of_value));
  }
  if (when.empty()) return InvalidArgument("no condition at all");
  return Status::Ok();
}

}  // namespace

struct Pattern::Compiled {
  std::regex regex;
};

Result<Pattern> Pattern::Compile(const std::string& text) {
  if (text.size() > kMaxPattern) {
    return InvalidArgument("a pattern is longer than {} characters", kMaxPattern);
  }
  Pattern pattern;
  try {
    pattern.compiled_ = std::make_shared<const Compiled>(Compiled{std::regex(text)});
  } catch (const std::regex_error&) {
    return InvalidArgument("\"{}\" is not a regular expression", text);
  }
  return pattern;
}

bool Pattern::Matches(std::string_view text) const {
  text = text.substr(0, kMaxSubject);
  try {
    return std::regex_search(text.begin(), text.end(), compiled_->regex);
  } catch (const std::regex_error&) {
    return false;  // too complex for this text
  }
}

Result<HookFile> HookFile::Parse(std::string_view text) {
  json root = CRISP_TRY(crisp::json::Parse(text));
  DropNulls(root);
  const std::string version = CRISP_TRY(crisp::json::GetString(root, "version"));
  if (version != "1.0.0") return InvalidArgument("version \"{}\" is not 1.0.0", version);
  HookFile file;
  const json hook = CRISP_TRY(crisp::json::GetObject(root, "hook"));
  file.hook = CRISP_TRY(ParseHook(hook).While("hook"));
  const json when = CRISP_TRY(crisp::json::GetObject(root, "when"));
  CRISP_TRY(ParseWhen(when, file).While("when"));
  file.stages = CRISP_TRY(crisp::json::OptStrings(root, "stages"));
  if (file.stages.empty()) return InvalidArgument("stages is empty");
  for (const std::string& stage : file.stages) {
    if (std::find(kHookStages.begin(), kHookStages.end(), stage) == kHookStages.end()) {
      return InvalidArgument("unknown stage \"{}\"", stage);
    }
  }
  return file;
}

bool HookFile::Matches(const HookSubject& subject) const {
  if (has_always && !always) return false;
  if (has_bind_mounts && bind_mounts != subject.bind_mounts) return false;
  for (const auto& [key_pattern, value_pattern] : annotations) {
    const bool found = std::any_of(subject.annotations.begin(), subject.annotations.end(),
                                   [&key = key_pattern, &value = value_pattern](const auto& item) {
                                     return key.Matches(item.first) && value.Matches(item.second);
                                   });
    if (!found) return false;
  }
  return commands.empty() ||
         std::any_of(commands.begin(), commands.end(), [&subject](const Pattern& pattern) {
           return pattern.Matches(subject.command);
         });
}

Result<std::shared_ptr<const HookDirs::Parsed>> HookDirs::Current() const {
  std::vector<SpecFile> files = ListSpecFiles(directories_, {".json"});
  {
    auto cache = cache_.lock();
    if (cache->parsed != nullptr && cache->files == files) return cache->parsed;
  }
  auto parsed = std::make_shared<Parsed>();
  for (const SpecFile& file : files) {
    const std::string text = CRISP_TRY(os::ReadFile(file.path, kMaxFile).While("hook file"));
    parsed->insert_or_assign(file.name,
                             CRISP_TRY(HookFile::Parse(text).While("hook file {}", file.path)));
  }
  auto cache = cache_.lock();
  cache->files = std::move(files);
  cache->parsed = std::move(parsed);
  return cache->parsed;
}

Status HookDirs::Apply(const HookSubject& subject, json& spec) const {
  const std::shared_ptr<const Parsed> parsed = CRISP_TRY(Current());
  for (const auto& [name, file] : *parsed) {
    if (!file.Matches(subject)) continue;
    for (const std::string& stage : file.stages) spec["hooks"][stage].push_back(file.hook);
  }
  return Status::Ok();
}

}  // namespace crisp::rund
