#include "services/crispctl/convert/common_judges.h"

#include <fmt/format.h>

#include <algorithm>

namespace crisp::ctl::convert {

Finding OwnDirectory(const Case& one, std::string_view key, std::string_view usual) {
  std::string path = one.option.value.text;
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  if (path.empty()) return NotNeededHere("is empty: crisp's own default counts");
  if (path == usual) return NotNeededHere("crisp's own is /var/lib/crisp; images are pulled anew");
  return one.Put(key, YamlText(path + "/crisp"),
                 "a directory of crisp's own there; images are pulled anew, or taken over by "
                 "'crispctl image import'");
}

Finding Level(const Case& one) {
  const std::string& level = one.option.value.text;
  const Result<std::string> known = LogLevel(level);
  std::string changed;
  if (known.ok() && *known != level) changed = fmt::format("{} is called {} here", level, *known);
  return one.Put("log.level", known, std::move(changed));
}

Finding Listener(const Case& one, const std::string& host, const std::string& port) {
  constexpr std::string_view kKey = "rund.streaming_address";
  std::string changed;
  if (host.empty()) changed = "loopback: the kubelet of this node is the only client";
  return one.Put(kKey, YamlText(HostPort(host.empty() ? "127.0.0.1" : host, port)),
                 std::move(changed));
}

std::string AnnotationPrefix(std::string_view pattern) {
  return std::string(pattern.substr(0, pattern.find('*')));
}

bool IsHandlerName(std::string_view name) {
  return !name.empty() && name.size() <= 63 && name.front() != '.' && name.front() != '-' &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.';
         });
}

bool IsBuiltInHandler(std::string_view name) { return name == "crun" || name == "runc"; }

}  // namespace crisp::ctl::convert
