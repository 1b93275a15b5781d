#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/result.h"

namespace crisp::rund {

/// A checkpoint as files in a directory, which is what its archive (or its image) holds, as CRI-O
/// and checkpointctl know it:
///
///     config.dump, spec.dump    what the container was, and its OCI spec
///     bind.mounts               its bind mounts
///     checkpoint/               CRIU's images
///     dump.log, stats-dump      what CRIU has said
///     rootfs-diff.tar           what it made or changed in its root file system
///     deleted.files             what it deleted there (absent = nothing)
struct CheckpointDir {
  std::string path;

  std::string ConfigDump() const { return path + "/config.dump"; }
  std::string SpecDump() const { return path + "/spec.dump"; }
  std::string BindMounts() const { return path + "/bind.mounts"; }
  std::string Images() const { return path + "/checkpoint"; }
  std::string RootfsDiff() const { return path + "/rootfs-diff.tar"; }
  std::string DeletedFiles() const { return path + "/deleted.files"; }
};

/// Whether an archive can be written there. kInvalidArgument: not an absolute path, with "..", or a
/// directory; kAlreadyExists; kFailedPrecondition: its directory is not there.
Status CheckLocation(const std::string& location);

/// The file that becomes the archive at `location`: beside it, and named by `id` alone.
std::string PartialPath(const std::string& location, const std::string& id);
/// Writes the archive, readable for root alone, and on the disk when this returns. On failure the
/// partial file may be there. kAlreadyExists: something has come to `location` meanwhile.
Status PackCheckpoint(const CallContext& cc, const CheckpointDir& dir, const std::string& partial,
                      const std::string& location);

/// Takes the files of a checkpoint out of an archive (plain, gzip or zstd) into an empty directory;
/// whatever else is in there is left out. The archive is hostile. kInvalidArgument: it is no
/// regular file, or no checkpoint; kFailedPrecondition: it is not there; kDataLoss: damaged;
/// kResourceExhausted: more than a checkpoint may be.
Status UnpackCheckpoint(const CallContext& cc, const std::string& archive,
                        const CheckpointDir& dir);
/// The same out of the files of an image.
Status CopyCheckpoint(const CallContext& cc, const std::string& image_root,
                      const CheckpointDir& dir);

/// What is to be known of a checkpoint before it is restored.
struct CheckpointFacts {
  std::string container_name;
  std::string image_id;  // of what it was made from; "" where only the name is known
  std::string image_name;
  std::vector<std::string> bind_mounts;  // where it had some, but for those that each container has
  std::vector<std::string> masked_paths;  // of its spec
};
/// kInvalidArgument names the file that is missing or wrong.
Result<CheckpointFacts> ReadFacts(const CheckpointDir& dir);
/// What it deleted.
Result<std::vector<std::string>> ReadDeleted(const CheckpointDir& dir);

}  // namespace crisp::rund
