#include "services/imaged/registry/credential_helper.h"

#include <unistd.h>

#include "libs/base/try.h"
#include "libs/json/json.h"
#include "libs/os/files.h"
#include "libs/process/command.h"

namespace crisp::imaged {
namespace {

constexpr std::chrono::seconds kHelperTime{30};
/// What helpers say, by the protocol, when they do not know the registry.
constexpr std::string_view kNothingFound = "credentials not found in native keychain";

Result<std::string> FindHelper(const std::vector<std::string>& dirs, const std::string& name) {
  if (name.empty() || name.find('/') != std::string::npos)
    return InvalidArgument("'{}' is no name of a credential helper", name);
  for (const std::string& dir : dirs) {
    std::string path = dir + "/docker-credential-" + name;
    if (os::Exists(path)) return path;
  }
  return NotFound("there is no docker-credential-{} in {}", name, fmt::join(dirs, ", "));
}

}  // namespace

Result<std::optional<Credentials>> AskCredentialHelper(const CallContext& cc,
                                                       const std::vector<std::string>& dirs,
                                                       const std::string& name,
                                                       const std::string& server) {
  process::Command command;
  command.program = CRISP_TRY(FindHelper(dirs, name));
  command.args = {"get"};
  for (char** each = environ; *each != nullptr; ++each) command.env.emplace_back(*each);
  command.stdin_data = server;
  const process::Output output =
      CRISP_TRY(process::Run(cc.Within(kHelperTime), command, {.max_output = KiB(256)})
                    .While("credential helper {}", name));
  if (output.exit_code != 0) {
    if (output.out.find(kNothingFound) != std::string::npos) return std::optional<Credentials>();
    return Unavailable("the credential helper {} ends with code {}", name, output.exit_code);
  }
  const Result<nlohmann::json> json = json::Parse(output.out);
  if (!json.ok()) return Unavailable("the credential helper {} does not answer JSON", name);
  const std::string username = json::OptString(*json, "Username").value_or("");
  const std::string secret = json::OptString(*json, "Secret").value_or("");
  if (username.empty() && secret.empty()) return std::optional<Credentials>();
  Credentials credentials;
  if (username == "<token>") {
    credentials.identity_token = secret;
  } else {
    credentials.username = username;
    credentials.password = secret;
  }
  if (credentials.empty())
    return Unavailable("the credential helper {} answers without a user", name);
  return std::optional<Credentials>(std::move(credentials));
}

}  // namespace crisp::imaged
