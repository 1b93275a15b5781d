// crisp-seccomp(7) says what the built-in profile takes away: it is made of the profile's own
// table.
#include <catch2/catch.hpp>
#include <cstdlib>

#include "libs/os/files.h"
#include "services/rund/spec/seccomp_table.h"

namespace crisp::rund {
namespace {

constexpr std::string_view kFrom = "# WHAT IS DENIED\n";
constexpr std::string_view kTo = "# SEE ALSO\n";
constexpr std::size_t kWidth = 118;

/// As Markdown takes it literally.
std::string Literally(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '_') out += '\\';
    out += c;
  }
  return out;
}

/// Wrapped; below a term (`start`) all lines are indented.
std::string Paragraph(std::string_view text, std::string_view start) {
  std::string out(start);
  const std::string indent(start.empty() ? 0 : 4, ' ');
  std::size_t column = start.size();
  while (!text.empty()) {
    const std::string_view word = text.substr(0, text.find(' '));
    text.remove_prefix(std::min(word.size() + 1, text.size()));
    if (column + word.size() > kWidth) {
      out.back() = '\n';
      out += indent;
      column = indent.size();
    }
    out.append(word).append(" ");
    column += word.size() + 1;
  }
  out.back() = '\n';
  return out;
}

std::string Entry(std::string_view term, std::string_view text, std::string_view more = {}) {
  std::string entry = "**" + Literally(term) + "**\n" + Paragraph(Literally(text), ":   ") + "\n";
  if (!more.empty()) entry += Paragraph(Literally(more), "    ") + "\n";
  return entry;
}

std::string Joined(const std::vector<std::string_view>& names) {
  std::string out;
  for (const std::string_view name : names) {
    if (!out.empty()) out += ", ";
    out += name;
  }
  return out;
}

std::string Sections() {
  std::string with = std::string(kFrom) + "\n## Without a capability\n\n";
  std::string never = "## To every container\n\n";
  for (const SeccompDenial& one : SeccompDenials()) {
    if (!one.capability.empty()) {
      with += Entry(one.capability, Joined(one.calls), one.why);
    } else {
      never += Entry(Joined(one.calls), one.why);
    }
  }
  std::string some = "## For some arguments\n\n";
  for (const SeccompCondition& one : SeccompConditions()) {
    some += Entry(one.call, "Allowed: " + std::string(one.allowed), one.why);
  }
  const std::string absent =
      "## Not there\n\n" +
      Paragraph(Joined(SeccompNotThere()) + ", and " +
                    "whatever a newer kernel has that libseccomp does not know, answer " +
                    "ENOSYS.",
                "") +
      "\n";
  return with + never + some + Literally(absent);
}

TEST_CASE("The manual page of the default profile says what the profile does") {
  const std::string path = CRISP_SECCOMP_PAGE;
  std::string page = os::ReadFile(path).value();
  const std::size_t from = page.find(kFrom);
  const std::size_t to = page.find(kTo);
  REQUIRE(from != page.npos);
  REQUIRE(to != page.npos);
  if (std::getenv("CRISP_ACCEPT") != nullptr) {
    page.replace(from, to - from, Sections());
    REQUIRE(os::WriteFile(path, page).ok());
    return;
  }
  CHECK(page.substr(from, to - from) == Sections());
}

}  // namespace
}  // namespace crisp::rund
