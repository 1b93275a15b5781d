#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "libs/base/call_context.h"
#include "libs/base/status.h"

namespace crisp::imaged {

/// Writes a finished layer, a tree or an image, as the tar of an OCI layer: names in order, so that
/// the same files give the same bytes; overlayfs's whiteouts and opaque marks become .wh. files.
/// Stops at the sink's first failure.
Status WriteLayerTar(const CallContext& cc, const std::string& path,
                     const std::function<Status(std::string_view)>& sink);

}  // namespace crisp::imaged
