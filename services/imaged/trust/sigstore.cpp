#include "services/imaged/trust/sigstore.h"

#include <algorithm>

#include "libs/base/try.h"
#include "services/imaged/trust/rekor.h"

namespace crisp::imaged {
namespace {

using digest::Certificate;
using digest::PublicKey;

// Where Fulcio says who has vouched for the signer (fulcio, docs/oid-info.md).
constexpr const char* kIssuer = "1.3.6.1.4.1.57264.1.8";     // a UTF8String
constexpr const char* kOldIssuer = "1.3.6.1.4.1.57264.1.1";  // the bare text

Result<std::vector<PublicKey>> LoadKeys(const Material& material) {
  std::vector<PublicKey> keys;
  for (const std::string& pem : CRISP_TRY(material.Read()))
    keys.push_back(CRISP_TRY(PublicKey::ParsePem(pem)));
  return keys;
}

Status AddCertificates(std::string_view pem, std::vector<Certificate>& to) {
  const std::vector<Certificate> more = CRISP_TRY(Certificate::ParseAllPem(pem));
  to.insert(to.end(), more.begin(), more.end());
  return Status::Ok();
}

Result<std::vector<Certificate>> LoadCertificates(const Material& material) {
  std::vector<Certificate> certificates;
  for (const std::string& pem : CRISP_TRY(material.Read()))
    CRISP_TRY(AddCertificates(pem, certificates));
  return certificates;
}

/// A certificate may have it in both forms.
Status CheckIssuer(const Certificate& certificate, const std::string& wanted) {
  std::vector<std::string> stated;
  if (const auto text = CRISP_TRY(certificate.Extension(kOldIssuer))) stated.push_back(*text);
  if (const auto der = CRISP_TRY(certificate.Extension(kIssuer)))
    stated.push_back(CRISP_TRY(digest::TextOfDer(*der).While("issuer")));
  if (stated.empty()) return PermissionDenied("the certificate does not say who the issuer is");
  for (const std::string& issuer : stated)
    if (issuer != wanted) return PermissionDenied("the certificate's issuer is {:.200}", issuer);
  return Status::Ok();
}

Status CheckSubject(const Certificate& certificate, const CertifiedSigner& signer) {
  if (!signer.oidc_issuer.empty()) CRISP_TRY(CheckIssuer(certificate, signer.oidc_issuer));
  const std::vector<std::string> emails = certificate.Emails();
  if (!signer.email.empty() &&
      std::find(emails.begin(), emails.end(), signer.email) == emails.end())
    return PermissionDenied(
        "the certificate is {}",
        emails.empty() ? "for no mail address" : fmt::format("for {:.200}", emails.front()));
  if (!signer.hostname.empty() && !certificate.IsForHost(signer.hostname))
    return PermissionDenied("the certificate is not for the host {}", signer.hostname);
  return Status::Ok();
}

}  // namespace

Result<SigstoreKeys> SigstoreKeys::Load(const Requirement& requirement) {
  SigstoreKeys keys;
  keys.keys_ = CRISP_TRY(LoadKeys(requirement.keys).While("sigstore key"));
  keys.logs_ = CRISP_TRY(LoadKeys(requirement.log_keys).While("Rekor key"));
  if (requirement.signer)
    keys.authority_ = Authority{
        *requirement.signer,
        CRISP_TRY(LoadCertificates(requirement.signer->roots).While("certificate authority")),
        CRISP_TRY(LoadCertificates(requirement.signer->intermediates).While("intermediate CA"))};
  return keys;
}

Status SigstoreKeys::Verify(const Signature& signature, WallTime now) const {
  return authority_ ? ByCertificate(*authority_, signature, now) : ByKey(signature);
}

/// When a log took the signature in; `unlogged` where the policy asks for no log.
Result<WallTime> SigstoreKeys::WhenLogged(const Signature& signature, std::string signer_der,
                                          WallTime unlogged) const {
  if (logs_.empty()) return unlogged;
  if (signature.promise.empty()) return PermissionDenied("no transparency log knows the signature");
  return CheckPromise(logs_, signature.promise,
                      {std::move(signer_der), signature.data, signature.raw})
      .While("the transparency log's entry");
}

Status SigstoreKeys::ByKey(const Signature& signature) const {
  for (const PublicKey& key : keys_) {
    if (!key.Verify(signature.data, signature.raw)) continue;
    return WhenLogged(signature, key.Der(), WallTime()).status();
  }
  return PermissionDenied("the signature is by none of the keys");
}

Status SigstoreKeys::ByCertificate(const Authority& authority, const Signature& signature,
                                   WallTime now) const {
  if (signature.certificate.empty()) return PermissionDenied("it comes without a certificate");
  const Certificate certificate =
      CRISP_TRY(Certificate::ParsePem(signature.certificate).While("its certificate"));
  const WallTime used = CRISP_TRY(WhenLogged(signature, certificate.Der(), now));
  std::vector<Certificate> between = authority.intermediates;
  if (!signature.chain.empty())
    CRISP_TRY(AddCertificates(signature.chain, between).While("its certificate's chain"));
  CRISP_TRY(certificate.CheckChain(authority.roots, between, used));
  CRISP_TRY(CheckSubject(certificate, authority.signer));
  const PublicKey key = CRISP_TRY(certificate.Key());
  if (!key.Verify(signature.data, signature.raw))
    return PermissionDenied("the signature is not by the certificate's key");
  return Status::Ok();
}

}  // namespace crisp::imaged
