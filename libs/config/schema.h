#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "libs/base/result.h"
#include "libs/base/status.h"
#include "libs/base/units.h"

namespace crisp::config {

/// What it costs to change a key.
enum class Cost {
  kLive,     // `kill -HUP`, at once
  kNewPods,  // a restart of the daemon; pods and containers that exist keep the old value
  kRestart,  // a restart of the daemon
};

struct Doc {
  std::string text;
  std::string unit;  // "seconds", "bytes"; empty when the value says it all
  Cost cost = Cost::kRestart;
  std::string allowed;  // "1 to 64", "text, json"; the Schema fills it in where it knows
};

/// What a reference says of one key.
struct Key {
  std::string path;      // "crid.socket"; keys of a map's entries: "rund.runtimes.<name>.path"
  Doc doc;               // of a section: the text alone
  std::string initial;   // the default as YAML; of a map: the names that are there
  bool section = false;  // a heading for the keys that follow
};

/// "reload (SIGHUP)"
std::string_view CostText(Cost cost);

/// The value of one key.
struct KeyValue {
  std::vector<std::string> path;  // {"rund", "runtimes", "runc", "path"}
  std::string text;               // as YAML
  Cost cost = Cost::kRestart;
  std::size_t entry = 0;  // so many of `path` name the entry of a map that it is in; 0 = none
};

/// The texts of files by their names, to be read in their place.
using Texts = std::map<std::string, std::string, std::less<>>;

namespace internal {
struct Node;  // a key, a section or a map of structs
}

/// Absolute and without "..", else kInvalidArgument.
Status CheckPath(const std::string& path);

/// The keys of a file and the fields that they fill. A field's value at registration is its
/// default. The schema keeps pointers: the struct must outlive it and stay where it is.
class Schema {
 public:
  using Check = std::function<Status(const std::string& value)>;

  Schema();
  Schema(Schema&&) noexcept;
  Schema& operator=(Schema&&) noexcept;
  ~Schema();

  /// A heading for the keys below `path` ("crid").
  Schema& Section(const std::string& path, std::string text);

  Schema& Bool(const std::string& path, bool* field, Doc doc);
  Schema& Int(const std::string& path, std::int64_t* field, std::int64_t min, std::int64_t max,
              Doc doc);
  /// `path` ends in _seconds; whole seconds.
  Schema& Seconds(const std::string& path, std::chrono::seconds* field, std::int64_t min,
                  std::int64_t max, Doc doc);
  /// A count of bytes, or a number with KiB, MiB or GiB.
  Schema& Size(const std::string& path, Bytes* field, Bytes min, Bytes max, Doc doc);
  Schema& Text(const std::string& path, std::string* field, Doc doc, Check check = nullptr);
  Schema& OneOf(const std::string& path, std::string* field, std::vector<std::string> choices,
                Doc doc);
  /// An absolute path without "..", or empty where `may_be_empty`.
  Schema& Path(const std::string& path, std::string* field, bool may_be_empty, Doc doc);
  /// A list of texts; a later file replaces the whole list. `check` sees each entry.
  Schema& List(const std::string& path, std::vector<std::string>* field, Doc doc,
               Check check = nullptr);
  /// A map of structs by name; files merge by name, and an entry of `null` takes the name away.
  /// `keys` registers the keys of one entry.
  template <typename T>
  Schema& Map(const std::string& path, std::map<std::string, T>* field, const Doc& doc,
              std::function<void(Schema&, T&)> keys) {
    return MapOf(
        path, doc,
        [field] {
          std::vector<std::string> names;
          for (const auto& [name, entry] : *field) names.push_back(name);
          return names;
        },
        [field, keys = std::move(keys)](const std::string& name, Schema& schema) {
          keys(schema, (*field)[name]);
        },
        [field](const std::string& name) { field->erase(name); });
  }

  /// Reads one document over what the fields hold. `name` is for errors. On failure some fields may
  /// be set already.
  Status LoadText(std::string_view yaml, const std::string& name) const;
  Status LoadFile(const std::string& path) const;
  /// `path`, then `<path>.d/*.yaml` in the order of their names. `path` may be absent when
  /// `optional`. A drop-in that `drop_ins` has by its name is not read but is this text, whether
  /// the file is there or not.
  Status LoadFiles(const std::string& path, bool optional, const Texts& drop_ins = {}) const;

  /// The fields as YAML; with `commented` each key has its text, unit, default and cost above it.
  std::string Dump(bool commented) const;

  /// All keys in the order of the file, each section before its keys.
  std::vector<Key> Keys() const;
  /// What the fields hold, in the order of the file.
  std::vector<KeyValue> Values() const;
  /// The parts of "rund.runtimes.runc.path"; an entry's name may have dots in it. kInvalidArgument:
  /// there is no such key (known: ...), or it is a section.
  Result<std::vector<std::string>> PathOf(std::string_view key) const;
  /// Where each key of the files was last set: "file:line" by its path.
  using Places = std::map<std::string, std::string, std::less<>>;
  const Places& AllPlaces() const;
  /// Of the text of all files that were loaded: the same for the same files. Not against forgery.
  std::string Fingerprint() const;

  // For schema.cpp (the entries of a Map are Schemas too): `yaml` is a YAML::Node.
  Status LoadNode(const void* yaml, const std::string& file, const std::string& prefix,
                  Places& places) const;
  void DumpNode(std::string& out, const std::string& indent, bool commented,
                bool with_defaults) const;
  void AddKeys(std::vector<Key>& keys, const std::string& prefix, bool with_defaults) const;
  void AddValues(std::vector<KeyValue>& values, const std::vector<std::string>& prefix) const;

 private:
  using Setter = std::function<Status(const void* yaml)>;
  Schema& Leaf(const std::string& path, Doc doc, Setter set, std::function<std::string()> get);
  Schema& MapOf(const std::string& path, const Doc& doc,
                std::function<std::vector<std::string>()> names,
                std::function<void(const std::string&, Schema&)> entry,
                std::function<void(const std::string&)> erase);

  std::unique_ptr<internal::Node> root_;
};

/// Where the key, or else the nearest one above it, was last set; empty when no file has it.
std::string PlaceOf(const Schema::Places& places, std::string_view path);

}  // namespace crisp::config
