#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "libs/base/result.h"
#include "libs/settings/settings.h"

// What goes into a bug report has no secrets in it: what is known to hold some (environments,
// annotations, credentials) loses its values, and every text is looked over for what looks like
// one.
namespace crisp::ctl::debug {

/// Stands where a value was.
inline constexpr std::string_view kRedacted = "<redacted>";

/// Without passwords in URLs, tokens, Authorization headers, words like password=..., and PEM
/// blocks of private keys.
std::string RedactText(std::string_view text);

/// Environments keep their names, annotations their keys; members whose name says that they are
/// secret lose their value; all texts are looked over.
nlohmann::json RedactJson(const nlohmann::json& value);
/// The same for a document; JSON in a text of it (as "info" of the CRI's verbose answers) is
/// opened. kInvalidArgument: it is no JSON, so that nobody knows what is in it.
Result<std::string> RedactDocument(const std::string& text);

/// The values of environments are taken out.
settings::Settings RedactSettings(settings::Settings settings);

}  // namespace crisp::ctl::debug
