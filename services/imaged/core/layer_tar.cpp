#include "services/imaged/core/layer_tar.h"

#include <fcntl.h>

#include "libs/archive/tree_tar.h"
#include "libs/base/try.h"
#include "libs/os/files.h"
#include "services/imaged/store/layer_file.h"

namespace crisp::imaged {
namespace {

Result<archive::Shaped> AsLayer(archive::TarEntry& entry) {
  // What overlayfs means by its own attributes is written as .wh. files.
  const bool opaque = entry.xattrs.erase(std::string(kOpaqueXattr)) > 0;
  std::erase_if(entry.xattrs,
                [](const auto& xattr) { return xattr.first.starts_with("user.overlay."); });
  archive::Shaped shaped;
  if (entry.type == archive::EntryType::kCharDevice && entry.device_major == 0 &&
      entry.device_minor == 0) {
    const std::size_t name = entry.path.rfind('/') + 1;  // 0 without a slash
    entry = {.path = entry.path.substr(0, name) + ".wh." + entry.path.substr(name), .mode = 0644};
  } else if (opaque) {
    const std::string below = entry.path == "./" ? "" : entry.path + "/";
    shaped.after.push_back({.path = below + ".wh..wh..opq", .mode = 0644});
  }
  return shaped;
}

}  // namespace

Status WriteLayerTar(const CallContext& cc, const std::string& directory,
                     const std::function<Status(std::string_view)>& sink) {
  os::UniqueFd root = CRISP_TRY(os::Open(directory, O_RDONLY | O_DIRECTORY));
  return archive::WriteTree(cc, std::move(root), AsLayer, sink);
}

}  // namespace crisp::imaged
