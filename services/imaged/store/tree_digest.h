#pragma once

#include <functional>
#include <string>

#include "libs/base/result.h"

namespace crisp::imaged {

/// One SHA-256 over all of a layer that its containers can see: names, kinds, modes, owners, times,
/// contents, link targets, device numbers and the extended attributes that a layer may have. The
/// order on disk does not count, nor whether zeros are stored or a hole. `pace` is called after
/// each file and each piece of one with the bytes that were read, and may end the walk with its
/// status. kNotFound when `path` is absent.
Result<std::string> TreeDigest(const std::string& path,
                               const std::function<Status(std::uint64_t bytes)>& pace);

}  // namespace crisp::imaged
