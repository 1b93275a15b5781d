#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/result.h"
#include "libs/ref/ref.h"

namespace crisp::imaged {

/// One place that a repository may be fetched from.
struct Place {
  std::string host;        // "mirror.example.com:5000", "docker.io"
  std::string repository;  // there: "library/busybox"
  bool insecure = false;   // plain HTTP and unknown certificates are acceptable
  bool mirror = false;     // false: where the name itself leads, after rewriting

  std::string Location() const { return host + "/" + repository; }
};

/// The registries.conf that podman, skopeo and CRI-O share, version 2 and the tables of version 1
/// ([registries.search], [registries.insecure], [registries.block]).
struct RegistriesConf {
  enum class PullBy { kAll, kDigest, kTag };
  enum class ShortNames { kEnforcing, kPermissive, kDisabled };

  struct Mirror {
    std::string location;
    bool insecure = false;
    PullBy pull = PullBy::kAll;
  };
  struct Registry {
    std::string prefix;    // "docker.io", "quay.io/team", "*.example.com"
    std::string location;  // takes the place of the prefix; empty (wildcards only): nothing does
    bool insecure = false;
    bool blocked = false;
    std::vector<Mirror> mirrors;
    std::string where;  // "file:line"
  };

  std::optional<std::vector<std::string>> search;  // for names without a registry
  std::optional<ShortNames> short_names;
  std::map<std::string, std::string> aliases;  // "" takes an alias of an earlier file away
  std::optional<std::vector<std::string>> credential_helpers;
  std::vector<Registry> registries;
  std::vector<std::string> unknown_keys;  // "file: key": told, not refused

  /// One file. kInvalidArgument: "file:line: key: what".
  static Result<RegistriesConf> Parse(std::string_view text, const std::string& file);
  /// `path` and `<path>.d/*.conf` in the order of their names; each may be absent.
  static Result<RegistriesConf> Load(const std::string& path);
  /// What a drop-in says comes over what is here; a [[registry]] replaces the one of its prefix.
  void Merge(RegistriesConf drop_in);

  /// The entry with the longest prefix that fits "docker.io/library/busybox:latest".
  const Registry* Match(const ref::ImageRef& image) const;
  /// Mirrors in their order, then the registry itself. kPermissionDenied: blocked, with its place
  /// in the file.
  Result<std::vector<Place>> PlacesOf(const ref::ImageRef& image) const;
  /// The names that `image`, as the user wrote it, may stand for: an alias, or one for each search
  /// registry. Without aliases and search registries it is Docker Hub's, as Kubernetes has it.
  /// kInvalidArgument: malformed, or ambiguous where short names are enforced.
  Result<std::vector<ref::ImageRef>> NamesOf(std::string_view image) const;
};

/// The file as it is now: looked at again whenever somebody asks. While what is there is broken the
/// last good one stays in force (and an error is logged once); without one it is the error. Any
/// thread.
class RegistriesConfFile {
 public:
  /// `aliases`: short names that the container tools remember (short-name-aliases.conf), for those
  /// of which the configuration says nothing; broken, it is passed over with a warning. Of an empty
  /// path there is no file.
  explicit RegistriesConfFile(std::string path, std::string aliases = {})
      : path_(std::move(path)), aliases_(std::move(aliases)) {}

  Result<std::shared_ptr<const RegistriesConf>> Current();

 private:
  std::string Signature() const;
  Result<RegistriesConf> Load() const;

  const std::string path_;
  const std::string aliases_;
  std::mutex mutex_;
  std::optional<std::string> signature_;  // of what was read last; none: nothing was yet
  std::shared_ptr<const RegistriesConf> good_;
  Status broken_;
};

}  // namespace crisp::imaged
