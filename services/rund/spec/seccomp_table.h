#pragma once

#include <string_view>
#include <vector>

// What the built-in seccomp profile takes away, and why. crisp-seccomp(7) is made of the same rows.
namespace crisp::rund {

/// Calls that answer EPERM. A call may be in several rows: any of their capabilities brings it
/// back, but for a row without one, which nothing does.
struct SeccompDenial {
  std::string_view capability;  // empty = whatever the capabilities
  std::vector<std::string_view> calls;
  std::string_view why;
};
const std::vector<SeccompDenial>& SeccompDenials();

/// Allowed for some arguments only.
struct SeccompCondition {
  std::string_view call;
  std::string_view allowed;
  std::string_view why;
};
const std::vector<SeccompCondition>& SeccompConditions();

/// Reserved numbers without an implementation, and calls older than any program in an image: they
/// answer ENOSYS, which is what the kernel says itself.
const std::vector<std::string_view>& SeccompNotThere();

}  // namespace crisp::rund
