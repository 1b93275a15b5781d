#include "services/imaged/registry/source.h"

#include "libs/base/text.h"
#include "libs/base/try.h"
#include "libs/json/json.h"
#include "libs/work/operations.h"
#include "libs/work/pause.h"
#include "services/imaged/registry/retry.h"

namespace crisp::imaged {
namespace {

using std::chrono::seconds;

constexpr int kMaxRenewals = 2;  // of the Authorization header, of one request
constexpr int kMaxBreaks = 3;    // of the body of one document
constexpr seconds kLongestDocument{30};
constexpr std::size_t kMaxMessage = 300;

std::string Printable(std::string text) {
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  return ToUtf8(text, kMaxMessage);
}

/// The registry's own words about an error.
std::string WordsOf(const CallContext& cc, http::Response& response) {
  const auto body = response.ReadAll(cc.Within(seconds(5)), KiB(64));
  if (!body.ok()) return {};
  const Result<nlohmann::json> json = json::Parse(*body);
  if (!json.ok() || !json->is_object() || !json->contains("errors")) return {};
  const nlohmann::json& errors = (*json)["errors"];
  if (!errors.is_array() || errors.empty()) return {};
  const std::string words = json::OptString(errors.front(), "message").value_or("");
  return words.empty() ? words : " (" + Printable(words) + ")";
}

/// What an answer that is no success means to the caller.
Status Refusal(const CallContext& cc, http::Response& response, const std::string& what) {
  const std::string words = WordsOf(cc, response);
  switch (response.status()) {
    case 404: return NotFound("has no {}{}", what, words);
    case 401: return Unauthenticated("refuses access{}", words);
    case 403: return PermissionDenied("refuses access{}", words);
    case 429: return Unavailable("answers with status 429: too many requests{}", words);
    default: return Unavailable("answers with status {}{}", response.status(), words);
  }
}

}  // namespace

std::string RegistryClient::Source::Name() const {
  std::string credentials = "not looked for";
  {
    const std::lock_guard lock(mutex_);
    if (opened_) credentials = opened_->credential_source;
  }
  const std::string place = endpoint_.mirror ? endpoint_.location : endpoint_.root.HostPort();
  return fmt::format("{} {} (credentials: {})", endpoint_.mirror ? "mirror" : "registry", place,
                     credentials);
}

/// Two threads may do it at once at worst; the first one's is kept.
Result<std::shared_ptr<RegistryClient::Source::Opened>> RegistryClient::Source::Open(
    const CallContext& cc) {
  {
    const std::lock_guard lock(mutex_);
    if (opened_) return opened_;
  }
  Endpoint endpoint = endpoint_;
  CRISP_TRY(hosts_.Settle(cc, endpoint));
  FoundCredentials found = CRISP_TRY(hosts_.CredentialsFor(cc, endpoint, given_));
  const std::lock_guard lock(mutex_);
  if (!opened_) opened_ = std::make_shared<Opened>(client_, hosts_, endpoint, std::move(found));
  return opened_;
}

Result<http::Response> RegistryClient::Source::Get(const CallContext& cc, const std::string& path,
                                                   const http::Headers& headers,
                                                   const std::string& what) {
  const work::Stage stage(cc, fmt::format("ask {} for {}", endpoint_.root.HostPort(), what));
  const std::shared_ptr<Opened> opened = CRISP_TRY(Open(cc));
  const Endpoint& endpoint = opened->endpoint;
  http::Request request;
  request.url = endpoint.root;
  request.url.target += "/" + endpoint.repository + path;
  if (!endpoint.name_space.empty())
    request.url.target += "?ns=" + http::PercentEncode(endpoint.name_space);
  request.headers = headers;
  request.origin_headers = endpoint.headers;
  request.verify_tls = endpoint.verify_tls;
  request.tls = endpoint.tls;
  for (int renewals = 0;; ++renewals) {
    request.authorization = opened->authorizer.Current();
    Result<http::Response> response = SendPatiently(cc, client_, request);
    // A server of TLS calls plain requests bad ones.
    if (!endpoint.root.tls() && (!response.ok() || response->status() == 400))
      hosts_.Doubt(endpoint);
    if (!response.ok()) return response;
    const int status = response->status();
    if (status / 100 == 2) return response;
    // Where a redirect leads, nobody is told who we are: that host could ask for the password.
    if (response->url().Origin() != request.url.Origin() && status == 401)
      return Unauthenticated("leads to {}, which refuses access", response->url().HostPort());
    if (status != 401 || renewals >= kMaxRenewals) return Refusal(cc, *response, what);
    const std::vector<std::string> challenges = response->HeaderValues("WWW-Authenticate");
    static_cast<void>(response->ReadAll(cc.Within(seconds(5)), KiB(64)).ok());
    CRISP_TRY(opened->authorizer.Renew(cc, challenges, request.authorization, request));
  }
}

Result<RegistryClient::Source::Document> RegistryClient::Source::GetWhole(
    const CallContext& cc, const std::string& path, const http::Headers& headers,
    const std::string& what, Bytes limit) {
  const SteadyTime start = std::chrono::steady_clock::now();
  for (int breaks = 0;; ++breaks) {
    http::Response response = CRISP_TRY(Get(cc, path, headers, what));
    Result<std::string> body = response.ReadAll(cc, limit);
    if (body.ok()) return Document{std::move(response), *std::move(body)};
    // One that drips is not waited for again and again.
    if (body.code() != Code::kUnavailable || breaks >= kMaxBreaks ||
        std::chrono::steady_clock::now() - start > kLongestDocument)
      return std::move(body).status().While("{}", what);
    CRISP_TRY(work::Pause(cc, BackOff(breaks)));
  }
}

}  // namespace crisp::imaged
