#include "services/imaged/core/schema1.h"

#include <algorithm>
#include <catch2/catch.hpp>

#include "libs/base/text.h"
#include "libs/http/url.h"
#include "libs/json/json.h"
#include "services/imaged/core/image_config.h"

namespace crisp::imaged {
namespace {

std::string Blob(char c) { return "sha256:" + std::string(64, c); }

nlohmann::json Old() {
  nlohmann::json manifest = {{"schemaVersion", 1}, {"name", "x/y"}, {"architecture", "arm64"}};
  const auto layer = [&manifest](const std::string& blob, const nlohmann::json& compatible) {
    manifest["fsLayers"].push_back({{"blobSum", blob}});
    manifest["history"].push_back({{"v1Compatibility", compatible.dump()}});
  };
  layer(Blob('b'), {{"id", "2"},
                    {"parent", "1"},
                    {"created", "2020-01-02T00:00:00Z"},
                    {"container_config", {{"Cmd", {"/bin/sh", "-c", "make"}}}},
                    {"config", {{"User", "7"}, {"Cmd", {"app"}}}},
                    {"os", "linux"},
                    {"Size", 5}});
  layer(Blob('e'), {{"id", "1"}, {"throwaway", true}, {"author", "joe"}});
  layer(Blob('a'), {{"id", "0"}, {"comment", "first"}});
  return manifest;
}

/// As Docker's registries sign: the text up to its last brace, then the signatures.
std::string Signed(const std::string& payload) {
  const auto url = [](std::string text) {
    text = Base64(text);
    std::replace(text.begin(), text.end(), '+', '-');
    std::replace(text.begin(), text.end(), '/', '_');
    while (text.ends_with('=')) text.pop_back();
    return text;
  };
  const std::size_t cut = payload.size() - 2;  // "\n}"
  const nlohmann::json form = {{"formatLength", cut}, {"formatTail", url(payload.substr(cut))}};
  const nlohmann::json signature = {{"signature", "x"}, {"protected", url(form.dump())}};
  return payload.substr(0, cut) + ",\n\"signatures\": [" + signature.dump() + "]" +
         payload.substr(cut);
}

TEST_CASE("An image of the first format becomes a config and layers, lowest first") {
  const auto image = ParseSchema1(Old().dump(), 10);
  REQUIRE(image.status().message() == "");
  REQUIRE(image->layers.size() == 2);
  CHECK(image->layers[0].str() == Blob('a'));
  CHECK(image->layers[1].str() == Blob('b'));
  const std::string text =
      ConfigOf(*image, {*digest::Digest::Parse(Blob('1')), *digest::Digest::Parse(Blob('2'))});
  const auto config = ParseImageConfig(text);
  REQUIRE(config.ok());
  CHECK(*config->uid == 7);
  CHECK(config->diff_ids.size() == 2);
  const nlohmann::json json = *json::Parse(text);
  CHECK(json["architecture"] == "arm64");
  CHECK(json["os"] == "linux");
  CHECK(json["config"]["Cmd"][0] == "app");
  CHECK(json["history"].size() == 3);
  CHECK(json["history"][0]["comment"] == "first");
  CHECK(json["history"][1]["empty_layer"] == true);
  CHECK(json["history"][1]["author"] == "joe");
  CHECK(json["history"][2]["created_by"] == "/bin/sh -c make");
  for (const char* gone : {"id", "parent", "Size", "throwaway"}) CHECK_FALSE(json.contains(gone));
}

TEST_CASE("Of a signed manifest only the signed part counts") {
  const std::string payload = Old().dump(3);
  CHECK(*SignedPayload(Signed(payload)) == payload);
  CHECK(*SignedPayload(payload) == payload);
  // Something else in the place of what was signed is thrown away with the signatures.
  std::string forged = Signed(payload);
  forged.insert(forged.rfind("\n}"), ",\n\"fsLayers\": []");
  CHECK(*SignedPayload(forged) == payload);
  CHECK(*SignedPayload(R"({"schemaVersion":2,"signatures":[{}]})") ==
        R"({"schemaVersion":2,"signatures":[{}]})");
  for (
      const char* bad :
      {R"({"schemaVersion":1,"signatures":[{}]})", R"({"schemaVersion":1,"signatures":[5]})",
       R"({"schemaVersion":1,"signatures":[{"protected":"%%"}]})",
       R"({"schemaVersion":1,"signatures":[{"protected":"e30"}]})",
       // {"formatLength":999999,"formatTail":"fQ"} and {"formatLength":-1,"formatTail":"fQ"}
       R"({"schemaVersion":1,"signatures":[{"protected":"eyJmb3JtYXRMZW5ndGgiOjk5OTk5OSwiZm9ybWF0VGFpbCI6ImZRIn0"}]})",
       R"({"schemaVersion":1,"signatures":[{"protected":"eyJmb3JtYXRMZW5ndGgiOi0xLCJmb3JtYXRUYWlsIjoiZlEifQ"}]})",
       R"({"schemaVersion":1,"signatures")"})
    CHECK(SignedPayload(bad).code() == Code::kInvalidArgument);
}

TEST_CASE("A malformed image of the first format is refused with a reason") {
  const auto code = [](const nlohmann::json& json) { return ParseSchema1(json.dump(), 10).code(); };
  nlohmann::json bad = Old();
  bad["history"].erase(0);
  CHECK(code(bad) == Code::kInvalidArgument);
  bad = Old();
  bad["history"][1]["v1Compatibility"] = "{";
  CHECK(ParseSchema1(bad.dump(), 10).status().message().find("history[1].v1Compatibility") !=
        std::string::npos);
  bad["history"][1]["v1Compatibility"] = "[]";
  CHECK(code(bad) == Code::kInvalidArgument);
  bad = Old();
  bad["fsLayers"][0]["blobSum"] = "md5:1";
  CHECK(code(bad) == Code::kInvalidArgument);
  bad["fsLayers"] = nlohmann::json::array();
  bad["history"] = nlohmann::json::array();
  CHECK(code(bad) == Code::kInvalidArgument);
  CHECK(ParseSchema1(Old().dump(), 2).code() == Code::kResourceExhausted);
}

}  // namespace
}  // namespace crisp::imaged
