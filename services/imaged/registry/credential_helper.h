#pragma once

#include <optional>
#include <string>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "services/imaged/registry/auth.h"

namespace crisp::imaged {

/// Asks `docker-credential-<name>`, found in one of `dirs`, for a registry's credentials; nothing
/// when it has none. This is the one place of imaged that starts a program. The program gets our
/// environment (cloud helpers need theirs). kNotFound: no such helper; kUnavailable: it fails or
/// answers nonsense, without a word of its output, which may hold the secret.
Result<std::optional<Credentials>> AskCredentialHelper(const CallContext& cc,
                                                       const std::vector<std::string>& dirs,
                                                       const std::string& name,
                                                       const std::string& server);

}  // namespace crisp::imaged
