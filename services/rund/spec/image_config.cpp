#include "services/rund/spec/image_config.h"

#include <charconv>
#include <csignal>
#include <cstring>
#include <nlohmann/json.hpp>

#include "libs/base/try.h"
#include "libs/json/json.h"

namespace crisp::rund {
namespace {

constexpr std::size_t kMaxConfig = std::size_t{8} << 20U;
// What glibc programs mean by these two; the kernel's own SIGRTMIN is 32.
constexpr int kSigRtMin = 34;
constexpr int kSigRtMax = 64;

}  // namespace

Result<ImageConfig> ParseImageConfig(std::string_view text) {
  ImageConfig parsed;
  if (text.empty()) return parsed;
  const nlohmann::json root =
      CRISP_TRY(json::Parse(text, {.max_bytes = kMaxConfig}).While("image config"));
  const nlohmann::json config = CRISP_TRY(json::OptObject(root, "config").While("image config"));
  const auto text_of = [&config](std::string_view key) {
    return json::OptString(config, key).While("image config");
  };
  const auto list_of = [&config](std::string_view key) {
    return json::OptStrings(config, key).While("image config");
  };
  parsed.user = CRISP_TRY(text_of("User"));
  parsed.env = CRISP_TRY(list_of("Env"));
  parsed.entrypoint = CRISP_TRY(list_of("Entrypoint"));
  parsed.cmd = CRISP_TRY(list_of("Cmd"));
  parsed.working_dir = CRISP_TRY(text_of("WorkingDir"));
  parsed.stop_signal = CRISP_TRY(text_of("StopSignal"));
  const nlohmann::json volumes =
      CRISP_TRY(json::OptObject(config, "Volumes").While("image config"));
  for (const auto& [path, unused] : volumes.items()) parsed.volumes.push_back(path);
  std::sort(parsed.volumes.begin(), parsed.volumes.end());
  return parsed;
}

int SignalNumber(std::string_view name) {
  int number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error == std::errc() && end == name.data() + name.size()) {
    return number >= 1 && number <= kSigRtMax ? number : 0;
  }
  if (name.starts_with("SIG")) name.remove_prefix(3);
  for (const auto& [prefix, base, sign] : {std::tuple{std::string_view("RTMIN"), kSigRtMin, 1},
                                           std::tuple{std::string_view("RTMAX"), kSigRtMax, -1}}) {
    if (!name.starts_with(prefix)) continue;
    std::string_view rest = name.substr(prefix.size());
    if (rest.empty()) return base;
    if (rest.front() != (sign > 0 ? '+' : '-')) return 0;
    rest.remove_prefix(1);
    int offset = 0;
    const auto [stop, bad] = std::from_chars(rest.data(), rest.data() + rest.size(), offset);
    if (bad != std::errc() || stop != rest.data() + rest.size()) return 0;
    const int signal = base + sign * offset;
    return offset >= 0 && signal >= kSigRtMin && signal <= kSigRtMax ? signal : 0;
  }
  if (name == "CLD") return SIGCHLD;
  if (name == "IOT") return SIGABRT;
  if (name == "IO") return SIGIO;
  for (int n = 1; n < kSigRtMin; ++n) {
    if (const char* known = sigabbrev_np(n); known != nullptr && name == known) return n;
  }
  return 0;
}

}  // namespace crisp::rund
