#pragma once

#include <functional>
#include <string_view>
#include <vector>

#include "libs/archive/tar.h"
#include "libs/archive/tree_reader.h"
#include "libs/base/call_context.h"
#include "libs/base/result.h"

namespace crisp::archive {

/// What is written of one member of a tree.
struct Shaped {
  bool wanted = true;           // no: neither it nor what is below it
  bool itself = true;           // no: only what is below it
  std::vector<TarEntry> after;  // empty files that follow it
};

/// Asked for each member of the tree before it is written, the root ("./") first; may change what
/// is written of it. Sockets, which tar does not have, and trusted.* attributes are left out
/// before.
using Shape = std::function<Result<Shaped>(TarEntry&)>;
using TarSink = std::function<Status(std::string_view)>;

/// Writes a tree as a tar: names in order, so that the same tree gives the same bytes. Stops at the
/// first failure of `shape` or `sink`. kDataLoss: a file became shorter meanwhile.
Status WriteTree(const CallContext& cc, const TreeReader& tree, const Shape& shape,
                 const TarSink& sink);

}  // namespace crisp::archive
