#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/os/temp_dir.h"

namespace crisp::imaged {

/// Checks OpenPGP signatures against a few keys and no others: gpg works in a home of its own that
/// goes with this object. One thread at a time.
class GpgKeys {
 public:
  /// `temp_root`: where the home is made. `keys`: armoured or binary, as many in each as there are.
  /// kInvalidArgument: no key in one of them. kUnavailable: gpg cannot be run.
  static Result<GpgKeys> Import(const CallContext& cc, const std::string& temp_root,
                                const std::vector<std::string>& keys);
  GpgKeys(GpgKeys&&) noexcept;
  GpgKeys& operator=(GpgKeys&&) noexcept;
  ~GpgKeys();

  /// What a signed message says, once it carries exactly one signature and that is good and by one
  /// of the keys. kPermissionDenied says why not; so does a message that unpacks to more than 1
  /// MiB.
  Result<std::string> Verify(const CallContext& cc, std::string_view message) const;

 private:
  struct Impl;
  explicit GpgKeys(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace crisp::imaged
