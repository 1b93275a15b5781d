#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/ids.h"
#include "libs/base/result.h"
#include "services/rund/runtime/runc.h"

// CRIU, which the OCI runtime has write the processes of a container into files and make them anew
// from these.
namespace crisp::rund {

/// Whether this node can: the runtime knows the commands, and there is a criu (a path; empty: in
/// the PATH that runtimes get). kUnimplemented names the program that is missing.
Status CheckCriu(const CallContext& cc, const OciRuntime& runtime, const std::string& criu);

/// Writes the container's processes to the directory `images`, CRIU's log and statistics
/// (dump.log, stats-dump) to `work`; both are there. The container goes on, as frozen as it was
/// before. When this fails nothing of it runs any more, and what it has stopped goes on.
/// kFailedPrecondition with CRIU's own words; kDeadlineExceeded.
Status DumpProcesses(const CallContext& cc, const OciRuntime& runtime, const ContainerId& id,
                     const std::string& images, const std::string& work);

/// SIGKILL to a dump into `images`, of whichever run of ours. Reads /proc.
void KillDump(const std::string& images);

/// Options of the runtime's `restore` beside those that name files, as conmon is to pass them on.
/// `selinux_process`, `selinux_mount`: the container's labels, "" = none.
std::vector<std::string> RestoreOptions(const std::string& selinux_process,
                                        const std::string& selinux_mount);

/// Why it failed, by its log: the last errors in their order, on one line; "" when it tells of
/// none.
std::string CriuWords(std::string_view log);
/// The same from a file in `work`, after what the runtime has said.
std::string CriuWordsIn(const std::string& work, const std::string& file,
                        const std::string& runtime_words);

}  // namespace crisp::rund
