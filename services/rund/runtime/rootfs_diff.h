#pragma once

#include <set>
#include <string>
#include <vector>

#include "crisp/imaged/v1/imaged.pb.h"
#include "libs/archive/source.h"
#include "libs/archive/tree_tar.h"
#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/base/units.h"

namespace crisp::rund {

/// Writes what a container has changed in its root file system as a tar of what it has made or
/// changed, and answers what it has deleted ("/etc/motd"). `mounted`: where the container has
/// mounts ("/dev"): what lies under them is none of its files. Nobody writes meanwhile.
/// kUnimplemented: the root file system is a full copy, of which nobody knows what is new.
Result<std::vector<std::string>> WriteRootfsDiff(const CallContext& cc,
                                                 const crisp::imaged::v1::MountInstruction& overlay,
                                                 const std::set<std::string>& mounted,
                                                 const archive::TarSink& sink);

/// Does the same to the root file system at `rootfs`, which nobody else uses: takes all of `tar`,
/// then deletes what is in `deleted`. Idempotent. Paths are resolved as the container would, so
/// nothing leads out of it; extended attributes are those that an image may bring. `max_size`: of
/// all files' contents.
/// kInvalidArgument, kDataLoss, kResourceExhausted name the entry.
Status ApplyRootfsDiff(const CallContext& cc, const std::string& rootfs, archive::ChunkSource& tar,
                       const std::vector<std::string>& deleted, Bytes max_size = GiB(64));

}  // namespace crisp::rund
