#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>

#include "libs/archive/tests/compress.h"
#include "libs/archive/tests/tar_writer.h"
#include "libs/digest/digest.h"
#include "libs/http/tests/raw_server.h"

namespace crisp::imaged::testing {

using archive::testing::GzipOf;
using archive::testing::TarWriter;
using archive::testing::ZstdOf;
using http::testing::RawServer;

/// Random enough not to shrink.
inline std::string Noise(std::size_t size) {
  std::string text;
  std::uint64_t state = 88172645463325252U;
  while (text.size() < size) {
    state ^= state << 13U;
    state ^= state >> 7U;
    state ^= state << 17U;
    text.append(reinterpret_cast<const char*>(&state), sizeof state);
  }
  return text.substr(0, size);
}

enum class Flavour { kOci, kDocker };
enum class Pack { kGzip, kZstd, kPlain };

/// An image as its blobs and its manifest.
struct TestImage {
  std::map<std::string, std::string> blobs;  // by digest
  std::string manifest;
  std::string manifest_type;
  std::string manifest_digest;
  std::string config_digest;
  std::vector<std::string> layer_digests;

  static TestImage Make(const std::vector<std::pair<std::string, Pack>>& layers,
                        Flavour flavour = Flavour::kOci, const std::string& user = "") {
    const bool oci = flavour == Flavour::kOci;
    TestImage image;
    nlohmann::json config = {{"os", "linux"}, {"architecture", "amd64"}};
    config["config"] = {{"Cmd", {"/bin/sh"}}, {"User", user}};
    config["rootfs"] = {{"type", "layers"}, {"diff_ids", nlohmann::json::array()}};
    nlohmann::json manifest = {{"schemaVersion", 2}, {"layers", nlohmann::json::array()}};
    image.manifest_type = oci ? "application/vnd.oci.image.manifest.v1+json"
                              : "application/vnd.docker.distribution.manifest.v2+json";
    manifest["mediaType"] = image.manifest_type;
    for (const auto& [tar, pack] : layers) {
      config["rootfs"]["diff_ids"].push_back("sha256:" + digest::Sha256Hex(tar));
      std::string blob = pack == Pack::kGzip   ? GzipOf(tar)
                         : pack == Pack::kZstd ? ZstdOf(tar)
                                               : tar;
      const std::string type = !oci ? "application/vnd.docker.image.rootfs.diff.tar.gzip"
                               : pack == Pack::kZstd
                                   ? "application/vnd.oci.image.layer.v1.tar+zstd"
                                   : "application/vnd.oci.image.layer.v1.tar+gzip";
      image.layer_digests.push_back(image.Add(std::move(blob)));
      manifest["layers"].push_back({{"mediaType", type},
                                    {"digest", image.layer_digests.back()},
                                    {"size", image.blobs[image.layer_digests.back()].size()}});
    }
    const std::string text = config.dump();
    image.config_digest = image.Add(text);
    manifest["config"] = {{"mediaType", oci ? "application/vnd.oci.image.config.v1+json"
                                            : "application/vnd.docker.container.image.v1+json"},
                          {"digest", image.config_digest},
                          {"size", text.size()}};
    image.manifest = manifest.dump();
    image.manifest_digest = "sha256:" + digest::Sha256Hex(image.manifest);
    return image;
  }
  std::string Add(std::string blob) {
    std::string digest = "sha256:" + digest::Sha256Hex(blob);
    blobs[digest] = std::move(blob);
    return digest;
  }
};

/// A registry of one image that may lie, cut, refuse and stumble.
class LyingRegistry {
 public:
  explicit LyingRegistry(TestImage served)
      : image(std::move(served)),
        server_([this](const std::string& head) { return Answer(head); }) {}

  TestImage image;
  /// Other manifests by tag or digest: type and text.
  std::map<std::string, std::pair<std::string, std::string>> documents;
  /// Adds one under its digest, which it answers.
  std::string Serve(const std::string& type, const std::string& text) {
    const std::string digest = "sha256:" + digest::Sha256Hex(text);
    documents[digest] = {type, text};
    return digest;
  }
  /// Serves another image, too, by its tag.
  void Also(const TestImage& other, const std::string& tag) {
    const std::lock_guard lock(mutex);
    image.blobs.insert(other.blobs.begin(), other.blobs.end());
    documents[tag] = {other.manifest_type, other.manifest};
  }
  // What goes wrong; set before the first request.
  std::string wrong_blob;              // digest whose bytes are another's
  std::string cut_blob;                // digest that breaks off after each 100 KB
  std::atomic<int> cut_documents = 0;  // so many manifests and configs break off in the middle
  int away_after_cut = 0;       // so many requests after the first cut of a blob get no answer
  bool no_ranges = false;       // and knows no Range
  bool no_tail_ranges = false;  // knows none that begins beyond 0 and has an end
  bool shifted_ranges = false;  // of those it sends others than were asked for
  bool new_versions = false;    // each answer has another ETag
  bool always_short = false;    // a cut blob that never gets further
  std::string stalled_blob;     // digest that goes silent in the middle
  std::function<void(const std::string& digest)> before_blob;  // on the connection's thread
  std::atomic<int> failures = 0;  // so many answers are `failure` first
  std::string failure = "503 Busy";
  std::string failure_headers;  // "Retry-After: 1\r\n"
  std::string redirect_blobs;   // "http://host": where blobs really are
  std::string redirect_manifests;
  std::string token;                    // wanted as bearer, given out for joe:secret
  bool only_refresh = false;            // the token is given for the refresh token "refresh" alone
  bool token_no_use = false;            // and then refused all the same
  std::atomic<int> token_failures = 0;  // so many answers of the token server are `failure` first,
                                        // or with "" a connection that breaks
  std::string basic;                    // wanted as basic
  std::atomic<int> blob_requests = 0;
  std::atomic<int> manifest_requests = 0;
  std::atomic<int> token_requests = 0;
  std::mutex mutex;
  std::vector<std::string> heads;
  std::map<std::string, std::uint64_t> blob_bytes;  // answered, by digest

  std::string Name(const std::string& rest = ":latest") const {
    return server_.HostPort() + "/test/image" + rest;
  }
  const RawServer& server() const { return server_; }
  /// How many bytes of a blob were sent.
  std::uint64_t Answered(const std::string& digest) {
    const std::lock_guard lock(mutex);
    return blob_bytes[digest];
  }
  /// How many requests had this in their head.
  int Seen(const std::string& text) {
    const std::lock_guard lock(mutex);
    return static_cast<int>(std::count_if(
        heads.begin(), heads.end(),
        [&text](const std::string& head) { return head.find(text) != std::string::npos; }));
  }

 private:
  static std::string Status(const std::string& line, const std::string& headers,
                            const std::string& body) {
    return "HTTP/1.1 " + line + "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" +
           headers + "\r\n" + body;
  }
  RawServer::Answer Answer(const std::string& head) {
    {
      const std::lock_guard lock(mutex);
      heads.push_back(head);
    }
    if (away_ > 0) {
      --away_;
      return {"", true};
    }
    const std::size_t from = head.find(' ') + 1;
    const std::string path = head.substr(from, head.find_first_of(" ?", from) - from);
    if (failures > 0) {
      --failures;
      return {Status(failure, failure_headers, "")};
    }
    if (path.starts_with("/token")) {
      ++token_requests;
      if (token_failures > 0) {
        --token_failures;
        if (failure.empty()) return {"", true};
        return {Status(failure, failure_headers, "")};
      }
      if (only_refresh) {
        if (!head.starts_with("POST ") ||
            head.find("grant_type=refresh_token&") == std::string::npos ||
            !head.ends_with("&refresh_token=refresh"))
          return {Status("401 Unauthorized", "", "")};
        return {RawServer::Ok("{\"access_token\":\"" + token + "\",\"expires_in\":300}")};
      }
      if (head.find("Authorization: Basic am9lOnNlY3JldA==") == std::string::npos)
        return {Status("401 Unauthorized", "", "")};
      CHECK(head.find("scope=repository%3Atest%2Fimage%3Apull") != std::string::npos);
      return {RawServer::Ok("{\"token\":\"" + token + "\"}")};
    }
    if (!token.empty() &&
        (token_no_use || head.find("Authorization: Bearer " + token) == std::string::npos))
      return {Status("401 Unauthorized",
                     "WWW-Authenticate: Bearer realm=\"http://" + server_.HostPort() +
                         "/token\",service=\"s\"\r\n",
                     "")};
    if (!basic.empty() && head.find("Authorization: Basic " + basic) == std::string::npos)
      return {Status("401 Unauthorized", "WWW-Authenticate: Basic realm=\"r\"\r\n", "")};
    const std::string manifests = "/v2/test/image/manifests/";
    const std::string blobs = "/v2/test/image/blobs/";
    if (path.starts_with(manifests)) {
      ++manifest_requests;
      if (!redirect_manifests.empty())
        return {Status("307 Temporary Redirect", "Location: " + redirect_manifests + path + "\r\n",
                       "")};
      const std::string wanted = path.substr(manifests.size());
      if (const auto other = documents.find(wanted); other != documents.end())
        return {
            RawServer::Ok(other->second.second, "Content-Type: " + other->second.first + "\r\n")};
      if (wanted != "latest" && wanted != image.manifest_digest)
        return {Status("404 Not Found", "",
                       R"({"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]})")};
      return Document(
          RawServer::Ok(image.manifest, "Content-Type: " + image.manifest_type + "\r\n"));
    }
    if (path.starts_with(blobs)) {
      ++blob_requests;
      if (!redirect_blobs.empty())
        return {
            Status("307 Temporary Redirect", "Location: " + redirect_blobs + path + "\r\n", "")};
      return Blob(path.substr(blobs.size()), head);
    }
    return {Status("404 Not Found", "", "")};
  }
  RawServer::Answer Document(const std::string& answer) {
    if (cut_documents == 0) return {answer};
    --cut_documents;
    return {answer.substr(0, answer.size() - 10), true};
  }
  RawServer::Answer Blob(const std::string& digest, const std::string& head) {
    const auto found = image.blobs.find(digest);
    if (found == image.blobs.end()) return {Status("404 Not Found", "", "")};
    if (before_blob) before_blob(digest);
    std::string blob = found->second;
    if (digest == wrong_blob) blob[blob.size() / 2] = static_cast<char>(blob[blob.size() / 2] ^ 1);
    std::size_t offset = 0;
    std::size_t end = blob.size();
    bool ranged = false;
    if (const auto range = head.find("Range: bytes="); range != std::string::npos && !no_ranges) {
      const std::string text = head.substr(range + 13, head.find('\r', range) - range - 13);
      const std::size_t last = text.find('-') + 1;
      const std::size_t first = std::stoul(text);
      const bool bounded = last < text.size();
      if (!bounded || first == 0 || !no_tail_ranges) {
        ranged = true;
        offset = first;
        if (bounded) end = std::min(end, std::stoul(text.substr(last)) + 1);
        if (bounded && first > 0 && shifted_ranges) --offset, --end;
      }
    }
    std::string answer = fmt::format("HTTP/1.1 {}\r\nContent-Length: {}\r\nETag: \"{}\"\r\n",
                                     ranged ? "206 Partial Content" : "200 OK", end - offset,
                                     new_versions ? versions_++ : 0);
    if (ranged)
      answer += fmt::format("Content-Range: bytes {}-{}/{}\r\n", offset, end - 1, blob.size());
    answer += "\r\n";
    blob.resize(end);
    {
      const std::lock_guard lock(mutex);
      blob_bytes[digest] += end - offset;
    }
    if (digest == image.config_digest) return Document(answer + blob);
    if (digest == cut_blob) {
      if (cuts_++ == 0) away_ = away_after_cut;
      const std::size_t step = always_short ? (offset > 0 ? 0 : 5000) : 100'000;
      const std::size_t count = no_ranges && ++tries_ > 1 ? blob.size() : step;
      return {answer + blob.substr(offset, count), true};
    }
    if (digest == stalled_blob && tries_++ == 0)
      return {answer + blob.substr(offset, 5000), false, true};
    return {answer + blob.substr(offset)};
  }

  std::atomic<int> tries_ = 0;
  std::atomic<int> cuts_ = 0;
  std::atomic<int> away_ = 0;
  std::atomic<int> versions_ = 0;
  RawServer server_;
};

inline TestImage TwoLayers() {
  return TestImage::Make(
      {{TarWriter().Dir("etc/").File("etc/name", "low").File("noise", Noise(700'000)).Done(),
        Pack::kGzip},
       {TarWriter().File("etc/name", "high").HardLink("etc/noise", "noise").Done(), Pack::kZstd}},
      Flavour::kOci, "1000:100");
}

}  // namespace crisp::imaged::testing
