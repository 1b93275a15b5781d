#include "services/imaged/registry/client.h"

#include <algorithm>
#include <charconv>
#include <condition_variable>
#include <mutex>

#include "libs/base/try.h"
#include "libs/json/json.h"
#include "services/imaged/core/manifest.h"

namespace crisp::imaged {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr int kMaxTries = 4;
constexpr milliseconds kFirstPause{250};
constexpr seconds kLongestPause{30};
constexpr std::size_t kMaxMessage = 300;

/// Retry-After in seconds, where the server says so.
std::chrono::nanoseconds PauseAfter(const http::Response& response, int tries) {
  const std::string header = response.Header("Retry-After");
  int wanted = 0;
  const auto [end, error] = std::from_chars(header.data(), header.data() + header.size(), wanted);
  if (error == std::errc() && wanted > 0) return std::min<seconds>(seconds(wanted), kLongestPause);
  return kFirstPause * (1 << tries);
}

std::string Printable(std::string text) {
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  if (text.size() > kMaxMessage) text.resize(kMaxMessage);
  return text;
}

}  // namespace

Status Pause(const CallContext& cc, std::chrono::nanoseconds duration) {
  std::mutex mutex;
  std::condition_variable_any never;
  std::unique_lock lock(mutex);
  never.wait_for(lock, cc.stop(), std::min(duration, cc.Remaining()), [] { return false; });
  return cc.Check();
}

RegistryClient::RegistryClient(http::Client& client, Endpoint endpoint, const ref::ImageRef& image,
                               Credentials credentials)
    : client_(client),
      endpoint_(std::move(endpoint)),
      repository_(image.path),
      image_(image.ToString()),
      authorizer_(client, std::move(credentials), image.path, endpoint_.insecure_allowed) {}

Result<std::unique_ptr<RegistryClient>> RegistryClient::Open(const CallContext& cc,
                                                             http::Client& client, Hosts& hosts,
                                                             const ref::ImageRef& image,
                                                             Credentials credentials) {
  Result<Endpoint> found = hosts.Find(cc, image.domain);
  if (!found.ok()) {
    const bool nobody = found.code() == Code::kUnavailable;
    return std::move(found).status().While("{}{}: registry", nobody ? "RegistryUnavailable: " : "",
                                           image.ToString());
  }
  Endpoint endpoint = *std::move(found);
  return std::unique_ptr<RegistryClient>(
      new RegistryClient(client, std::move(endpoint), image, std::move(credentials)));
}

/// What an answer that is no success means to the caller.
Status RegistryClient::Refusal(const CallContext& cc, http::Response& response,
                               const std::string& what) const {
  std::string words;
  if (const auto body = response.ReadAll(cc.Within(seconds(5)), KiB(64)); body.ok()) {
    const Result<nlohmann::json> json = json::Parse(*body);
    if (json.ok() && json->is_object() && json->contains("errors")) {
      const nlohmann::json& errors = (*json)["errors"];
      if (errors.is_array() && !errors.empty())
        words = json::OptString(errors.front(), "message").value_or("");
    }
  }
  const std::string host = endpoint_.url.HostPort();
  const std::string tail = words.empty() ? "" : " (" + Printable(words) + ")";
  switch (response.status()) {
    case 404: return NotFound("{}: registry {} has no {}{}", image_, host, what, tail);
    case 401: return Unauthenticated("{}: registry {} refuses access{}", image_, host, tail);
    case 403: return PermissionDenied("{}: registry {} refuses access{}", image_, host, tail);
    default:
      return Unavailable("RegistryUnavailable: {}: registry {} answers with status {}{}", image_,
                         host, response.status(), tail);
  }
}

Result<http::Response> RegistryClient::Get(const CallContext& cc, const std::string& path,
                                           const http::Headers& headers, const std::string& what) {
  http::Request request;
  request.url = endpoint_.url;
  request.url.target = "/v2/" + repository_ + path;
  request.headers = headers;
  request.verify_tls = endpoint_.verify_tls;
  int renewals = 0;
  for (int tries = 0;; ++tries) {
    request.authorization = authorizer_.Current();
    Result<http::Response> response = client_.Send(cc, request);
    if (!response.ok()) {
      if (response.code() != Code::kUnavailable) return std::move(response).While("{}", image_);
      // Nobody there at all is told at once: the caller tries again when it likes.
      if (tries + 1 >= kMaxTries - 1)
        return response.status().While("RegistryUnavailable: {}: registry", image_);
      CRISP_TRY(Pause(cc, kFirstPause * (1 << tries)));
      continue;
    }
    const int status = response->status();
    if (status == 401 && renewals < 2) {
      ++renewals;
      --tries;
      const std::vector<std::string> challenges = response->HeaderValues("WWW-Authenticate");
      static_cast<void>(response->ReadAll(cc.Within(seconds(5)), KiB(64)).ok());
      CRISP_TRY(authorizer_.Renew(cc, challenges, request.authorization, endpoint_.verify_tls)
                    .While("{}: registry {}", image_, endpoint_.url.HostPort()));
      continue;
    }
    if (status / 100 == 2) return response;
    const bool again = status == 429 || status == 408 || status / 100 == 5;
    if (!again || tries + 1 >= kMaxTries) return Refusal(cc, *response, what);
    CRISP_TRY(Pause(cc, PauseAfter(*response, tries)));
  }
}

Result<FetchedManifest> RegistryClient::Manifest(const CallContext& cc,
                                                 const std::string& tag_or_digest, Bytes limit) {
  http::Response response =
      CRISP_TRY(Get(cc, "/manifests/" + tag_or_digest, {{"Accept", std::string(ManifestAccept())}},
                    "manifest " + tag_or_digest));
  FetchedManifest manifest;
  manifest.media_type = response.Header("Content-Type");
  manifest.body = CRISP_TRY(response.ReadAll(cc, limit).While("{}: manifest", image_));
  manifest.digest = digest::Sha256Digest(manifest.body);
  // What was asked for by digest must be it; else the registry's own word must be true.
  std::string expected = tag_or_digest.starts_with("sha256:")
                             ? tag_or_digest
                             : response.Header("Docker-Content-Digest");
  if (expected.starts_with("sha256:") && expected != manifest.digest.str())
    return DataLoss("{}: the manifest {} has the digest {}", image_, expected,
                    manifest.digest.str());
  return manifest;
}

Result<std::string> RegistryClient::Blob(const CallContext& cc, const digest::Digest& digest,
                                         Bytes limit) {
  http::Response response =
      CRISP_TRY(Get(cc, "/blobs/" + digest.str(), {}, "blob " + digest.str()));
  std::string body = CRISP_TRY(response.ReadAll(cc, limit).While("{}: blob", image_));
  const digest::Digest found = digest::Sha256Digest(body);
  if (found != digest)
    return DataLoss("{}: the blob {} has the digest {}", image_, digest.str(), found.str());
  return body;
}

Result<http::Response> RegistryClient::OpenBlob(const CallContext& cc, const digest::Digest& digest,
                                                std::uint64_t offset) {
  http::Headers headers;
  if (offset > 0) headers.emplace_back("Range", fmt::format("bytes={}-", offset));
  http::Response response =
      CRISP_TRY(Get(cc, "/blobs/" + digest.str(), headers, "blob " + digest.str()));
  if (offset == 0) return response;
  if (response.status() == 206) {
    const std::string range = response.Header("Content-Range");
    if (!range.starts_with(fmt::format("bytes {}-", offset)))
      return Unavailable("RegistryUnavailable: {}: the registry answers with the wrong range of {}",
                         image_, digest.str());
    return response;
  }
  // A server without ranges sends all of it again: what we have is read past.
  std::string scratch(std::size_t{64} << 10U, '\0');
  while (offset > 0) {
    const std::span<char> into(
        scratch.data(), static_cast<std::size_t>(std::min<std::uint64_t>(offset, scratch.size())));
    const std::size_t count = CRISP_TRY(response.Read(cc, into));
    if (count == 0) return Unavailable("the blob {} ends early", digest.str());
    offset -= count;
  }
  return response;
}

}  // namespace crisp::imaged
