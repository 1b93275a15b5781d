#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "services/imaged/registry/auth.h"

namespace crisp::imaged {

/// auth.json of the container tools and Docker's config.json: the same form, the first with
/// namespaces as keys ("quay.io/team").
struct AuthFile {
  std::map<std::string, Credentials> auths;    // by NormalizeServer of the key
  std::map<std::string, std::string> helpers;  // credHelpers, by the same
  std::map<std::string, std::string> broken;   // what is wrong with an entry, by the same
  std::string store;                           // credsStore

  /// kInvalidArgument names file and line or key, and nothing of the contents. An entry that is
  /// broken concerns its registry alone.
  static Result<AuthFile> Parse(std::string_view text, const std::string& file);
};

/// Credentials and, for errors, where they come from: "the pull request", "/run/…/auth.json",
/// "credential helper ecr-login", "none".
struct FoundCredentials {
  Credentials credentials;
  std::string source = "none";
};

/// The node's own credentials: files, read anew for each question, and the helpers that they name.
/// Any thread.
class AuthFiles {
 public:
  AuthFiles(std::vector<std::string> files, std::vector<std::string> helper_dirs)
      : files_(std::move(files)), helper_dirs_(std::move(helper_dirs)) {}

  /// For host[:port]/repository: the first file that knows it or a namespace above it, the longest
  /// first; then `helpers` (registries.conf's credential-helpers). kFailedPrecondition: a file is
  /// broken, or its entry for this registry; kNotFound, kUnavailable: a helper is missing or fails.
  /// A file's credsStore may be missing: a desktop's file was copied.
  Result<FoundCredentials> Find(const CallContext& cc, const std::string& location,
                                const std::vector<std::string>& helpers) const;

 private:
  Result<FoundCredentials> FindIn(const CallContext& cc, const std::string& file,
                                  const std::string& location) const;
  Result<FoundCredentials> Ask(const CallContext& cc, const std::string& helper,
                               const std::string& host) const;

  const std::vector<std::string> files_;
  const std::vector<std::string> helper_dirs_;
};

}  // namespace crisp::imaged
