#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/ids.h"
#include "libs/base/result.h"
#include "libs/os/proc_stat.h"
#include "libs/os/unique_fd.h"
#include "services/rund/runtime/runc.h"

namespace crisp::rund {

/// One container's monitor process. conmon holds the container's stdio, writes its log and its exit
/// code, and outlives us.
struct MonitorArgs {
  std::string conmon;  // program path
  ContainerId id;
  std::string bundle;
  std::string exit_dir;
  std::string log_path;      // "" = what the container writes is thrown away
  std::string journal_name;  // it goes to the journal as well, under this name; "" = it does not
  bool tty = false;
  bool stdin_open = false;
  bool stdin_once = false;
  bool systemd_cgroup = false;  // the runtime asks systemd for a scope
  /// A checkpoint's images: the runtime's `restore` in place of `create`, with these options beside
  /// those for files. It runs at once. "" = none.
  std::string restore_images = {};
  std::vector<std::string> restore_options = {};
};

struct Monitored {
  os::ProcessId init;     // start_time 0: it had ended again already
  os::ProcessId monitor;  // likewise
};

/// Starts conmon, which runs the runtime's `create`, or `restore`. When it fails nothing of it runs
/// any more; its files stay in the bundle. Errors: kInternal with the runtime's own words;
/// kDeadlineExceeded.
Result<Monitored> CreateMonitored(const CallContext& cc, const OciRuntime& runtime,
                                  const MonitorArgs& args);

/// SIGKILL to all monitors of this bundle, wherever in their start they are, and to all that they
/// are running. Reads /proc: for recovery and failures.
void KillMonitors(const std::string& bundle);
/// The same to all whose command line has these two arguments, one after the other.
void KillAllWith(const std::pair<std::string, std::string>& arguments);
/// The same to one that is known, if it is there.
void KillMonitor(const os::ProcessId& monitor);

/// Waits until no `<runtime> start <id>` of an earlier run of ours is under way. Reads /proc, once.
Status AwaitStarts(const CallContext& cc, const ContainerId& id);

/// The same for any program whose command line has these two arguments, one after the other.
Status AwaitAllWith(const CallContext& cc, const std::pair<std::string, std::string>& arguments,
                    const std::string& what);

/// After a restore that was not seen to its end: waits until the runtime is done with it, and tells
/// who runs now; nothing: it has failed. Reads /proc.
Result<std::optional<Monitored>> FindRestored(const CallContext& cc, const std::string& bundle);

/// After the log was moved away: makes conmon go on in a new file at `log_path` (mode 0640).
/// Returns once it does. Not moved: nothing is done. One at a time for a container: conmon would
/// open the file twice, and what it wrote in between would be gone. kFailedPrecondition: the
/// monitor does not listen (any more); kUnavailable: it is held up, and has been left without the
/// order.
Status ReopenLog(const CallContext& cc, const std::string& bundle, const std::string& log_path,
                 const os::ProcessId& monitor);

/// What conmon says on its sync pipe: a pid, or why there is none.
Result<pid_t> ParseSyncLine(std::string_view line);

/// A new connection to the monitor's attach socket, SOCK_SEQPACKET, which never blocks. (A bundle's
/// path may be longer than a socket's address: the directory goes by its number.)
/// kUnavailable: it has not taken those that came before; kNotFound and others: it is not there.
Result<os::UniqueFd> ConnectMonitor(const std::string& bundle);

}  // namespace crisp::rund
