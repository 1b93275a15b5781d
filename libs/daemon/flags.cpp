#include <CLI/CLI.hpp>
#include <iostream>

#include "libs/daemon/daemon.h"
#include "libs/log/log.h"

namespace crisp::daemon {
namespace {

constexpr std::size_t kMaxInstance = 32;

/// CLI11's way: an empty text is agreement.
std::string CheckInstance(const std::string& name) {
  if (name.empty() || name.size() > kMaxInstance) return "1 to 32 characters";
  for (const char c : name) {
    if ((c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-') return "only a-z, 0-9 and '-'";
  }
  return name.front() == '-' ? "no '-' at the start" : "";
}

std::string CheckLevel(const std::string& level) {
  const auto parsed = log::ParseLevel(level);
  return parsed.ok() ? "" : parsed.status().message();
}

}  // namespace

std::string_view Version() { return CRISP_VERSION; }
std::string_view Commit() { return CRISP_COMMIT; }

ParsedFlags ParseFlags(int argc, const char* const* argv, std::string_view service) {
  Options options;
  options.service = service;
  std::string level;
  CLI::App app(fmt::format("crisp-{} {}", service, Version()));
  app.set_version_flag("--version", fmt::format("crisp-{} {}", service, Version()));
  app.add_option("--config,-c", options.config, "Settings file; <file>.d/*.yaml come over it")
      ->capture_default_str();
  app.add_option("--instance,-i", options.instance, "Name of this instance")
      ->check(CheckInstance, "NAME", "NAME")
      ->capture_default_str();
  app.add_option("--log-level", level,
                 "trace, debug, info, warn, error or fatal; over the settings'")
      ->check(CheckLevel, "LEVEL", "LEVEL");
  bool check_only = false;
  app.add_flag("--check-config", check_only,
               "Look at the settings and the files that they name, and end: 0 they are in order, "
               "78 they are not, and why");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    // Help and version are "errors" with code 0.
    const int code = app.exit(e, std::cout, std::cerr);
    return {.options = std::nullopt, .exit_code = code == 0 ? 0 : 2};
  }
  if (!level.empty()) options.log_level = level;
  return {.options = std::move(options), .check_only = check_only};
}

}  // namespace crisp::daemon
