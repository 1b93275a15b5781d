#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/status.h"
#include "libs/config/schema.h"

namespace YAML {  // NOLINT(readability-identifier-naming): its own name
class Node;
}

// For this library's own files.
namespace crisp::config::internal {

/// One level of the file. A leaf has `set` and `get`, a map of structs `entry`, a section children.
struct Node {
  std::string name;
  Doc doc;
  std::function<Status(const YAML::Node&)> set;
  std::function<std::string()> get;  // the value as YAML flow text
  std::string initial;               // get() at registration: the default
  std::function<std::vector<std::string>()> names;
  std::function<void(const std::string&, Schema&)> entry;
  std::function<void(const std::string&)> erase;
  std::vector<std::unique_ptr<Node>> children;
  // Of the root alone: what has been loaded.
  Schema::Places places;
  std::size_t fingerprint = 0;

  Node* Find(std::string_view key) const {
    for (const auto& child : children) {
      if (child->name == key) return child.get();
    }
    return nullptr;
  }
};

/// "unknown key (did you mean 'level'?) (known: level, format)"
std::string UnknownKey(const Node& node, std::string_view key);
/// As YAML.
std::string ListText(const std::vector<std::string>& list);

}  // namespace crisp::config::internal
