#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/result.h"
#include "libs/os/temp_dir.h"
#include "libs/os/unique_fd.h"
#include "libs/process/command.h"

namespace crisp::rund {

/// One `exec` of an OCI runtime: what both ways of running a command in a container share.
struct ExecArgs {
  std::string runtime;                       // program path
  std::vector<std::string> runtime_options;  // before its command: --root and more
  std::string container_id;
  std::string process_json;  // BuildExecProcess(...).dump()
  std::string scratch_dir;   // exists; a fresh directory for this call is made (and removed) in it
  /// crisp-exec (services/rund/exec).
  std::string helper;
};

/// The files of one exec, gone with it.
struct ExecScratch {
  os::TempDir dir;
  std::string process_path() const { return dir.path() + "/process.json"; }
  std::string pid_path() const { return dir.path() + "/pid"; }
  std::string log_path() const { return dir.path() + "/log"; }
  /// Short: a socket's path has 107 characters.
  std::string console_path() const { return dir.path() + "/c"; }

  static Result<ExecScratch> Create(const ExecArgs& args);
};

/// `runtime … exec …`: program first. `detach`: the runtime goes when the command has started.
std::vector<std::string> ExecWords(const ExecArgs& args, const ExecScratch& scratch, bool detach);

/// The command's process, as the runtime tells it; nothing as long as it does not run. Reads a
/// file.
std::optional<pid_t> CommandPid(const ExecScratch& scratch);

/// Takes the line off crisp-exec's report that says that the command has started.
bool TakeStarted(std::string_view& report);
/// What the rest of it says: the command's exit code; nothing when it could not be started.
std::optional<int> ReportedExit(std::string_view report);

/// The runtime's own reason in its log (one JSON object a line), else what it said on stderr.
std::string ExecFailure(const ExecScratch& scratch, std::string_view err);

/// A command that has been asked for, its ends of the pipes in our hands. It may not have started
/// yet, or never will: `report` tells.
struct ExecProcess {
  os::UniqueFd in;   // write end; with a terminal: none
  os::UniqueFd out;  // read ends
  os::UniqueFd err;
  os::UniqueFd
      console;  // with a terminal: listens; one connection brings the terminal's descriptor
  /// "started N" when the command has (before, `err` is the runtime's); and one line at the end:
  /// "exit N", or "runtime N" when the command could not be started.
  os::UniqueFd report;
  process::Child helper;  // to be reaped
  ExecScratch scratch;
};

struct ExecStreams {
  bool in = false;
  bool out = false;
  bool err = false;
  bool tty = false;  // then the others do not count
};

/// Starts a command whose streams are ours to serve, through crisp-exec. It stays when we go: its
/// streams are closed then. Errors: kUnavailable without crisp-exec; those of the files and pipes.
Result<ExecProcess> StartExec(const ExecArgs& args, const ExecStreams& streams);

}  // namespace crisp::rund
