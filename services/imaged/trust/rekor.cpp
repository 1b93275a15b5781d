#include "services/imaged/trust/rekor.h"

#include <algorithm>

#include "libs/base/text.h"
#include "libs/base/try.h"
#include "libs/digest/certificate.h"
#include "libs/digest/digest.h"
#include "libs/json/json.h"
#include "services/imaged/core/strict_json.h"

namespace crisp::imaged {
namespace {

using Json = nlohmann::json;

constexpr json::Limits kStrict{.unique_keys = true};
constexpr std::int64_t kMaxTime = std::int64_t{1} << 33U;  // seconds: the year 2242

Result<std::string> GetBytes(const Json& object, std::string_view key) {
  const std::string text = CRISP_TRY(json::GetString(object, key));
  return FromBase64(text).While("{}", key);
}

/// What of the entry is signed, in the one form of it that RFC 8785 allows: nlohmann's, for numbers
/// that are whole and keys that are sorted.
Result<std::string> Canonical(const Json& entry) {
  CRISP_TRY(ExactlyKeys(entry, {"body", "integratedTime", "logID", "logIndex"}));
  const Json same = {{"body", CRISP_TRY(json::GetString(entry, "body"))},
                     {"integratedTime", CRISP_TRY(json::GetInt(entry, "integratedTime"))},
                     {"logID", CRISP_TRY(json::GetString(entry, "logID"))},
                     {"logIndex", CRISP_TRY(json::GetInt(entry, "logIndex"))}};
  return json::Dump(same);
}

/// The log's record is of this signature. It has the type hashedrekord.
Status CheckRecord(std::string_view body, const LoggedSignature& signature) {
  const Json record = CRISP_TRY(json::Parse(body, kStrict));
  const std::string kind = CRISP_TRY(json::GetString(record, "kind"));
  const std::string version = CRISP_TRY(json::GetString(record, "apiVersion"));
  if (kind != "hashedrekord" || version != "0.0.1")
    return InvalidArgument("a record of the kind {:.40} {:.40}", kind, version);
  const std::string algorithm = CRISP_TRY(json::GetString(record, "spec.data.hash.algorithm"));
  const std::string hash = CRISP_TRY(json::GetString(record, "spec.data.hash.value"));
  if (algorithm != "sha256" || Lower(hash) != digest::Sha256Hex(signature.payload))
    return PermissionDenied("it is of another payload");
  if (CRISP_TRY(GetBytes(record, "spec.signature.content")) != signature.raw)
    return PermissionDenied("it is of another signature");
  const std::string pem = CRISP_TRY(GetBytes(record, "spec.signature.publicKey.content"));
  if (CRISP_TRY(digest::DerOfPem(pem)) != signature.signer_der)
    return PermissionDenied("it is of another signer");
  return Status::Ok();
}

}  // namespace

Result<WallTime> CheckPromise(const std::vector<digest::PublicKey>& keys, std::string_view promise,
                              const LoggedSignature& signature) {
  const Json root = CRISP_TRY(json::Parse(promise, kStrict));
  CRISP_TRY(ExactlyKeys(root, {"Payload", "SignedEntryTimestamp"}));
  const std::string signed_by_log = CRISP_TRY(GetBytes(root, "SignedEntryTimestamp"));
  const Json& entry = root["Payload"];
  const std::string text = CRISP_TRY(Canonical(entry).While("Payload"));
  const bool good = std::any_of(keys.begin(), keys.end(), [&](const digest::PublicKey& key) {
    return key.Verify(text, signed_by_log);
  });
  if (!good) return PermissionDenied("it is by none of the logs");
  const std::string body = CRISP_TRY(GetBytes(entry, "body"));
  CRISP_TRY(CheckRecord(body, signature).While("Payload.body"));
  const std::int64_t seconds = CRISP_TRY(json::GetInt(entry, "integratedTime"));
  if (seconds < 0 || seconds > kMaxTime) return InvalidArgument("integratedTime is no time");
  return WallTime(std::chrono::seconds(seconds));
}

}  // namespace crisp::imaged
