#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "libs/base/clock.h"
#include "libs/base/result.h"
#include "libs/digest/public_key.h"

namespace crisp::imaged {

/// A signature of which a transparency log is said to know.
struct LoggedSignature {
  std::string signer_der;  // of the key or the certificate that it was made with
  std::string_view payload;
  std::string_view raw;
};

/// Checks a log's promise (Rekor's signed entry timestamp, as cosign attaches it: "bundle") to have
/// taken in just this signature; answers when that was. `keys`: of the logs that are believed.
/// kPermissionDenied, or kInvalidArgument for what is no such promise.
Result<WallTime> CheckPromise(const std::vector<digest::PublicKey>& keys, std::string_view promise,
                              const LoggedSignature& signature);

}  // namespace crisp::imaged
