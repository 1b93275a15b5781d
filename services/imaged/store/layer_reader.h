#pragma once

#include <memory>
#include <string>

#include "libs/archive/tree_reader.h"
#include "libs/base/call_context.h"
#include "libs/base/result.h"

namespace crisp::imaged {

/// Reads a finished layer in the form that it has on disk: a directory is a file tree, a file an
/// EROFS image, which this process may not mount. kNotFound: there is none; kDataLoss: no image of
/// ours.
Result<std::unique_ptr<archive::TreeReader>> OpenLayer(const std::string& path);

/// overlayfs's marks: a deletion, and a directory that hides what is below it.
bool IsWhiteout(const archive::TreeNode& node);
Result<bool> IsOpaque(const archive::TreeReader& layer, const archive::TreeNode& directory);

/// Those of these extended attributes that a layer may have, to an open file. `path` is for errors,
/// here and below.
Status WriteXattrs(const archive::Xattrs& xattrs, int to, const std::string& path);
/// The same of a file of a layer.
Status CopyXattrs(const archive::TreeReader& layer, const archive::TreeNode& node, int to,
                  const std::string& path);

/// A part of one file into a place of another, where nothing but a hole is. Holes stay holes;
/// blocks are shared where the file system can. Ends with the call.
Status CopyExtent(const CallContext& cc, int from, const archive::TreeContents::Extent& extent,
                  int to, off_t at, const std::string& path);
/// All contents into an empty file; otherwise as CopyExtent.
Status CopyContents(const CallContext& cc, const archive::TreeContents& from, int to,
                    const std::string& path);

}  // namespace crisp::imaged
