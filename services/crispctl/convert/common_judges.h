#pragma once

#include <string>
#include <string_view>

#include "services/crispctl/convert/rule.h"

// What the judges of both runtimes have in common.

namespace crisp::ctl::convert {

/// A directory of crisp's own below one that the other runtime was given; `usual`: its default,
/// which says nothing.
Finding OwnDirectory(const Case& one, std::string_view key, std::string_view usual);
/// The log level, with what crisp has in the place of panic and warning.
Finding Level(const Case& one);
/// A listener's address; an empty host means all addresses there, and loopback here.
Finding Listener(const Case& one, const std::string& host, const std::string& port);
/// An annotation's name or its beginning: "x.y/*" is "x.y/".
std::string AnnotationPrefix(std::string_view pattern);

/// A handler's name as crisp.yaml takes it.
bool IsHandlerName(std::string_view name);
/// A handler that crisp has without being told.
bool IsBuiltInHandler(std::string_view name);

}  // namespace crisp::ctl::convert
