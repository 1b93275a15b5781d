#include <google/protobuf/descriptor.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <string>
#include <vector>

#include "cri/v1/api.pb.h"
#include "libs/os/files.h"

using namespace crisp;

namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::FileDescriptor;
using google::protobuf::MethodDescriptor;

constexpr const char* kFactsFile = CRISP_SOURCE_DIR "/protos/cri/v1/api.facts";
constexpr const char* kHead =
    "# What two programs must agree on to speak the CRI: api.proto without its comments.\n"
    "# crisp_wire_test compares it with what is compiled; CRISP_ACCEPT=1 writes it anew.\n";

/// Without the package, which is the same for all.
std::string NameIn(const FileDescriptor& file, const std::string& full_name) {
  const std::string prefix = file.package() + ".";
  return full_name.starts_with(prefix) ? full_name.substr(prefix.size()) : full_name;
}

std::string TypeOf(const FieldDescriptor& field) {
  if (field.is_map()) {
    const Descriptor& entry = *field.message_type();
    return fmt::format("map<{}, {}>", TypeOf(*entry.map_key()), TypeOf(*entry.map_value()));
  }
  std::string type = field.type_name();
  if (field.message_type() != nullptr) type = field.message_type()->full_name();
  if (field.enum_type() != nullptr) type = field.enum_type()->full_name();
  type = NameIn(*field.file(), type);
  if (field.is_repeated()) return "repeated " + type;
  if (field.has_optional_keyword()) return "optional " + type;
  if (field.containing_oneof() != nullptr) {
    return fmt::format("{} in {}", type, field.containing_oneof()->name());
  }
  return type;
}

void AddEnum(const EnumDescriptor& type, std::vector<std::string>& facts) {
  const std::string name = NameIn(*type.file(), type.full_name());
  for (int i = 0; i < type.value_count(); ++i) {
    facts.push_back(
        fmt::format("enum {} {} = {}", name, type.value(i)->name(), type.value(i)->number()));
  }
}

void AddMessage(const Descriptor& type, std::vector<std::string>& facts) {
  if (type.map_key() != nullptr) return;  // the entry of a map: its field says it
  const std::string name = NameIn(*type.file(), type.full_name());
  facts.push_back("message " + name);
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    facts.push_back(
        fmt::format("field {}.{} = {}: {}", name, field.name(), field.number(), TypeOf(field)));
  }
  for (int i = 0; i < type.enum_type_count(); ++i) AddEnum(*type.enum_type(i), facts);
  for (int i = 0; i < type.nested_type_count(); ++i) AddMessage(*type.nested_type(i), facts);
}

std::string MethodFact(const MethodDescriptor& method) {
  const auto side = [&method](const Descriptor& type, bool streams) {
    return (streams ? "stream " : "") + NameIn(*method.file(), type.full_name());
  };
  return fmt::format("rpc /{}/{}({}) returns ({})", method.service()->full_name(), method.name(),
                     side(*method.input_type(), method.client_streaming()),
                     side(*method.output_type(), method.server_streaming()));
}

std::vector<std::string> FactsOf(const FileDescriptor& file) {
  std::vector<std::string> facts;
  for (int i = 0; i < file.service_count(); ++i) {
    for (int k = 0; k < file.service(i)->method_count(); ++k) {
      facts.push_back(MethodFact(*file.service(i)->method(k)));
    }
  }
  for (int i = 0; i < file.enum_type_count(); ++i) AddEnum(*file.enum_type(i), facts);
  for (int i = 0; i < file.message_type_count(); ++i) AddMessage(*file.message_type(i), facts);
  std::sort(facts.begin(), facts.end());
  return facts;
}

std::vector<std::string> ReadFacts() {
  std::vector<std::string> facts;
  const std::string text = os::ReadFile(kFactsFile).value_or(std::string());
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    if (text[at] != '#' && end > at) facts.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return facts;
}

std::vector<std::string> Without(const std::vector<std::string>& all,
                                 const std::vector<std::string>& some) {
  std::vector<std::string> rest;
  std::set_difference(all.begin(), all.end(), some.begin(), some.end(), std::back_inserter(rest));
  return rest;
}

}  // namespace

TEST_CASE("Names, numbers and types of the CRI are those that its clients know") {
  const std::vector<std::string> now = FactsOf(*runtime::v1::VersionRequest::descriptor()->file());
  if (std::getenv("CRISP_ACCEPT") != nullptr) {
    std::string text = kHead;
    for (const std::string& fact : now) text += fact + "\n";
    REQUIRE(os::WriteFile(kFactsFile, text).ok());
  }
  std::vector<std::string> agreed = ReadFacts();
  REQUIRE(agreed.size() > 500);
  std::sort(agreed.begin(), agreed.end());
  // A line that changes is a client that breaks.
  CHECK(Without(agreed, now) == std::vector<std::string>());
  CHECK(Without(now, agreed) == std::vector<std::string>());
}
