#include "libs/config/schema.h"

#include <yaml-cpp/yaml.h>

#include <charconv>
#include <filesystem>
#include <limits>
#include <optional>
#include <set>
#include <variant>

#include "libs/base/closest.h"
#include "libs/base/try.h"
#include "libs/config/schema_node.h"
#include "libs/os/files.h"

namespace crisp::config {

namespace {

using internal::Node;

/// The node at a dotted path, made on the way.
Node& At(Node& root, std::string_view path) {
  Node* node = &root;
  while (!path.empty()) {
    const std::string_view key = path.substr(0, path.find('.'));
    path.remove_prefix(std::min(path.size(), key.size() + 1));
    Node* next = node->Find(key);
    if (next == nullptr) {
      node->children.push_back(std::make_unique<Node>());
      next = node->children.back().get();
      next->name = key;
    }
    node = next;
  }
  return *node;
}

/// A Status whose message lacks file, line and key yet.
Result<std::string> Scalar(const YAML::Node& yaml) {
  if (!yaml.IsScalar()) return InvalidArgument("is one value, not a list or a map");
  return yaml.Scalar();
}

Result<std::int64_t> Number(const YAML::Node& yaml) {
  const std::string text = CRISP_TRY(Scalar(yaml));
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return InvalidArgument("'{}' is no whole number", text);
  }
  return value;
}

Status CheckRange(std::int64_t value, std::int64_t min, std::int64_t max) {
  if (value >= min && value <= max) return Status::Ok();
  return InvalidArgument("{} is not within {} and {}", value, min, max);
}

Result<Bytes> Amount(const YAML::Node& yaml) {
  const std::string text = CRISP_TRY(Scalar(yaml));
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  std::uint64_t factor = 0;
  if (unit.empty() || unit == "B") factor = 1;
  if (unit == "KiB") factor = KiB(1).count();
  if (unit == "MiB") factor = MiB(1).count();
  if (unit == "GiB") factor = GiB(1).count();
  if (error != std::errc() || factor == 0) {
    return InvalidArgument("'{}' is no size (a number, with KiB, MiB or GiB behind it)", text);
  }
  if (value > std::numeric_limits<std::uint64_t>::max() / factor) {
    return InvalidArgument("'{}' is too large", text);
  }
  return Bytes(value * factor);
}

std::string AmountText(Bytes bytes) {
  const std::uint64_t count = bytes.count();
  if (count != 0 && count % GiB(1).count() == 0) return fmt::format("{}GiB", count >> 30U);
  if (count != 0 && count % MiB(1).count() == 0) return fmt::format("{}MiB", count >> 20U);
  if (count != 0 && count % KiB(1).count() == 0) return fmt::format("{}KiB", count >> 10U);
  return fmt::format("{}", count);
}

/// A text as YAML reads it back: plain where that is safe.
std::string Quoted(const std::string& text) {
  static const std::set<std::string> kWords = {"true", "false", "yes", "no", "on",   "off",
                                               "null", "~",     "y",   "n",  ".nan", ".inf"};
  bool plain = !text.empty() && !kWords.contains(text);
  bool number = true;
  for (const char c : text) {
    const bool digit = c >= '0' && c <= '9';
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!digit && !letter && c != '/' && c != '_' && c != '-' && c != '.') plain = false;
    if (!digit && c != '.') number = false;
  }
  if (plain && !number && text.front() != '-') return text;
  YAML::Emitter out;
  out << YAML::DoubleQuoted << text;
  return out.c_str();
}

}  // namespace

std::string internal::ListText(const std::vector<std::string>& list) {
  std::vector<std::string> quoted;
  for (const std::string& entry : list) quoted.push_back(Quoted(entry));
  return fmt::format("[{}]", fmt::join(quoted, ", "));
}

namespace {

struct Loader {
  const std::string& file;
  Schema::Places& places;

  std::string PlaceOf(const YAML::Node& at) const {
    const YAML::Mark mark = at.Mark();
    return mark.line >= 0 ? fmt::format("{}:{}", file, mark.line + 1) : file;
  }

  Status Wrong(const YAML::Node& at, std::string_view key, const Status& why) const {
    const std::string place = PlaceOf(at);
    if (key.empty()) return InvalidArgument("{}: {}", place, why.message());
    return InvalidArgument("{}: {}: {}", place, key, why.message());
  }

  Status Section(const Node& node, const YAML::Node& yaml, const std::string& prefix) const {
    if (yaml.IsNull()) return Status::Ok();  // "crid:" with nothing below it
    if (!yaml.IsMap()) return Wrong(yaml, prefix, InvalidArgument("is a map of keys"));
    std::set<std::string> seen;
    for (const auto& pair : yaml) {
      const std::string key = pair.first.IsScalar() ? pair.first.Scalar() : "";
      const std::string path = prefix.empty() ? key : fmt::format("{}.{}", prefix, key);
      const Node* child = node.Find(key);
      if (child == nullptr) {
        return Wrong(pair.first, path, InvalidArgument("{}", internal::UnknownKey(node, key)));
      }
      if (!seen.insert(key).second)
        return Wrong(pair.first, path, InvalidArgument("is there twice"));
      CRISP_TRY(One(*child, pair.first, pair.second, path));
    }
    return Status::Ok();
  }

  Status One(const Node& node, const YAML::Node& key, const YAML::Node& yaml,
             const std::string& path) const {
    places[path] = PlaceOf(key);
    if (node.entry) return Entries(node, yaml, path);
    if (!node.set) return Section(node, yaml, path);
    // A null has no place of its own in the file; its key has.
    if (yaml.IsNull()) return Wrong(key, path, InvalidArgument("has no value"));
    if (Status status = node.set(yaml); !status.ok()) return Wrong(yaml, path, status);
    return Status::Ok();
  }

  Status Entries(const Node& node, const YAML::Node& yaml, const std::string& path) const {
    if (yaml.IsNull()) return Status::Ok();
    if (!yaml.IsMap()) return Wrong(yaml, path, InvalidArgument("is a map by name"));
    std::set<std::string> seen;
    for (const auto& pair : yaml) {
      const std::string name = pair.first.IsScalar() ? pair.first.Scalar() : "";
      if (name.empty()) return Wrong(pair.first, path, InvalidArgument("an entry has no name"));
      if (!seen.insert(name).second) {
        return Wrong(pair.first, path + "." + name, InvalidArgument("is there twice"));
      }
      places[path + "." + name] = PlaceOf(pair.first);
      if (pair.second.IsNull()) {
        node.erase(name);
        continue;
      }
      Schema schema;
      node.entry(name, schema);
      CRISP_TRY(schema.LoadNode(&pair.second, file, path + "." + name, places));
    }
    return Status::Ok();
  }
};

void AppendComment(std::string& out, const std::string& indent, std::string_view text) {
  // Wrapped at 100 columns.
  std::string line;
  const auto flush = [&] {
    if (!line.empty()) out += fmt::format("{}#{}\n", indent, line);
    line.clear();
  };
  while (!text.empty()) {
    const std::string_view word = text.substr(0, text.find(' '));
    text.remove_prefix(std::min(text.size(), word.size() + 1));
    if (indent.size() + 2 + line.size() + word.size() > 100) flush();
    line += ' ';
    line += word;
  }
  flush();
}

}  // namespace

std::string_view CostText(Cost cost) {
  switch (cost) {
    case Cost::kLive: return "reload (SIGHUP)";
    case Cost::kNewPods: return "restart; existing pods keep the old value";
    case Cost::kRestart: return "restart";
  }
  return "";
}

Schema::Schema() : root_(std::make_unique<Node>()) {}
Schema::Schema(Schema&&) noexcept = default;
Schema& Schema::operator=(Schema&&) noexcept = default;
Schema::~Schema() = default;

Schema& Schema::Section(const std::string& path, std::string text) {
  At(*root_, path).doc.text = std::move(text);
  return *this;
}

Schema& Schema::Leaf(const std::string& path, Doc doc, Setter set,
                     std::function<std::string()> get) {
  Node& node = At(*root_, path);
  node.doc = std::move(doc);
  node.initial = get();
  node.get = std::move(get);
  node.set = [set = std::move(set)](const YAML::Node& yaml) { return set(&yaml); };
  return *this;
}

namespace {
const YAML::Node& AsYaml(const void* node) { return *static_cast<const YAML::Node*>(node); }
}  // namespace

Schema& Schema::Bool(const std::string& path, bool* field, Doc doc) {
  doc.allowed = "true or false";
  return Leaf(
      path, std::move(doc),
      [field](const void* yaml) -> Status {
        const std::string text = CRISP_TRY(Scalar(AsYaml(yaml)));
        if (text != "true" && text != "false")
          return InvalidArgument("'{}' is not true or false", text);
        *field = text == "true";
        return Status::Ok();
      },
      [field] { return std::string(*field ? "true" : "false"); });
}

Schema& Schema::Int(const std::string& path, std::int64_t* field, std::int64_t min,
                    std::int64_t max, Doc doc) {
  doc.allowed = fmt::format("{} to {}", min, max);
  return Leaf(
      path, std::move(doc),
      [field, min, max](const void* yaml) -> Status {
        const std::int64_t value = CRISP_TRY(Number(AsYaml(yaml)));
        CRISP_TRY(CheckRange(value, min, max));
        *field = value;
        return Status::Ok();
      },
      [field] { return fmt::format("{}", *field); });
}

Schema& Schema::Seconds(const std::string& path, std::chrono::seconds* field, std::int64_t min,
                        std::int64_t max, Doc doc) {
  doc.unit = "seconds";
  doc.allowed = fmt::format("{} to {}", min, max);
  return Leaf(
      path, std::move(doc),
      [field, min, max](const void* yaml) -> Status {
        const std::int64_t value = CRISP_TRY(Number(AsYaml(yaml)));
        CRISP_TRY(CheckRange(value, min, max));
        *field = std::chrono::seconds(value);
        return Status::Ok();
      },
      [field] { return fmt::format("{}", field->count()); });
}

Schema& Schema::Size(const std::string& path, Bytes* field, Bytes min, Bytes max, Doc doc) {
  if (doc.unit.empty()) doc.unit = "bytes, or KiB, MiB, GiB";
  doc.allowed = fmt::format("{} to {}", AmountText(min), AmountText(max));
  return Leaf(
      path, std::move(doc),
      [field, min, max](const void* yaml) -> Status {
        const Bytes value = CRISP_TRY(Amount(AsYaml(yaml)));
        if (value < min || value > max) {
          return InvalidArgument("{} is not within {} and {}", AmountText(value), AmountText(min),
                                 AmountText(max));
        }
        *field = value;
        return Status::Ok();
      },
      [field] { return AmountText(*field); });
}

Schema& Schema::Text(const std::string& path, std::string* field, Doc doc, Check check) {
  return Leaf(
      path, std::move(doc),
      [field, check = std::move(check)](const void* yaml) -> Status {
        std::string text = CRISP_TRY(Scalar(AsYaml(yaml)));
        if (check) CRISP_TRY(check(text));
        *field = std::move(text);
        return Status::Ok();
      },
      [field] { return Quoted(*field); });
}

Schema& Schema::OneOf(const std::string& path, std::string* field, std::vector<std::string> choices,
                      Doc doc) {
  doc.allowed = fmt::format("{}", fmt::join(choices, ", "));
  return Text(path, field, std::move(doc),
              [choices = std::move(choices)](const std::string& text) -> Status {
                for (const std::string& choice : choices) {
                  if (text == choice) return Status::Ok();
                }
                return InvalidArgument("'{}' is none of {}{}", text, fmt::join(choices, ", "),
                                       DidYouMean(text, choices));
              });
}

Status CheckPath(const std::string& path) {
  if (path.empty() || path.front() != '/') return InvalidArgument("'{}' is no absolute path", path);
  for (const auto& part : std::filesystem::path(path)) {
    if (part == "..") return InvalidArgument("'{}' has '..' in it", path);
  }
  return Status::Ok();
}

Schema& Schema::Path(const std::string& path, std::string* field, bool may_be_empty, Doc doc) {
  return Text(path, field, std::move(doc), [may_be_empty](const std::string& text) {
    return may_be_empty && text.empty() ? Status::Ok() : CheckPath(text);
  });
}

Schema& Schema::List(const std::string& path, std::vector<std::string>* field, Doc doc,
                     Check check) {
  return Leaf(
      path, std::move(doc),
      [field, check = std::move(check)](const void* given) -> Status {
        const YAML::Node& yaml = AsYaml(given);
        if (!yaml.IsSequence()) return InvalidArgument("is a list");
        std::vector<std::string> list;
        for (const auto& entry : yaml) {
          std::string text = CRISP_TRY(Scalar(entry));
          if (check) CRISP_TRY(check(text));
          list.push_back(std::move(text));
        }
        *field = std::move(list);
        return Status::Ok();
      },
      [field] { return internal::ListText(*field); });
}

Schema& Schema::MapOf(const std::string& path, const Doc& doc,
                      std::function<std::vector<std::string>()> names,
                      std::function<void(const std::string&, Schema&)> entry,
                      std::function<void(const std::string&)> erase) {
  Node& node = At(*root_, path);
  node.doc = doc;
  node.names = std::move(names);
  node.entry = std::move(entry);
  node.erase = std::move(erase);
  return *this;
}

Status Schema::LoadNode(const void* yaml, const std::string& file, const std::string& prefix,
                        Places& places) const {
  return Loader{file, places}.Section(*root_, AsYaml(yaml), prefix);
}

Status Schema::LoadText(std::string_view yaml, const std::string& name) const {
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(std::string(yaml));
    if (documents.empty()) return Status::Ok();
    if (documents.size() > 1) return InvalidArgument("{}: more than one document", name);
    return LoadNode(&documents.front(), name, "", root_->places);
  } catch (const YAML::Exception& e) {
    const std::string place = e.mark.line >= 0 ? fmt::format("{}:{}", name, e.mark.line + 1) : name;
    return InvalidArgument("{}: {}", place, e.msg);
  }
}

Status Schema::LoadFile(const std::string& path) const {
  const std::string text = CRISP_TRY(os::ReadFile(path, MiB(1)));
  root_->fingerprint =
      std::hash<std::string>()(fmt::format("{:x} {} {}", root_->fingerprint, path, text));
  return LoadText(text, path);
}

Status Schema::LoadFiles(const std::string& path, bool optional, const Texts& drop_ins) const {
  if (!optional || os::Exists(path)) CRISP_TRY(LoadFile(path));
  const std::string directory = path + ".d";
  std::set<std::string> names;
  for (const auto& [name, text] : drop_ins) names.insert(name);
  if (os::IsDirectory(directory)) {
    for (std::string& name : CRISP_TRY(os::ListDir(directory))) {
      if (name.ends_with(".yaml") && !name.starts_with(".")) names.insert(std::move(name));
    }
  }
  for (const std::string& name : names) {
    const std::string file = directory + "/" + name;
    const auto given = drop_ins.find(name);
    CRISP_TRY(given == drop_ins.end() ? LoadFile(file) : LoadText(given->second, file));
  }
  return Status::Ok();
}

namespace {

void DumpInto(std::string& out, const Node& node, const std::string& indent, bool commented,
              bool with_defaults) {
  bool first = true;
  for (const auto& child : node.children) {
    if (commented) {
      if (indent.empty() && !first) out += "\n";
      AppendComment(out, indent, child->doc.text);
      if (child->get) {
        std::vector<std::string> facts;
        if (with_defaults) facts.push_back("default " + child->initial);
        if (!child->doc.unit.empty()) facts.push_back(child->doc.unit);
        facts.push_back(fmt::format("to change: {}", CostText(child->doc.cost)));
        AppendComment(out, indent, fmt::format("{}", fmt::join(facts, "; ")));
      }
    }
    first = false;
    out += fmt::format("{}{}:", indent, child->name);
    if (child->get) {
      out += " " + child->get() + "\n";
    } else if (child->entry) {
      const std::vector<std::string> names = child->names();
      out += names.empty() ? " {}\n" : "\n";
      for (const std::string& name : names) {
        out += fmt::format("{}  {}:\n", indent, Quoted(name));
        Schema schema;
        child->entry(name, schema);
        schema.DumpNode(out, indent + "    ", commented && name == names.front(), false);
      }
    } else {
      out += "\n";
      DumpInto(out, *child, indent + "  ", commented, with_defaults);
    }
  }
}

}  // namespace

void Schema::DumpNode(std::string& out, const std::string& indent, bool commented,
                      bool with_defaults) const {
  DumpInto(out, *root_, indent, commented, with_defaults);
}

std::string Schema::Dump(bool commented) const {
  std::string out;
  DumpNode(out, "", commented, true);
  return out;
}

const Schema::Places& Schema::AllPlaces() const { return root_->places; }

std::string PlaceOf(const Schema::Places& places, std::string_view path) {
  while (true) {
    if (const auto found = places.find(path); found != places.end()) return found->second;
    const std::size_t dot = path.rfind('.');
    if (dot == std::string_view::npos) return "";
    path = path.substr(0, dot);
  }
}

std::string Schema::Fingerprint() const { return fmt::format("{:016x}", root_->fingerprint); }

}  // namespace crisp::config
