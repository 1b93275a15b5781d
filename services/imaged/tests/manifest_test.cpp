#include "services/imaged/core/manifest.h"

#include <catch2/catch.hpp>

#include "services/imaged/core/image_config.h"

namespace crisp::imaged {
namespace {

const std::string kDigestA = "sha256:" + std::string(64, 'a');
const std::string kDigestB = "sha256:" + std::string(64, 'b');

std::string Descriptor(const std::string& digest, const std::string& more = "") {
  return fmt::format(R"({{"digest":"{}","size":10{}}})", digest, more);
}
std::string Image(const std::string& more = "") {
  return fmt::format(R"({{"schemaVersion":2,"config":{},"layers":[{},{}]{}}})",
                     Descriptor(kDigestA), Descriptor(kDigestB), Descriptor(kDigestB), more);
}
std::string IndexOf(const std::vector<std::string>& platforms) {
  std::string entries;
  int n = 0;
  for (const std::string& platform : platforms) {
    ++n;
    entries += (n == 1 ? "" : ",") +
               Descriptor(fmt::format("sha256:{:064x}", n), ",\"platform\":" + platform);
  }
  return fmt::format(R"({{"schemaVersion":2,"manifests":[{}]}})", entries);
}

TEST_CASE("A manifest is read by its own media type, the header's, or its form") {
  const std::string docker =
      R"(,"mediaType":"application/vnd.docker.distribution.manifest.v2+json")";
  for (const std::string& text : {Image(), Image(docker)}) {
    const auto parsed = ParseManifest(text, "text/plain", 10);
    REQUIRE(parsed.ok());
    const Manifest& manifest = std::get<Manifest>(*parsed);
    CHECK(manifest.config.digest.str() == kDigestA);
    CHECK(manifest.layers.size() == 2);
    CHECK(manifest.layers[0].size == 10);
  }
  CHECK(std::holds_alternative<Index>(*ParseManifest(IndexOf({}), "", 10)));
}

TEST_CASE("A manifest that is malformed, too large or not an image is refused with a reason") {
  CHECK(ParseManifest(Image(), "", 1).code() == Code::kResourceExhausted);
  CHECK(ParseManifest("{", "", 10).code() == Code::kInvalidArgument);
  CHECK(ParseManifest("[]", "", 10).code() == Code::kInvalidArgument);
  CHECK(ParseManifest(R"({"schemaVersion":1})", "", 10).code() == Code::kUnimplemented);
  CHECK(ParseManifest(R"({"schemaVersion":2,"layers":[]})", "", 10).code() ==
        Code::kInvalidArgument);
  CHECK(ParseManifest(Image(R"(,"manifests":[])"), "", 10).code() == Code::kInvalidArgument);
  CHECK(ParseManifest(
            R"({"schemaVersion":2,"layers":[],"config":{"digest":"sha256:xyz","size":1}})", "", 10)
            .code() == Code::kInvalidArgument);
  CHECK(ParseManifest(fmt::format(R"({{"schemaVersion":2,"layers":[],"config":{}}})",
                                  Descriptor(kDigestA, R"(,"mediaType":"application/helm")")),
                      "", 10)
            .code() == Code::kUnimplemented);
  CHECK(ParseManifest(
            fmt::format(R"({{"schemaVersion":2,"layers":[],"config":{{"digest":"{}","size":-1}}}})",
                        kDigestA),
            "", 10)
            .code() == Code::kInvalidArgument);
}

TEST_CASE("The entry of an index that the machine runs best is chosen") {
  const std::string text = IndexOf({R"({"os":"linux","architecture":"arm64","variant":"v8"})",
                                    R"({"os":"linux","architecture":"amd64"})",
                                    R"({"os":"linux","architecture":"amd64","variant":"v3"})",
                                    R"({"os":"linux","architecture":"amd64","variant":"v4"})",
                                    R"({"os":"windows","architecture":"amd64"})",
                                    R"({"os":"unknown","architecture":"unknown"})",
                                    R"({"os":"linux","architecture":"arm","variant":"v7"})"});
  const auto parsed = ParseManifest(text, "", 10);
  REQUIRE(parsed.ok());
  const Index& index = std::get<Index>(*parsed);
  const auto chosen = [&index](const Platform& platform) {
    const auto entry = ChooseEntry(index, platform);
    return entry.ok() ? static_cast<int>(entry->digest.str().back()) - '0' : -1;
  };
  CHECK(chosen({"linux", "amd64", "v4"}) == 4);
  CHECK(chosen({"linux", "amd64", "v3"}) == 3);
  CHECK(chosen({"linux", "amd64", "v2"}) == 2);
  CHECK(chosen({"linux", "amd64", ""}) == 2);
  CHECK(chosen({"linux", "arm64", ""}) == 1);
  CHECK(chosen({"linux", "arm", "v6"}) == -1);
  CHECK(chosen({"linux", "arm", "v7"}) == 7);
  const auto none = ChooseEntry(index, {"linux", "riscv64", ""});
  CHECK(none.code() == Code::kNotFound);
  CHECK(none.status().message().find("linux/arm64/v8") != std::string::npos);
  CHECK(none.status().message().find("unknown") == std::string::npos);
}

TEST_CASE("A config gives the diff ids and the user, and the chain ids follow") {
  const auto config = ParseImageConfig(
      fmt::format(R"({{"config":{{"User":"1000:100"}},"rootfs":{{"diff_ids":["{}","{}"]}}}})",
                  kDigestA, kDigestB));
  REQUIRE(config.ok());
  CHECK(*config->uid == 1000);
  CHECK(config->username.empty());
  const auto chain = ChainIds(config->diff_ids);
  CHECK(chain[0].str() == kDigestA);
  CHECK(chain[1] == digest::Sha256Digest(kDigestA + " " + kDigestB));
  CHECK(ParseImageConfig(R"({"config":{"User":"joe:staff"}})")->username == "joe");
  CHECK(*ParseImageConfig(R"({"config":{"User":"0"}})")->uid == 0);
  CHECK_FALSE(ParseImageConfig(R"({"config":{}})")->uid.has_value());
  CHECK_FALSE(ParseImageConfig("[]").ok());
  CHECK_FALSE(ParseImageConfig(R"({"rootfs":{"diff_ids":["x"]}})").ok());
}

}  // namespace
}  // namespace crisp::imaged
