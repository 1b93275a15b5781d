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
  CHECK(ParseManifest(R"({"schemaVersion":1})", "", 10).code() == Code::kInvalidArgument);
  CHECK(ParseManifest(R"({"schemaVersion":3})", "", 10).code() == Code::kInvalidArgument);
  const auto layer = [](const std::string& type) {
    return ParseManifest(
        fmt::format(R"({{"schemaVersion":2,"config":{},"layers":[{}]}})", Descriptor(kDigestA),
                    Descriptor(kDigestB, fmt::format(R"(,"mediaType":"{}")", type))),
        "", 10);
  };
  for (const char* type :
       {"application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd", "",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar"}) {
    const auto parsed = layer(type);
    REQUIRE(parsed.status().message() == "");
    CHECK_FALSE(std::get<Manifest>(*parsed).layers[0].foreign);
  }
  for (const char* type : {"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                           "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"})
    CHECK(std::get<Manifest>(*layer(type)).layers[0].foreign);
  for (const char* type : {"application/vnd.cncf.helm.chart.content.v1.tar+gzip", "text/plain",
                           "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
                           "application/vnd.oci.image.layer.v1.tar+xz"}) {
    const auto refused = layer(type);
    CHECK(refused.code() == Code::kUnimplemented);
    CHECK(refused.status().message().find(kDigestB) != std::string::npos);
  }
  const auto artifact = ParseManifest(
      fmt::format(R"({{"schemaVersion":2,"artifactType":"text/x-model","layers":[],"config":{}}})",
                  Descriptor(kDigestA, R"(,"mediaType":"application/vnd.oci.empty.v1+json")")),
      "", 10);
  CHECK(artifact.code() == Code::kUnimplemented);
  CHECK(artifact.status().message() ==
        "this is not a container image but an artifact of the type text/x-model");
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

TEST_CASE("Entries without a platform and indexes come after those that fit") {
  const std::string index_type = R"(,"mediaType":"application/vnd.oci.image.index.v1+json")";
  const auto entry = [](int n, const std::string& more) {
    return Descriptor(fmt::format("sha256:{:064x}", n), more);
  };
  const auto parsed = ParseManifest(
      fmt::format(R"({{"schemaVersion":2,"manifests":[{},{},{},{}]}})", entry(1, index_type),
                  entry(2, ""), entry(3, R"(,"platform":{"os":"linux","architecture":"amd64"})"),
                  entry(4, R"(,"platform":{"os":"linux","architecture":"s390x"})")),
      "", 10);
  REQUIRE(parsed.status().message() == "");
  const auto candidates = Candidates(std::get<Index>(*parsed), {"linux", "amd64", "v1"});
  REQUIRE(candidates.ok());
  std::string order;
  for (const auto& each : *candidates) order.push_back(each.digest.str().back());
  CHECK(order == "321");
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
