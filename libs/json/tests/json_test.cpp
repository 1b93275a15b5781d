#include "libs/json/json.h"

#include <catch2/catch.hpp>

namespace crisp::json {
namespace {

nlohmann::json Sample() {
  auto value =
      Parse(R"({"a": "x", "n": 5, "b": true, "list": ["p", "q"], "o": {"in": {"s": "deep"}},
                         "nil": null, "dotted.key": "d", "big": 18446744073709551615, "f": 1.5})");
  REQUIRE(value.ok());
  return std::move(value).value();
}

TEST_CASE("Getters find members and paths") {
  const auto j = Sample();
  CHECK(GetString(j, "a").value() == "x");
  CHECK(GetString(j, "o.in.s").value() == "deep");
  CHECK(GetString(j, "dotted.key").value() == "d");
  CHECK(GetInt(j, "n").value() == 5);
  CHECK(OptBool(j, "b").value());
  CHECK(GetArray(j, "list").value().size() == 2);
  CHECK(GetObject(j, "o.in").value().size() == 1);
  CHECK(OptStrings(j, "list").value() == std::vector<std::string>{"p", "q"});
  CHECK(Find(j, "o.in.s") != nullptr);
}

TEST_CASE("A broken file is told by its line, and nothing of it is quoted") {
  CHECK(ParseFile("{\n\"a\": 1\n}", "x.json").ok());
  CHECK(ParseFile("{\n\"secret\": oops\n}", "x.json").status().message() ==
        "x.json:2: is not JSON");
  CHECK(ParseFile("", "x.json").status().message() == "x.json:1: is not JSON");
  CHECK(ParseFile("[1e999]", "x.json").status().message().find("999") == std::string::npos);
  CHECK(ParseFile(std::string(100, '['), "x.json").code() == Code::kInvalidArgument);
  CHECK(ParseFile("[1, 2]", "x.json", {.max_bytes = 3}).code() == Code::kResourceExhausted);
}

TEST_CASE("What is absent or null is the fallback, or an error by name") {
  const auto j = Sample();
  CHECK(OptString(j, "none", "f").value() == "f");
  CHECK(OptString(j, "nil", "f").value() == "f");
  CHECK(OptInt(j, "o.in.none", 7).value() == 7);
  CHECK(OptString(j, "nil.deeper", "f").value() == "f");
  CHECK(OptArray(j, "none").value().is_array());
  CHECK(OptObject(j, "none").value().is_object());
  CHECK(Find(j, "nil") == nullptr);
  CHECK(GetString(j, "o.in.none").status().message() == "o.in.none: is missing");
}

TEST_CASE("A wrong type is an error that names the path") {
  const auto j = Sample();
  CHECK(GetString(j, "n").status().message() == "n: a string is expected, got number");
  CHECK(OptString(j, "n").code() == Code::kInvalidArgument);
  CHECK(GetInt(j, "f").code() == Code::kInvalidArgument);
  CHECK(GetInt(j, "big").code() == Code::kInvalidArgument);
  CHECK(OptString(j, "a.b").status().message() == "a: an object is expected, got string");
  CHECK(GetString(nlohmann::json(3), "a").code() == Code::kInvalidArgument);
  CHECK(OptStrings(Parse(R"({"l": ["x", 3]})").value(), "l").status().message() ==
        "l[1]: a string is expected, got number");
}

TEST_CASE("Bad, long and deep texts are refused") {
  for (const char* bad : {"", "{", "{} x", "{'a': 1}", "[1,]", "nul", "\"\xff\"", "1e999"}) {
    CHECK(Parse(bad).code() == Code::kInvalidArgument);
  }
  CHECK(Parse(std::string(100, '1'), {.max_bytes = 99}).code() == Code::kResourceExhausted);
  const std::string deep = std::string(1000000, '[');
  CHECK(Parse(deep).code() == Code::kInvalidArgument);
  CHECK(Parse(R"(["[[[[\"[[[["])", {.max_depth = 1}).ok());
  CHECK(Parse("[[1]]", {.max_depth = 1}).code() == Code::kInvalidArgument);
  CHECK(Parse("[[1],[2],[3]]", {.max_depth = 2}).ok());
}

TEST_CASE("A key that is there twice is refused where keys must be unique") {
  const Limits unique{.unique_keys = true};
  CHECK(Parse(R"({"a":1,"a":2})")->at("a") == 2);
  CHECK(Parse(R"({"a":1,"a":2})", unique).code() == Code::kInvalidArgument);
  CHECK(Parse(R"([{"b":{"a":{},"c":1,"a":[]}}])", unique).status().message() ==
        "JSON: the key a is there twice");
  CHECK(Parse(R"([{"a":{"a":[{"a":1}]}},{"a":"a"}])", unique).ok());
}

TEST_CASE("Dump never throws") { CHECK(Dump({{"a", "\xff"}}) == "{\"a\":\"\xEF\xBF\xBD\"}"); }

/// The items' "n", and the rest; the text comes in pieces of that size.
struct Items {
  explicit Items(std::string_view text, std::size_t piece = 3, const ItemLimits& limits = {}) {
    const auto next = [&text, piece]() -> Result<std::string_view> {
      const std::string_view now = text.substr(0, piece);
      text.remove_prefix(now.size());
      return now;
    };
    const auto item = [this](const nlohmann::json& value) -> Status {
      const auto n = GetInt(value, "n");
      if (!n.ok()) return n.status();
      found.push_back(*n);
      return Status::Ok();
    };
    rest = ParseItems(next, "items", item, limits);
  }
  std::vector<std::int64_t> found;
  Result<nlohmann::json> rest = Internal("not parsed");
};

TEST_CASE("A large document's items come one by one, in pieces of any size") {
  const std::string text =
      R"({"v": 1, "items": [{"n": 1, "x": {"n": 5}}, {"n": 2, "s": "}]\"["}], "d": {"n": 7}})";
  for (const std::size_t piece : {1UL, 3UL, 1000UL}) {
    const Items items(text, piece);
    REQUIRE(items.rest.status().message() == "");
    CHECK(items.found == std::vector<std::int64_t>{1, 2});
    CHECK(GetInt(*items.rest, "v").value() == 1);
    CHECK(GetInt(*items.rest, "d.n").value() == 7);
    CHECK(GetArray(*items.rest, "items").value().empty());
  }
  CHECK(Items("[{\"n\": 1}]").found.empty());
  CHECK(Items(R"({"other": [{"n": 1}]})").found.empty());
}

TEST_CASE("A large document is held to its bounds, and ends at the first wrong item") {
  CHECK(Items("{\"items\": [{\"n\": 1}, {\"n\": \"x\"}, {\"n\": 3}]}").rest.status().message() ==
        "n: an integer is expected, got string");
  CHECK(Items("{\"items\": [{\"n\": 1}").rest.code() == Code::kInvalidArgument);
  CHECK(Items("").rest.code() == Code::kInvalidArgument);
  CHECK(Items("{} {}").rest.code() == Code::kInvalidArgument);
  CHECK(Items(std::string(100'000, '[')).rest.code() == Code::kInvalidArgument);
  std::string many = "{\"items\": [{\"n\": 0}";
  for (int i = 1; i < 1000; ++i) many += ", {\"n\": " + std::to_string(i) + "}";
  many += "]}";
  CHECK(Items(many, 100, {.max_item = 64}).found.size() == 1000);
  CHECK(Items(many, 100, {.max_bytes = 5000}).rest.code() == Code::kResourceExhausted);
  std::string wide = "{\"items\": [{\"n\": 1, \"x\": [1";
  for (int i = 0; i < 1000; ++i) wide += ",1";
  CHECK(Items(wide + "]}]}", 100, {.max_item = 64}).rest.code() == Code::kResourceExhausted);
}

}  // namespace
}  // namespace crisp::json
