#include "services/netd/core/result_cache.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstddef>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "libs/base/text.h"
#include "libs/base/try.h"
#include "libs/json/json.h"
#include "libs/os/files.h"
#include "services/netd/core/plugin.h"

namespace crisp::netd {
namespace {

/// "K=V;K=V" as a list of pairs.
nlohmann::json ArgPairs(std::string_view args) {
  nlohmann::json pairs = nlohmann::json::array();
  while (!args.empty()) {
    const std::size_t end = std::min(args.find(';'), args.size());
    const std::string_view one = args.substr(0, end);
    const std::size_t equals = std::min(one.find('='), one.size());
    pairs.push_back({one.substr(0, equals), one.substr(std::min(equals + 1, one.size()))});
    args.remove_prefix(std::min(end + 1, args.size()));
  }
  return pairs;
}

}  // namespace

std::string ResultCache::PathOf(const Attachment& attachment) const {
  return fmt::format("{}/{}-{}-{}", dir_, attachment.network, attachment.pod,
                     PluginArgs().interface);
}

Status ResultCache::Put(const Attachment& attachment, const std::string& netns) const {
  const nlohmann::json entry = {
      {"kind", "cniCacheV1"},
      {"containerId", attachment.pod.str()},
      {"config", Base64(attachment.conf)},
      {"ifName", PluginArgs().interface},
      {"networkName", attachment.network},
      {"netns", netns},
      {"cniArgs", ArgPairs(attachment.cni_args)},
      {"capabilityArgs", CRISP_TRY(json::Parse(attachment.capability_args))},
      {"result", CRISP_TRY(json::Parse(attachment.result))},
  };
  constexpr mode_t kPrivate = 0700;
  constexpr mode_t kMode = 0600;
  const std::string path = PathOf(attachment);
  const std::string text = json::Dump(entry);
  if (os::WriteFile(path, text, kMode).ok()) return Status::Ok();
  CRISP_TRY(os::MakeDirs(dir_, kPrivate));
  return os::WriteFile(path, text, kMode);
}

bool ResultCache::Has(const Attachment& attachment) const {
  struct stat info = {};
  return ::stat(PathOf(attachment).c_str(), &info) == 0 && info.st_size > 0;
}

Status ResultCache::Remove(const Attachment& attachment) const {
  return os::RemoveFile(PathOf(attachment));
}

}  // namespace crisp::netd
