#pragma once

#include <memory>
#include <string>
#include <vector>

#include "libs/base/result.h"
#include "libs/http/client.h"

namespace crisp::imaged {

/// The directories of certs.d: in the first of `dirs` that has a directory named like the host
/// ("registry.example.com:5000"), *.crt are authorities and each *.cert with its *.key is a client
/// certificate, of which the first by name is shown. Nothing when there is none.
/// kFailedPrecondition: a certificate without its key or the reverse.
Result<std::shared_ptr<const http::TlsOptions>> CertsFor(const std::vector<std::string>& dirs,
                                                         const std::string& host);

/// Fills in `key`, which tells different certificates and their versions apart.
std::shared_ptr<const http::TlsOptions> WithKey(http::TlsOptions options);

}  // namespace crisp::imaged
