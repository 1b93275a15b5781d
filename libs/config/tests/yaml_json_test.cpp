#include "libs/config/yaml_json.h"

#include <catch2/catch.hpp>

namespace crisp::config {
namespace {

using nlohmann::json;

TEST_CASE("plain scalars have the types that YAML gives them, quoted ones are text") {
  const json value = YamlToJson(R"(
a: 1
b: -2
c: 18446744073709551615
d: "1"
e: true
f:
g: 0.7.0
h: [x, 'null', 1.5, 0o660]
i: {j: ~}
)")
                         .value();
  CHECK(value == json::parse(R"({"a":1,"b":-2,"c":18446744073709551615,"d":"1","e":true,"f":null,
      "g":"0.7.0","h":["x","null",1.5,432],"i":{"j":null}})"));
  CHECK(value["a"].is_number_unsigned());
  CHECK(YamlToJson(R"({"json": ["is", "YAML"]})").value() == json{{"json", {"is", "YAML"}}});
}

TEST_CASE("what is no YAML, or grows without end, is an error") {
  CHECK(YamlToJson("a: [").code() == Code::kInvalidArgument);
  CHECK(YamlToJson("a: 1\na: 2").code() == Code::kInvalidArgument);
  CHECK(YamlToJson("? [a]\n: 1").code() == Code::kInvalidArgument);
  // Nine levels of nine aliases each.
  std::string bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n";
  for (int i = 1; i < 10; ++i) {
    std::string refs;
    for (int k = 0; k < 9; ++k) refs += (k == 0 ? "*a" : ",*a") + std::to_string(i - 1);
    bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + refs + "]\n";
  }
  CHECK(YamlToJson(bomb).code() == Code::kInvalidArgument);
  CHECK(YamlToJson(std::string(200, '[') + std::string(200, ']')).code() == Code::kInvalidArgument);
}

}  // namespace
}  // namespace crisp::config
