#include <fmt/format.h>

#include <algorithm>

#include "libs/base/closest.h"
#include "libs/base/try.h"
#include "libs/config/schema.h"
#include "libs/config/schema_node.h"

namespace crisp::config {

using internal::Node;

std::string internal::UnknownKey(const Node& node, std::string_view key) {
  std::vector<std::string> known;
  for (const auto& child : node.children) known.push_back(child->name);
  return fmt::format("unknown key{} (known: {})", DidYouMean(key, known), fmt::join(known, ", "));
}

namespace {

/// Stands for any name of a map's entry.
constexpr const char* kAnyName = "<name>";

void KeysInto(std::vector<Key>& keys, const Node& node, const std::string& prefix,
              bool with_defaults) {
  for (const auto& child : node.children) {
    const std::string path = prefix.empty() ? child->name : prefix + "." + child->name;
    if (child->get) {
      keys.push_back({path, child->doc, with_defaults ? child->initial : "", false});
    } else if (child->entry) {
      keys.push_back({path, child->doc, internal::ListText(child->names()), false});
      Schema schema;
      child->entry(kAnyName, schema);
      schema.AddKeys(keys, path + "." + kAnyName, false);
      child->erase(kAnyName);
    } else {
      keys.push_back({path, child->doc, "", true});
      KeysInto(keys, *child, path, with_defaults);
    }
  }
}

}  // namespace

void Schema::AddKeys(std::vector<Key>& keys, const std::string& prefix, bool with_defaults) const {
  KeysInto(keys, *root_, prefix, with_defaults);
}

std::vector<Key> Schema::Keys() const {
  std::vector<Key> keys;
  AddKeys(keys, "", true);
  return keys;
}

namespace {

void ValuesInto(std::vector<KeyValue>& values, const Node& node,
                const std::vector<std::string>& prefix, std::size_t entry) {
  for (const auto& child : node.children) {
    std::vector<std::string> path = prefix;
    path.push_back(child->name);
    if (child->get) {
      values.push_back({std::move(path), child->get(), child->doc.cost, entry});
    } else if (child->entry) {
      for (const std::string& name : child->names()) {
        Schema schema;
        child->entry(name, schema);
        path.push_back(name);
        schema.AddValues(values, path);
        path.pop_back();
      }
    } else {
      ValuesInto(values, *child, path, entry);
    }
  }
}

}  // namespace

void Schema::AddValues(std::vector<KeyValue>& values,
                       const std::vector<std::string>& prefix) const {
  ValuesInto(values, *root_, prefix, prefix.size());
}

std::vector<KeyValue> Schema::Values() const {
  std::vector<KeyValue> values;
  AddValues(values, {});
  return values;
}

Result<std::vector<std::string>> Schema::PathOf(std::string_view key) const {
  std::vector<std::string> path;
  const Node* node = root_.get();
  std::string_view rest = key;
  while (!node->set && !node->entry) {
    const std::string_view name = rest.substr(0, rest.find('.'));
    const Node* child = node->Find(name);
    if (child == nullptr) {
      if (rest.empty() && node != root_.get()) return InvalidArgument("{}: is a section", key);
      return InvalidArgument("{}: {}", key, internal::UnknownKey(*node, name));
    }
    path.push_back(child->name);
    rest.remove_prefix(std::min(rest.size(), name.size() + 1));
    node = child;
  }
  if (node->set && !rest.empty()) return InvalidArgument("{}: nothing is below it", key);
  if (!node->entry) return path;
  // An entry itself, or the last part is the key within it.
  if (rest.empty()) return InvalidArgument("{}: is a section", key);
  Schema schema;
  node->entry(kAnyName, schema);
  node->erase(kAnyName);
  const std::size_t dot = rest.rfind('.');
  if (dot == rest.npos || schema.root_->Find(rest.substr(dot + 1)) == nullptr) {
    if (dot != rest.npos)
      return InvalidArgument("{}: {}", key,
                             internal::UnknownKey(*schema.root_, rest.substr(dot + 1)));
    path.emplace_back(rest);
    return path;
  }
  path.emplace_back(rest.substr(0, dot));
  path.emplace_back(rest.substr(dot + 1));
  return path;
}

}  // namespace crisp::config
