#include "services/crispctl/convert/source.h"

#include <fmt/format.h>
#include <glob.h>

#include <algorithm>
#include <deque>
#include <filesystem>
#include <set>

#include "libs/base/try.h"
#include "libs/os/files.h"
#include "services/crispctl/convert/containerd.h"
#include "services/crispctl/convert/crio.h"

namespace crisp::ctl::convert {
namespace {

using config::TomlValue;

constexpr const char* kCrioFile = "/etc/crio/crio.conf";
constexpr const char* kContainerdFile = "/etc/containerd/config.toml";
constexpr std::int64_t kNewestVersion = 4;
constexpr std::size_t kMaxFiles = 1000;

struct Document {
  std::string file;
  TomlValue toml;
};

Result<Document> ReadDocument(const std::string& file) {
  const std::string text = CRISP_TRY(os::ReadFile(file));
  return Document{file, CRISP_TRY(config::ParseToml(text, file))};
}

/// All files below a directory in the order of their names, as CRI-O walks it. Hidden ones are not
/// for it.
Status AddFilesBelow(const std::string& directory, std::vector<std::string>& files) {
  for (const std::string& name : CRISP_TRY(os::ListDir(directory))) {
    if (name.starts_with(".")) continue;
    const std::string path = directory + "/" + name;
    if (os::IsDirectory(path)) {
      CRISP_TRY(AddFilesBelow(path, files));
    } else {
      files.push_back(path);
    }
    if (files.size() > kMaxFiles) return ResourceExhausted("{}: too many files", directory);
  }
  return Status::Ok();
}

Status AddCrioFile(const std::string& file, bool optional, std::vector<std::string>& files) {
  if (!optional || os::Exists(file)) files.push_back(file);
  const std::string directory = file + ".d";
  return os::IsDirectory(directory) ? AddFilesBelow(directory, files) : Status::Ok();
}

/// What a path on the command line stands for.
Result<std::vector<std::string>> FilesOf(const std::string& given) {
  std::string path = std::filesystem::absolute(given).lexically_normal();
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  std::vector<std::string> files;
  if (!os::IsDirectory(path)) {
    CRISP_TRY(AddCrioFile(path, /*optional=*/false, files));
  } else if (os::Exists(path + "/config.toml")) {
    files.push_back(path + "/config.toml");
  } else if (os::Exists(path + "/crio.conf") || os::IsDirectory(path + "/crio.conf.d")) {
    CRISP_TRY(AddCrioFile(path + "/crio.conf", /*optional=*/true, files));
  } else {
    CRISP_TRY(AddFilesBelow(path, files));
  }
  if (files.empty()) return NotFound("{}: there is no configuration in it", given);
  return files;
}

Result<std::vector<std::string>> UsualFiles(Runtime runtime) {
  std::vector<std::string> files;
  if (runtime == Runtime::kCrio) {
    CRISP_TRY(AddCrioFile(kCrioFile, /*optional=*/true, files));
  } else if (os::Exists(kContainerdFile)) {
    files.emplace_back(kContainerdFile);
  }
  if (files.empty()) {
    return NotFound("{} has no configuration at {}: name its file", NameOf(runtime),
                    runtime == Runtime::kCrio ? kCrioFile : kContainerdFile);
  }
  return files;
}

Result<Runtime> InstalledRuntime() {
  const bool crio = os::Exists(kCrioFile) || os::IsDirectory(std::string(kCrioFile) + ".d");
  const bool containerd = os::Exists(kContainerdFile);
  if (crio && containerd) {
    return InvalidArgument("both CRI-O and containerd have a configuration here: say --from");
  }
  if (!crio && !containerd) {
    return NotFound("there is neither {} nor {}: name a file", kCrioFile, kContainerdFile);
  }
  return crio ? Runtime::kCrio : Runtime::kContainerd;
}

Result<Runtime> RuntimeOf(const Document& document) {
  if (document.toml.Find("crio") != nullptr) return Runtime::kCrio;
  if (document.toml.Find("version") != nullptr || document.toml.Find("plugins") != nullptr) {
    return Runtime::kContainerd;
  }
  return InvalidArgument("{}: neither CRI-O's nor containerd's, as it seems: say --from",
                         document.file);
}

Status AddCrio(const std::vector<std::string>& files, Source& source) {
  for (const std::string& file : files) {
    const Document document = CRISP_TRY(ReadDocument(file));
    // A handler in a later file replaces the whole of an earlier one.
    Options later;
    later.Add(document.toml, file);
    for (const char* kind : {"runtimes", "workloads"}) {
      for (const std::string& name : later.Names(fmt::format("crio/runtime/{}/*/**", kind))) {
        source.options.Erase(fmt::format("crio/runtime/{}/{}/**", kind, name));
      }
    }
    source.options.Add(document.toml, file);
    source.files.push_back(file);
  }
  for (const Default& one : CrioDefaults()) source.options.AddDefault(one.option, one.value);
  return Status::Ok();
}

/// The files that `imports` names: relative to the file, with * as a shell has it.
Result<std::vector<std::string>> Imports(const Document& document) {
  std::vector<std::string> files;
  const TomlValue* imports = document.toml.Find("imports");
  if (imports == nullptr) return files;
  for (const TomlValue& item : imports->items) {
    std::filesystem::path path(item.text);
    if (item.text.empty()) continue;
    if (path.is_relative()) path = std::filesystem::path(document.file).parent_path() / path;
    if (item.text.find('*') == std::string::npos) {
      if (!os::Exists(path)) {
        return NotFound("{}:{}: imports: {} is not there", document.file, item.line, item.text);
      }
      files.push_back(path);
      continue;
    }
    glob_t found{};
    if (::glob(path.c_str(), 0, nullptr, &found) == 0) {
      files.insert(files.end(), found.gl_pathv, found.gl_pathv + found.gl_pathc);
    }
    ::globfree(&found);
  }
  return files;
}

Result<std::int64_t> VersionOf(const Document& document) {
  const TomlValue* version = document.toml.Find("version");
  const std::int64_t number = version == nullptr ? 1 : version->integer;
  if (number >= 2 && number <= kNewestVersion) return number;
  if (number == 1) {
    return InvalidArgument("{}: version 1 is of the past: 'containerd config migrate' makes it new",
                           document.file);
  }
  return InvalidArgument("{}:{}: version: 2 to {} are known", document.file, version->line,
                         kNewestVersion);
}

Status AddContainerd(const std::vector<std::string>& files, Source& source) {
  std::deque<std::string> pending(files.begin(), files.end());
  std::set<std::string> seen;
  std::int64_t version = 0;
  while (!pending.empty()) {
    const std::string file = std::filesystem::path(pending.front()).lexically_normal();
    pending.pop_front();
    if (!seen.insert(file).second) continue;
    if (seen.size() > kMaxFiles) return ResourceExhausted("{}: too many imports", files.front());
    const Document document = CRISP_TRY(ReadDocument(file));
    const std::int64_t own = CRISP_TRY(VersionOf(document));
    if (version == 0) version = own;
    source.options.Add(document.toml, file);
    source.files.push_back(file);
    const std::vector<std::string> imports = CRISP_TRY(Imports(document));
    pending.insert(pending.end(), imports.begin(), imports.end());
  }
  source.options.Rename(CanonicalPath);
  for (const Default& one : ContainerdDefaults(version)) {
    source.options.AddDefault(one.option, one.value);
  }
  return Status::Ok();
}

}  // namespace

std::string_view NameOf(Runtime runtime) {
  return runtime == Runtime::kCrio ? "CRI-O" : "containerd";
}

Result<Source> ReadSource(std::optional<Runtime> runtime, const std::vector<std::string>& paths) {
  Source source;
  std::vector<std::string> files;
  for (const std::string& path : paths) {
    const std::vector<std::string> more = CRISP_TRY(FilesOf(path));
    files.insert(files.end(), more.begin(), more.end());
  }
  if (paths.empty()) {
    if (!runtime) runtime = CRISP_TRY(InstalledRuntime());
    files = CRISP_TRY(UsualFiles(*runtime));
  }
  if (!runtime) {
    const Document first = CRISP_TRY(ReadDocument(files.front()));
    runtime = CRISP_TRY(RuntimeOf(first));
  }
  source.runtime = *runtime;
  CRISP_TRY(*runtime == Runtime::kCrio ? AddCrio(files, source) : AddContainerd(files, source));
  return source;
}

}  // namespace crisp::ctl::convert
