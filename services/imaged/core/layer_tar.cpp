#include "services/imaged/core/layer_tar.h"

#include "libs/archive/tree_tar.h"
#include "libs/base/try.h"
#include "services/imaged/store/layer_reader.h"

namespace crisp::imaged {
namespace {

Result<archive::Shaped> AsLayer(archive::TarEntry& entry) {
  // What overlayfs means by its own attributes is written as .wh. files.
  const bool opaque = entry.xattrs.erase(std::string(archive::kOpaqueXattr)) > 0;
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

Status WriteLayerTar(const CallContext& cc, const std::string& path,
                     const std::function<Status(std::string_view)>& sink) {
  const std::unique_ptr<archive::TreeReader> layer = CRISP_TRY(OpenLayer(path));
  return archive::WriteTree(cc, *layer, AsLayer, sink);
}

}  // namespace crisp::imaged
