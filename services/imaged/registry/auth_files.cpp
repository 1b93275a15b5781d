#include "services/imaged/registry/auth_files.h"

#include "libs/base/try.h"
#include "libs/json/json.h"
#include "libs/log/log.h"
#include "libs/os/files.h"
#include "services/imaged/registry/credential_helper.h"

namespace crisp::imaged {
namespace {

/// In a list of helpers: the auth files themselves.
constexpr std::string_view kAuthFilesHelper = "containers-auth.json";

Result<Credentials> ParseEntry(const nlohmann::json& entry) {
  Credentials credentials;
  credentials.username = CRISP_TRY(json::OptString(entry, "username"));
  credentials.password = CRISP_TRY(json::OptString(entry, "password"));
  credentials.identity_token = CRISP_TRY(json::OptString(entry, "identitytoken"));
  credentials.registry_token = CRISP_TRY(json::OptString(entry, "registrytoken"));
  const std::string auth = CRISP_TRY(json::OptString(entry, "auth"));
  // Docker writes an auth with an empty password beside an identity token.
  if (credentials.username.empty() && !auth.empty()) CRISP_TRY(DecodeBasic(auth, credentials));
  return credentials;
}

/// "a/b/c", "a/b", "a".
std::vector<std::string> SelfAndAbove(std::string location) {
  std::vector<std::string> all;
  while (true) {
    all.push_back(location);
    const std::size_t slash = location.rfind('/');
    if (slash == std::string::npos) return all;
    location.resize(slash);
  }
}

}  // namespace

Result<AuthFile> AuthFile::Parse(std::string_view text, const std::string& file) {
  AuthFile parsed;
  const nlohmann::json json = CRISP_TRY(json::ParseFile(text, file));
  const nlohmann::json auths = CRISP_TRY(json::OptObject(json, "auths").While("{}", file));
  for (const auto& [key, entry] : auths.items()) {
    if (entry.is_null()) continue;
    const Result<Credentials> credentials = ParseEntry(entry);
    const std::string server = NormalizeServer(key);
    if (!credentials.ok()) {
      parsed.broken[server] = fmt::format("auths.{}: {}", key, credentials.status().message());
    } else if (!credentials->empty()) {  // an empty one says that a helper has them
      parsed.auths[server] = *credentials;
    }
  }
  const nlohmann::json helpers = CRISP_TRY(json::OptObject(json, "credHelpers").While("{}", file));
  for (const auto& [key, helper] : helpers.items()) {
    const std::string server = NormalizeServer(key);
    if (!helper.is_string()) {
      parsed.broken[server] = fmt::format("credHelpers.{}: a string is expected", key);
    } else if (helper != "") {  // that is the file itself
      parsed.helpers[server] = helper.get<std::string>();
    }
  }
  parsed.store = CRISP_TRY(json::OptString(json, "credsStore").While("{}", file));
  return parsed;
}

Result<FoundCredentials> AuthFiles::Ask(const CallContext& cc, const std::string& helper,
                                        const std::string& host) const {
  // The name under which Docker's tools keep the Hub's.
  const std::string server = host == "docker.io" ? "https://index.docker.io/v1/" : host;
  auto answer = CRISP_TRY(AskCredentialHelper(cc, helper_dirs_, helper, server));
  if (!answer) return FoundCredentials();
  return FoundCredentials{*std::move(answer), "credential helper " + helper};
}

Result<FoundCredentials> AuthFiles::FindIn(const CallContext& cc, const std::string& file,
                                           const std::string& location) const {
  const Result<std::string> text = os::ReadFile(file);
  if (text.code() == Code::kNotFound) return FoundCredentials();
  if (!text.ok()) return FailedPrecondition("auth file {}", text.status().message());
  Result<AuthFile> parsed = AuthFile::Parse(*text, file);
  if (!parsed.ok()) return FailedPrecondition("auth file {}", parsed.status().message());
  const std::string host = location.substr(0, location.find('/'));
  for (const std::string& key : SelfAndAbove(location)) {
    if (const auto wrong = parsed->broken.find(key); wrong != parsed->broken.end())
      return FailedPrecondition("auth file {}: {}", file, wrong->second);
    if (const auto helper = parsed->helpers.find(key); helper != parsed->helpers.end()) {
      FoundCredentials found = CRISP_TRY(Ask(cc, helper->second, host));
      if (!found.credentials.empty()) return found;
    }
    if (const auto auth = parsed->auths.find(key); auth != parsed->auths.end())
      return FoundCredentials{auth->second, file};
  }
  if (parsed->store.empty()) return FoundCredentials();
  Result<FoundCredentials> stored = Ask(cc, parsed->store, host);
  if (stored.code() != Code::kNotFound) return stored;
  log::Debug("an auth file's credsStore is not here",
             {{"file", file}, {"error", stored.status().message()}});
  return FoundCredentials();
}

Result<FoundCredentials> AuthFiles::Find(const CallContext& cc, const std::string& location,
                                         const std::vector<std::string>& helpers) const {
  const auto in_files = [&]() -> Result<FoundCredentials> {
    for (const std::string& file : files_) {
      FoundCredentials found = CRISP_TRY(FindIn(cc, file, location));
      if (!found.credentials.empty()) return found;
    }
    return FoundCredentials();
  };
  if (helpers.empty()) return in_files();
  const std::string host = location.substr(0, location.find('/'));
  for (const std::string& helper : helpers) {
    FoundCredentials found =
        helper == kAuthFilesHelper ? CRISP_TRY(in_files()) : CRISP_TRY(Ask(cc, helper, host));
    if (!found.credentials.empty()) return found;
  }
  return FoundCredentials();
}

}  // namespace crisp::imaged
