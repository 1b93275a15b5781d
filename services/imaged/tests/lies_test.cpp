// A table of lies that a registry may tell the daemon: each ends in its one error, soon, with
// nothing left behind and in little memory; and the daemon goes on. Needs root.
#include <catch2/catch.hpp>
#include <charconv>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>

#include "libs/archive/tests/compress.h"
#include "libs/archive/tests/tar_writer.h"
#include "libs/digest/digest.h"
#include "libs/http/tests/raw_server.h"
#include "services/imaged/tests/daemon_node.h"

namespace crisp::imaged {
namespace {

using archive::testing::TarWriter;
using http::testing::RawServer;
using Answer = RawServer::Answer;
using std::chrono::milliseconds;
using testing::DaemonNode;

std::string Noise(std::size_t size) {
  std::mt19937_64 random(1);
  std::string text;
  while (text.size() < size) text += static_cast<char>(random());
  return text;
}

constexpr const char* kManifest = "manifest";
constexpr const char* kConfig = "config";
constexpr const char* kLayer = "layer";

/// A registry of one image of one layer, which answers as it should unless `lie` does.
class Registry {
 public:
  /// What is asked for, the request's head and the honest answer; nothing: that is sent.
  using Lie = std::function<std::optional<Answer>(std::string_view what, const std::string& head,
                                                  const std::string& honest)>;
  Registry() : server_([this](const std::string& head) { return Reply(head); }) {
    const std::string tar = TarWriter().File("noise", Noise(300'000)).Done();
    nlohmann::json config = {{"os", "linux"}, {"architecture", "amd64"}};
    config["rootfs"] = {{"type", "layers"}, {"diff_ids", {digest::Sha256Digest(tar).str()}}};
    const std::string layer = archive::testing::GzipOf(tar);
    nlohmann::json manifest = {{"schemaVersion", 2}};
    manifest["config"] = Add(kConfig, config.dump());
    manifest["layers"].push_back(Add(kLayer, layer));
    manifest_ = manifest.dump();
  }

  std::string Image() const { return server_.HostPort() + "/x:1"; }
  void Tell(Lie lie) {
    const std::lock_guard lock(mutex_);
    lie_ = std::move(lie);
  }

 private:
  nlohmann::json Add(const char* what, const std::string& bytes) {
    const std::string digest = digest::Sha256Digest(bytes).str();
    blobs_["/v2/x/blobs/" + digest] = {what, bytes};
    return {{"digest", digest}, {"size", bytes.size()}};
  }
  Answer Reply(const std::string& head) {
    const std::string path = head.substr(4, head.find(' ', 4) - 4);
    std::string_view what = "elsewhere";
    std::string honest = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    if (path == "/v2/x/manifests/1") {
      what = kManifest;
      honest =
          RawServer::Ok(manifest_, "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n");
    } else if (const auto blob = blobs_.find(path); blob != blobs_.end()) {
      what = blob->second.first;
      honest = RawServer::Ok(blob->second.second);
    }
    Lie lie;
    {
      const std::lock_guard lock(mutex_);
      lie = lie_;
    }
    std::optional<Answer> other = lie ? lie(what, head, honest) : std::nullopt;
    return other ? *std::move(other) : Answer{honest};
  }

  std::map<std::string, std::pair<const char*, std::string>> blobs_;  // by path
  std::string manifest_;
  std::mutex mutex_;
  Lie lie_;
  RawServer server_;
};

/// The lie about one kind of thing; the truth about all else.
Registry::Lie About(const char* what, std::function<Answer(const std::string& honest)> lie) {
  return [what, lie = std::move(lie)](std::string_view asked, const std::string& /*head*/,
                                      const std::string& honest) -> std::optional<Answer> {
    if (asked != what) return std::nullopt;
    return lie(honest);
  };
}

struct Case {
  std::string name;
  Registry::Lie lie;
  Code code;
  std::string words;  // in the error
};

std::vector<Case> Cases() {
  std::vector<Case> cases;
  const std::string kept = "HTTP/1.1 200 OK\r\n";
  // No length: the body ends with the connection, which it never does.
  const std::string zeros(1U << 16U, '\0');
  for (const char* what : {kManifest, kConfig}) {
    const auto add = [&](const std::string& name, Code code, const std::string& words,
                         std::function<Answer(const std::string&)> lie) {
      cases.push_back(
          {fmt::format("{}: {}", what, name), About(what, std::move(lie)), code, words});
    };
    for (const std::size_t bytes : {0UL, 1UL, 12UL, 40UL, 120UL})
      add(fmt::format("reset after {} bytes", bytes), Code::kUnknown,
          "RegistryUnavailable: ", [bytes](const std::string& honest) {
            return Answer{honest.substr(0, bytes), true};
          });
    add("without an end", Code::kResourceExhausted, "larger than the",
        [=](const std::string&) { return Answer{.bytes = kept + "\r\n", .endless = zeros}; });
    add("chunks without an end", Code::kResourceExhausted, "larger than the",
        [=](const std::string&) {
          return Answer{.bytes = kept + "Transfer-Encoding: chunked\r\n\r\n",
                        .endless = "1000\r\n" + std::string(0x1000, 'x') + "\r\n"};
        });
    add("a length beyond all", Code::kResourceExhausted, "larger than the",
        [=](const std::string&) {
          return Answer{kept + "Content-Length: 99999999999999\r\n\r\n", true};
        });
    add("a header without an end", Code::kUnknown,
        "RegistryUnavailable: ", [=](const std::string&) {
          return Answer{.bytes = kept, .endless = "X-More: and more\r\n"};
        });
    add("one header that is huge", Code::kUnknown,
        "RegistryUnavailable: ", [=](const std::string& honest) {
          return Answer{kept + "X-Huge: " + std::string(1U << 20U, 'h') + "\r\n" +
                        honest.substr(kept.size())};
        });
    add("a drip", Code::kUnknown, "RegistryUnavailable: ", [=](const std::string&) {
      return Answer{.bytes = kept + "Content-Length: 3000\r\n\r\n", .drip = milliseconds(200)};
    });
    add("silence", Code::kUnknown, "RegistryUnavailable: ", [=](const std::string&) {
      return Answer{.bytes = kept + "Content-Length: 3000\r\n\r\n", .stall = true};
    });
    add("too many requests", Code::kUnknown, "status 429", [](const std::string&) {
      return Answer{"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n"};
    });
    add("a 401 for ever", Code::kUnauthenticated, "none fit were given", [](const std::string&) {
      return Answer{
          "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"r\"\r\n"
          "Content-Length: 0\r\n\r\n"};
    });
    cases.push_back({fmt::format("{}: a redirect in a circle", what),
                     [what](std::string_view asked, const std::string& head,
                            const std::string& /*honest*/) -> std::optional<Answer> {
                       if (asked != what) return std::nullopt;
                       return Answer{fmt::format(
                           "HTTP/1.1 302 Found\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n",
                           head.substr(4, head.find(' ', 4) - 4))};
                     },
                     Code::kUnknown, "redirects"});
    add("a redirect to nowhere", Code::kUnknown, "RegistryUnavailable: ", [](const std::string&) {
      return Answer{
          "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"};
    });
  }
  const auto layer = [&cases](const std::string& name, Code code, const std::string& words,
                              std::function<Answer(const std::string&)> lie) {
    cases.push_back({"layer: " + name, About(kLayer, std::move(lie)), code, words});
  };
  const auto body = [](const std::string& honest) { return honest.find("\r\n\r\n") + 4; };
  for (const std::size_t bytes : {0UL, 1UL, 100UL, 50'000UL})
    layer(fmt::format("reset after {} bytes of it", bytes), Code::kDataLoss, "ends after",
          [=](const std::string& honest) {
            return Answer{honest.substr(0, body(honest) + bytes), true};
          });
  layer("another one", Code::kDataLoss, "has the digest", [=](const std::string& honest) {
    std::string other = honest;
    other[body(honest) + 1000] ^= 1;
    return Answer{other};
  });
  layer("more than was promised", Code::kDataLoss, "its manifest says",
        [=](const std::string& honest) {
          return Answer{RawServer::Ok(honest.substr(body(honest)) + "more")};
        });
  layer("without an end", Code::kDataLoss, "has the digest",
        [=](const std::string&) { return Answer{.bytes = kept + "\r\n", .endless = zeros}; });
  layer("a drip", Code::kDataLoss, "ends after", [=](const std::string& honest) {
    return Answer{.bytes = honest.substr(0, body(honest)), .drip = milliseconds(200)};
  });
  // Without ranges: what the last connection brought must come again before anything new does.
  layer("a drip after its beginning", Code::kDataLoss, "ends after",
        [=](const std::string& honest) {
          return Answer{.bytes = honest.substr(0, body(honest) + 100), .drip = milliseconds(200)};
        });
  layer("none", Code::kNotFound, "has no blob", [](const std::string&) {
    return Answer{"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"};
  });
  for (const char* what : {kManifest, kConfig, kLayer})
    cases.push_back(
        {fmt::format("{}: a redirect to who asks for credentials", what),
         [what](std::string_view asked, const std::string& head,
                const std::string& /*honest*/) -> std::optional<Answer> {
           const std::size_t host = head.find("Host: ") + 6;
           const std::string port = head.substr(host, head.find('\r', host) - host);
           // The same server by another name is another origin.
           if (asked == what && port.starts_with("127.0.0.1"))
             return Answer{
                 fmt::format("HTTP/1.1 307 Temporary Redirect\r\nContent-Length: 0\r\n"
                             "Location: http://localhost{}/elsewhere\r\n\r\n",
                             port.substr(port.find(':')))};
           if (asked != "elsewhere") return std::nullopt;
           return Answer{
               "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nWWW-Authenticate: Bearer "
               "realm=\"http://localhost/token\"\r\n\r\n"};
         },
         Code::kUnauthenticated, "which refuses access"});
  return cases;
}

/// The most memory that the process ever had, in KiB.
std::uint64_t PeakOf(const DaemonNode& node) {
  const std::string status = node.ProcStatus();
  const std::size_t at = status.find_first_of("0123456789", status.find("VmHWM:"));
  std::uint64_t peak = 0;
  std::from_chars(status.data() + at, status.data() + status.size(), peak);
  return peak;
}

TEST_CASE("Whatever a registry says, it is one error, soon, and nothing is left") {
  Registry registry;
  const DaemonNode node("  stall_timeout_seconds: 1\n");
  REQUIRE(node.Pull(registry.Image()).status().message() == "");
  node.Remove(registry.Image());
  const std::uint64_t before = PeakOf(node);
  for (const Case& each : Cases()) {
    INFO(each.name);
    registry.Tell(each.lie);
    const auto start = std::chrono::steady_clock::now();
    const auto pulled = node.Pull(registry.Image());
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(40));
    CHECK(CodeName(pulled.code()) == CodeName(each.code));
    CHECK_THAT(pulled.status().message(), Catch::Contains(each.words));
    CHECK(node.List().empty());
    CHECK(os::ListDir(node.StagingDir())->empty());
    CHECK(os::ListDir(node.LayersDir())->empty());
  }
#if !defined(__SANITIZE_ADDRESS__)
  CHECK(PeakOf(node) < before + 48 * 1024);
#endif
  registry.Tell(nullptr);
  CHECK(node.Pull(registry.Image()).status().message() == "");
}

}  // namespace
}  // namespace crisp::imaged
