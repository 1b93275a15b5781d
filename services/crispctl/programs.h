#pragma once

#include <string>

#include "libs/base/status.h"

namespace crisp::ctl {

/// A program of crisp's by its name ("crisp-rund"): in `directory`, or, where that is empty, beside
/// this program (a build tree, a bundle) or where the packages put it. Empty: it is not there.
std::string FindProgram(const std::string& name, const std::string& directory = {});

/// What the daemons on this machine say of a settings file and of the files that it names, as they
/// would at a start. kInvalidArgument: the first one's words. kNotFound: none of them is here.
Status CheckByDaemons(const std::string& settings_path, const std::string& directory = {});

}  // namespace crisp::ctl
