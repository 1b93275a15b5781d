#include "libs/config/toml.h"

#include <catch2/catch.hpp>

namespace crisp::config {
namespace {

TEST_CASE("A TOML file is read with its lines and in its order") {
  const std::string file = "x.conf";
  const auto parsed = ParseToml(
      "z = \"last\"\n"
      "a = ['one', \"two\"]\n"
      "flag = true\n"
      "[host.\"https://b\"]\n"
      "n = 3\n"
      "[host.\"https://a\"]\n"
      "[[item]]\n"
      "name = 'x'\n"
      "[[item]]\n",
      file);
  REQUIRE(parsed.ok());
  const TomlTable root(*parsed, file);
  CHECK(*root.Text("z") == "last");
  CHECK(*root.Text("absent", "fallback") == "fallback");
  CHECK(*root.Texts("a") == std::vector<std::string>{"one", "two"});
  CHECK(*root.TextOrTexts("z") == std::vector<std::string>{"last"});
  CHECK(*root.Bool("flag", false));
  CHECK(root.Unknown({"z", "a", "flag", "item"}) == std::vector<std::string>{"host"});
  const TomlTable hosts = *root.Table("host");
  REQUIRE(hosts.value().members.size() == 2);
  CHECK(hosts.value().members[0].first == "https://b");
  CHECK(hosts.value().members[1].first == "https://a");
  CHECK(root.Tables("item")->size() == 2);
  CHECK(root.Table("nothing")->value().members.empty());
}

TEST_CASE("What is wrong with a TOML file is told with its file and line") {
  const auto message = [](std::string_view text) {
    return ParseToml(text, "x.conf").status().message();
  };
  CHECK(message("a = 1\nb = \n").starts_with("x.conf:2: "));
  CHECK(message("[never closed\n").starts_with("x.conf:1: "));
  CHECK(message("a = 1\na = 2\n").starts_with("x.conf:2: "));
  CHECK(ParseToml(std::string(5'000'000, '\n'), "x").code() == Code::kInvalidArgument);
  const std::string deep(100'000, '[');
  CHECK_FALSE(ParseToml("a = " + deep, "x").ok());

  const std::string file = "x.conf";
  const auto parsed = ParseToml("\na = 1\nb = ['x', 2]\nc = 'x'\n", file);
  const TomlTable root(*parsed, file);
  CHECK(root.Text("a").status().message() == "x.conf:2: a: a string is expected");
  CHECK(root.Texts("b").status().message() == "x.conf:3: b: an array of strings is expected");
  CHECK(root.Bool("c", true).code() == Code::kInvalidArgument);
  CHECK(root.Table("c").code() == Code::kInvalidArgument);
  CHECK(root.Tables("c").code() == Code::kInvalidArgument);
  CHECK(root.Tables("b").code() == Code::kInvalidArgument);
}

}  // namespace
}  // namespace crisp::config
