#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/result.h"
#include "libs/config/toml.h"

namespace crisp::ctl::convert {

/// A value as crisp.yaml has it. kInvalidArgument says what was expected.
using ToYaml = Result<std::string> (*)(const config::TomlValue& value);

Result<std::string> Text(const config::TomlValue& value);
Result<std::string> Bool(const config::TomlValue& value);
Result<std::string> Number(const config::TomlValue& value);
/// A list of texts.
Result<std::string> List(const config::TomlValue& value);
/// One text as a list of one.
Result<std::string> ListOfOne(const config::TomlValue& value);
/// A length of time as Go writes it, as whole seconds.
Result<std::string> Seconds(const config::TomlValue& value);
/// A program: what has no path is looked for in /usr/bin.
Result<std::string> Program(const config::TomlValue& value);
/// Capabilities, without CAP_.
Result<std::string> Capabilities(const config::TomlValue& value);
/// "name=value" without the blanks that may be around them.
Result<std::string> Sysctls(const config::TomlValue& value);
/// "name=soft" means the same as "name=soft:soft".
Result<std::string> Ulimits(const config::TomlValue& value);

/// The texts of an array.
Result<std::vector<std::string>> Texts(const config::TomlValue& value);
/// "1h30m", "300ms", "0": rounded up.
Result<std::chrono::seconds> GoDuration(std::string_view text);
/// "fatal", "trace" … as crisp knows them.
Result<std::string> LogLevel(std::string_view level);
/// "10.0.0.1:443", "[::1]:443".
std::string HostPort(const std::string& host, const std::string& port);

std::string YamlText(std::string_view text);
std::string YamlList(const std::vector<std::string>& list);

/// False, empty, 0 or below: what turns an option off.
bool IsOff(const config::TomlValue& value);

/// A text, a list, a number or a truth value for a table of defaults.
config::TomlValue TomlOf(std::string_view text);
config::TomlValue TomlOf(const std::vector<std::string>& list);
// By its own name: a text in quotes would rather be a truth value than a string_view.
config::TomlValue TomlBool(bool truth);

}  // namespace crisp::ctl::convert
