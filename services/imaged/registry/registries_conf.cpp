#include "services/imaged/registry/registries_conf.h"

#include <algorithm>

#include "libs/base/text.h"
#include "libs/base/try.h"
#include "libs/config/toml.h"
#include "libs/log/log.h"
#include "libs/os/file_stamp.h"
#include "libs/os/files.h"

namespace crisp::imaged {
namespace {

using config::TomlTable;
using PullBy = RegistriesConf::PullBy;
using ShortNames = RegistriesConf::ShortNames;

/// host[:port][/path], without a scheme and a slash at the end; the host in lower case.
Result<std::string> Location(const TomlTable& table, std::string_view key) {
  std::string location = CRISP_TRY(table.Text(key));
  while (location.ends_with('/')) location.pop_back();
  if (location.find("://") != std::string::npos)
    return table.Wrong(key, "is a host and perhaps a path, without a scheme");
  if (location.starts_with('/') || location.find_first_of(" \t\r\n?#\\") != std::string::npos)
    return table.Wrong(key, "is not of the form host[:port][/path]");
  return ref::LowerDomain(location);
}

Result<PullBy> ParsePullBy(const TomlTable& table, bool digest_only) {
  const std::string text = CRISP_TRY(table.Text("pull-from-mirror"));
  if (!text.empty() && digest_only)
    return table.Wrong("pull-from-mirror", "excludes the registry's mirror-by-digest-only");
  if (text == "digest-only" || digest_only) return PullBy::kDigest;
  if (text == "tag-only") return PullBy::kTag;
  if (text.empty() || text == "all") return PullBy::kAll;
  return table.Wrong("pull-from-mirror", "is all, digest-only or tag-only");
}

Result<RegistriesConf::Registry> ParseRegistry(const TomlTable& table, const std::string& file) {
  RegistriesConf::Registry registry;
  registry.where = fmt::format("{}:{}", file, table.value().line);
  registry.prefix = CRISP_TRY(Location(table, "prefix"));
  registry.location = CRISP_TRY(Location(table, "location"));
  if (registry.location.find('*') != std::string::npos) return table.Wrong("location", "has a *");
  const bool wildcard = registry.prefix.starts_with("*.");
  if (registry.prefix.empty()) registry.prefix = registry.location;
  if (registry.prefix.empty())
    return table.Wrong("prefix", "a registry needs a prefix or a location");
  if (registry.prefix.find('*', wildcard ? 1 : 0) != std::string::npos)
    return table.Wrong("prefix", "a * stands only for the first part of a host: *.example.com");
  if (registry.location.empty() && !wildcard) registry.location = registry.prefix;
  registry.insecure = CRISP_TRY(table.Bool("insecure", false));
  registry.blocked = CRISP_TRY(table.Bool("blocked", false));
  const bool digest_only = CRISP_TRY(table.Bool("mirror-by-digest-only", false));
  if (table.Has("pull-from-mirror"))
    return table.Wrong("pull-from-mirror", "belongs into a [[registry.mirror]]");
  for (const TomlTable& each : CRISP_TRY(table.Tables("mirror"))) {
    RegistriesConf::Mirror mirror;
    mirror.location = CRISP_TRY(Location(each, "location"));
    if (mirror.location.empty() || mirror.location.find('*') != std::string::npos)
      return each.Wrong("location", "a mirror needs a location");
    mirror.insecure = CRISP_TRY(each.Bool("insecure", false));
    mirror.pull = CRISP_TRY(ParsePullBy(each, digest_only));
    registry.mirrors.push_back(std::move(mirror));
  }
  return registry;
}

/// The tables of version 1.
Status ParseVersion1(const TomlTable& v1, const std::string& file, RegistriesConf& conf) {
  const auto names = [&v1](std::string_view table) -> Result<std::vector<std::string>> {
    return CRISP_TRY(v1.Table(table)).Texts("registries");
  };
  conf.search = CRISP_TRY(names("search"));
  const auto entry = [&](const std::string& written) -> RegistriesConf::Registry& {
    const std::string name = ref::LowerDomain(written);
    for (RegistriesConf::Registry& each : conf.registries)
      if (each.prefix == name) return each;
    conf.registries.push_back({.prefix = name, .location = name, .where = file});
    return conf.registries.back();
  };
  for (const std::string& name : CRISP_TRY(names("insecure"))) entry(name).insecure = true;
  for (const std::string& name : CRISP_TRY(names("block"))) entry(name).blocked = true;
  for (const RegistriesConf::Registry& each : conf.registries)
    if (each.prefix.empty() || each.prefix.find("://") != std::string::npos)
      return v1.Wrong("", fmt::format("'{}' is no registry", each.prefix));
  return Status::Ok();
}

bool IsShortName(std::string_view name) {
  const std::size_t slash = name.find('/');
  if (slash == std::string_view::npos) return true;
  const std::string_view first = name.substr(0, slash);
  return first.find_first_of(".:") == std::string_view::npos && first != "localhost" &&
         first == Lower(first);
}

Status ParseAliases(const TomlTable& aliases, RegistriesConf& conf) {
  for (const auto& [name, target] : aliases.value().members) {
    const std::string to = CRISP_TRY(aliases.Text(name));
    if (!IsShortName(name) || name.find_first_of(":@") != std::string::npos)
      return aliases.Wrong(name, "is no name without registry, tag and digest");
    if (!to.empty()) {
      const Result<ref::ImageRef> parsed = ref::Parse(to);
      if (!parsed.ok() || IsShortName(to) || !parsed->digest.empty() ||
          to.substr(to.find('/')).find(':') != std::string::npos)
        return aliases.Wrong(name, "its target is no full name without tag and digest");
    }
    conf.aliases[name] = to;
  }
  return Status::Ok();
}

/// The length of `name` that `prefix` covers; 0 when it does not fit.
std::size_t Covered(std::string_view name, std::string_view prefix) {
  std::size_t end = prefix.size();
  if (prefix.starts_with("*.")) {
    // Any subdomain, with any port: the tail may be there more than once.
    const std::string_view tail = prefix.substr(1);
    for (std::size_t at = name.find(tail, 1); at != name.npos; at = name.find(tail, at + 1)) {
      if (name.substr(0, at).find('/') != name.npos) return 0;
      end = at + tail.size();
      if (end == name.size() || std::string_view("/:@").find(name[end]) != std::string_view::npos)
        return end;
    }
    return 0;
  }
  if (!name.starts_with(prefix)) return 0;
  // What follows a host is its port, another registry; what follows a path is a tag.
  const std::string_view next = prefix.find('/') == std::string_view::npos ? "/" : "/:@";
  if (end < name.size() && next.find(name[end]) == std::string_view::npos) return 0;
  return end;
}

Place PlaceAt(const std::string& location) {
  Place place;
  const std::size_t slash = location.find('/');
  place.host = location.substr(0, slash);
  if (slash != std::string::npos) place.repository = location.substr(slash + 1);
  return place;
}

std::vector<std::string> DropIns(const std::string& path) {
  std::vector<std::string> files;
  for (const std::string& name : os::ListDir(path + ".d").value_or({}))
    if (name.ends_with(".conf")) files.push_back(path + ".d/" + name);
  return files;
}

}  // namespace

Result<RegistriesConf> RegistriesConf::Parse(std::string_view text, const std::string& file) {
  const config::TomlValue document = CRISP_TRY(config::ParseToml(text, file));
  const TomlTable root(document, file);
  RegistriesConf conf;
  for (const std::string& key :
       root.Unknown({"unqualified-search-registries", "credential-helpers", "short-name-mode",
                     "registry", "aliases", "registries", "additional-layer-store-auth-helper"}))
    conf.unknown_keys.push_back(fmt::format("{}: {}", file, key));
  const bool version2 = root.Has("unqualified-search-registries") || root.Has("registry") ||
                        root.Has("aliases") || root.Has("short-name-mode");
  if (root.Has("registries")) {
    if (version2)
      return root.Wrong("registries", "version 1 tables and version 2 keys are in one file");
    const TomlTable tables = CRISP_TRY(root.Table("registries"));
    CRISP_TRY(ParseVersion1(tables, file, conf));
    return conf;
  }
  if (root.Has("unqualified-search-registries")) {
    conf.search = CRISP_TRY(root.Texts("unqualified-search-registries"));
    for (const std::string& each : *conf.search)
      if (each.empty() || each.find("://") != std::string::npos)
        return root.Wrong("unqualified-search-registries", fmt::format("'{}' is no host", each));
  }
  if (root.Has("credential-helpers"))
    conf.credential_helpers = CRISP_TRY(root.Texts("credential-helpers"));
  const std::string mode = CRISP_TRY(root.Text("short-name-mode"));
  if (mode == "enforcing") conf.short_names = ShortNames::kEnforcing;
  if (mode == "permissive") conf.short_names = ShortNames::kPermissive;
  if (mode == "disabled") conf.short_names = ShortNames::kDisabled;
  if (!mode.empty() && !conf.short_names)
    return root.Wrong("short-name-mode", "is enforcing, permissive or disabled");
  const TomlTable aliases_table = CRISP_TRY(root.Table("aliases"));
  CRISP_TRY(ParseAliases(aliases_table, conf));
  for (const TomlTable& each : CRISP_TRY(root.Tables("registry"))) {
    Registry registry = CRISP_TRY(ParseRegistry(each, file));
    for (const Registry& other : conf.registries)
      if (other.prefix == registry.prefix)
        return each.Wrong("prefix", fmt::format("'{}' is there twice", registry.prefix));
    conf.registries.push_back(std::move(registry));
  }
  return conf;
}

void RegistriesConf::Merge(RegistriesConf drop_in) {
  if (drop_in.search) search = std::move(drop_in.search);
  if (drop_in.short_names) short_names = drop_in.short_names;
  if (drop_in.credential_helpers) credential_helpers = std::move(drop_in.credential_helpers);
  for (auto& [name, target] : drop_in.aliases) aliases[name] = std::move(target);
  for (Registry& registry : drop_in.registries) {
    const auto same =
        std::find_if(registries.begin(), registries.end(),
                     [&registry](const Registry& each) { return each.prefix == registry.prefix; });
    if (same != registries.end()) {
      *same = std::move(registry);
    } else {
      registries.push_back(std::move(registry));
    }
  }
  for (std::string& key : drop_in.unknown_keys) unknown_keys.push_back(std::move(key));
}

Result<RegistriesConf> RegistriesConf::Load(const std::string& path) {
  RegistriesConf conf;
  Result<std::string> text = os::ReadFile(path);
  if (!text.ok() && text.code() != Code::kNotFound) return std::move(text).status();
  if (text.ok()) conf = CRISP_TRY(Parse(*text, path));
  for (const std::string& file : DropIns(path)) {
    const std::string more = CRISP_TRY(os::ReadFile(file));
    conf.Merge(CRISP_TRY(Parse(more, file)));
  }
  return conf;
}

const RegistriesConf::Registry* RegistriesConf::Match(const ref::ImageRef& image) const {
  const std::string name = image.ToString();
  const Registry* best = nullptr;
  for (const Registry& each : registries)
    if (Covered(name, each.prefix) > 0 &&
        (best == nullptr || each.prefix.size() > best->prefix.size()))
      best = &each;
  return best;
}

Result<std::vector<Place>> RegistriesConf::PlacesOf(const ref::ImageRef& image) const {
  std::vector<Place> places;
  const Registry* registry = Match(image);
  if (registry == nullptr) {
    places.push_back({.host = image.domain, .repository = image.path});
    return places;
  }
  if (registry->blocked)
    return PermissionDenied("{}: the registry {} is blocked by {}", image.ToString(),
                            registry->prefix, registry->where);
  const std::string name = image.Name();
  // A prefix may cover a tag too; a place is a repository.
  const std::string rest =
      name.substr(std::min(name.size(), Covered(image.ToString(), registry->prefix)));
  for (const Mirror& mirror : registry->mirrors) {
    const bool by_digest = !image.digest.empty();
    if (mirror.pull == (by_digest ? PullBy::kTag : PullBy::kDigest)) continue;
    Place place = PlaceAt(mirror.location + rest);
    place.insecure = mirror.insecure;
    place.mirror = true;
    places.push_back(std::move(place));
  }
  Place own = PlaceAt(registry->location.empty() ? name : registry->location + rest);
  own.insecure = registry->insecure;
  places.push_back(std::move(own));
  for (const Place& place : places)
    if (place.host.empty() || place.repository.empty())
      return InvalidArgument("{}: {} leads to no repository ({})", registry->where,
                             image.ToString(), place.Location());
  return places;
}

Result<std::vector<ref::ImageRef>> RegistriesConf::NamesOf(std::string_view image) const {
  const ref::ImageRef parsed = CRISP_TRY(ref::Parse(image));
  const std::string_view bare =
      image.substr(0, std::min(image.find('@'), image.find(':', image.rfind('/') + 1)));
  if (!IsShortName(image.substr(0, image.find('@')))) return std::vector{parsed};
  const ShortNames mode = short_names.value_or(ShortNames::kPermissive);
  const auto under = [&parsed](const std::string& name) -> Result<ref::ImageRef> {
    ref::ImageRef full = CRISP_TRY(ref::Parse(name));
    full.tag = parsed.tag;
    full.digest = parsed.digest;
    return full;
  };
  if (mode != ShortNames::kDisabled) {
    const auto alias = aliases.find(std::string(bare));
    if (alias != aliases.end() && !alias->second.empty())
      return std::vector{CRISP_TRY(under(alias->second))};
  }
  if (!search || search->empty()) return std::vector{parsed};
  if (search->size() > 1 && mode == ShortNames::kEnforcing)
    return InvalidArgument(
        "{} names no registry, and there are {} to search: short names are enforced, so write the "
        "full name or give it an alias in registries.conf",
        image, search->size());
  std::vector<ref::ImageRef> names;
  for (const std::string& registry : *search)
    names.push_back(CRISP_TRY(under(registry + "/" + std::string(bare))));
  return names;
}

std::string RegistriesConfFile::Signature() const {
  std::string signature = os::FileStamp(aliases_);
  if (path_.empty()) return signature;
  signature += " " + os::FileStamp(path_);
  for (const std::string& file : DropIns(path_))
    signature += " " + file + " " + os::FileStamp(file);
  return signature;
}

Result<RegistriesConf> RegistriesConfFile::Load() const {
  RegistriesConf conf;
  if (!path_.empty()) conf = CRISP_TRY(RegistriesConf::Load(path_));
  const Result<std::string> text = os::ReadFile(aliases_);
  if (aliases_.empty() || text.code() == Code::kNotFound) return conf;
  Result<RegistriesConf> remembered =
      text.ok() ? RegistriesConf::Parse(*text, aliases_) : Result<RegistriesConf>(text.status());
  if (remembered.ok()) {
    conf.aliases.merge(remembered->aliases);
  } else {
    log::Warn("the short names that were remembered cannot be read",
              {{"error", remembered.status().message()}});
  }
  return conf;
}

Result<std::shared_ptr<const RegistriesConf>> RegistriesConfFile::Current() {
  const std::lock_guard lock(mutex_);
  if (const std::string now = Signature(); now != signature_) {
    Result<RegistriesConf> loaded = Load();
    signature_ = now;
    if (loaded.ok()) {
      broken_ = Status::Ok();
      for (const std::string& key : loaded->unknown_keys)
        log::Warn("unknown key in registries.conf", {{"key", key}});
      good_ = std::make_shared<const RegistriesConf>(*std::move(loaded));
    } else {
      broken_ = FailedPrecondition("{}", loaded.status().message());
      log::Error("registries.conf is broken",
                 {{"error", broken_.message()}, {"last good one stays", good_ != nullptr}});
    }
  }
  if (good_) return good_;
  return broken_;
}

}  // namespace crisp::imaged
