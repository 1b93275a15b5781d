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
  CHECK(ParseManifest(R"({"schemaVersion":2,"layers":[]})", "", 10).code() ==
        Code::kInvalidArgument);
  CHECK(ParseManifest(Image(R"(,"manifests":[])"), "", 10).code() == Code::kInvalidArgument);
  CHECK(ParseManifest(
            R"({"schemaVersion":2,"layers":[],"config":{"digest":"sha256:xyz","size":1}})", "", 10)
            .code() == Code::kInvalidArgument);
  CHECK(ParseManifest(
            fmt::format(R"({{"schemaVersion":2,"layers":[],"config":{{"digest":"{}","size":-1}}}})",
                        kDigestA),
            "", 10)
            .code() == Code::kInvalidArgument);
}

TEST_CASE("What has no image's configuration is an artifact, or an image's layers alone") {
  const auto parse = [](const std::string& config_type, const std::vector<std::string>& layers) {
    int n = 0;
    std::string all;
    for (const std::string& layer : layers) {
      if (!all.empty()) all += ",";
      all += Descriptor(fmt::format("sha256:{:064x}", ++n), layer);
    }
    return ParseManifest(
        fmt::format(
            R"({{"schemaVersion":2,"artifactType":"text/x-model","config":{},"layers":[{}]}})",
            Descriptor(kDigestA, fmt::format(R"(,"mediaType":"{}")", config_type)), all),
        "", 10);
  };
  const std::string empty = "application/vnd.oci.empty.v1+json";
  const std::string tar = R"(,"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip")";
  const auto titled = [](const std::string& type, const std::string& title) {
    return fmt::format(
        R"(,"mediaType":"{}","annotations":{{"org.opencontainers.image.title":"{}"}})", type,
        title);
  };
  const auto bare = std::get<Manifest>(*parse(empty, {tar, tar}));
  CHECK(bare.kind == Manifest::Kind::kBare);
  CHECK(bare.layers.size() == 2);
  CHECK(bare.layers[0].file.empty());
  const auto files = [&](const std::string& config_type, const std::vector<std::string>& layers) {
    const auto parsed = parse(config_type, layers);
    REQUIRE(parsed.status().message() == "");
    const Manifest& manifest = std::get<Manifest>(*parsed);
    CHECK(manifest.kind == Manifest::Kind::kArtifact);
    CHECK(manifest.artifact_type == "text/x-model");
    std::string names;
    for (const auto& layer : manifest.layers) names += layer.file + " ";
    return names;
  };
  CHECK(files(empty, {}).empty());
  CHECK(files(empty, {fmt::format(R"(,"mediaType":"{}")", empty)}).empty());
  CHECK(files(empty, {titled("text/plain", "a.txt"), titled("text/plain", "/deep//./b.txt")}) ==
        "a.txt deep/b.txt ");
  // Many tools call every file a layer.
  CHECK(files(empty, {titled("application/vnd.oci.image.layer.v1.tar", "model.bin")}) ==
        "model.bin ");
  CHECK(files("application/helm", {R"(,"mediaType":"x/y")"}) == fmt::format("{:064x} ", 1));
  for (const char* title :
       {"../up", "a/../../b", "..", "/", ".wh.gone", "d/.wh..wh..opq", "a\\u0000b"}) {
    const auto refused = parse("application/helm", {titled("x/y", title)});
    CAPTURE(title);
    CHECK(refused.code() == Code::kInvalidArgument);
    CHECK(refused.status().message().find("no name for a file") != std::string::npos);
  }
  CHECK(parse("x/y", {titled("x/y", std::string(256, 'n'))}).code() == Code::kInvalidArgument);
  CHECK(parse("x/y", {titled("x/y", "same"), titled("x/y", "./same")}).code() ==
        Code::kInvalidArgument);
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
