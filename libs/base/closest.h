#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace crisp {

/// The one of `known` that somebody most likely meant who has typed `word`: for "did you mean".
/// Letters that are missing, too many, wrong or in the wrong order count one each; upper and lower
/// case are the same. Empty when none is near: at most a third of the letters may be wrong.
std::string Closest(std::string_view word, const std::vector<std::string>& known);
/// " (did you mean 'level'?)", or nothing.
std::string DidYouMean(std::string_view word, const std::vector<std::string>& known);

}  // namespace crisp
