#include "libs/config/yaml_edit.h"

#include <catch2/catch.hpp>

using namespace crisp;
using namespace crisp::config;

TEST_CASE("A value is put at its place, and all else stays") {
  CHECK(WithValue("", {"log", "level"}, "debug").value() == "log:\n  level: debug\n");
  const std::string old = "log:\n  format: json\n  level: info\nrund:\n  default_umask: 0022\n";
  const std::string changed = WithValue(old, {"log", "level"}, "debug").value();
  CHECK(changed.find("format: json") != changed.npos);
  CHECK(changed.find("level: debug") != changed.npos);
  CHECK(changed.find("level: info") == changed.npos);
  CHECK(changed.find("default_umask: 0022\n") != changed.npos);
}

TEST_CASE("Lists, quoted words and null are values too") {
  CHECK(WithValue("", {"a"}, "[x, 'y: z']").value() == "a: [x, \"y: z\"]\n");
  CHECK(WithValue("a:\n  b: 1\n", {"a", "b"}, "null").value().find("b: ~") != std::string::npos);
  CHECK(WithValue("a: 1\n", {"a", "b"}, "2").value() == "a:\n  b: 2\n");
}

TEST_CASE("What is no YAML is refused") {
  CHECK(WithValue("a: [", {"a"}, "1").code() == Code::kInvalidArgument);
  CHECK(WithValue("", {"a"}, "[1").code() == Code::kInvalidArgument);
  CHECK(WithValue("- 1\n", {"a"}, "1").code() == Code::kInvalidArgument);
}
