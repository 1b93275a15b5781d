#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libs/base/result.h"
#include "libs/base/status.h"
#include "libs/daemon/confinement.h"
#include "libs/daemon/reload.h"
#include "libs/loop/loop.h"
#include "libs/metrics/registry.h"
#include "libs/settings/settings.h"
#include "libs/work/pool.h"

namespace grpc {
class Service;
}

namespace crisp::daemon {

/// What the command line says.
struct Options {
  std::string service;         // "rund"
  std::string instance = "1";  // [a-z0-9-], at most 32 characters
  std::string config = std::string(settings::kDefaultPath);
  std::optional<std::string> log_level;  // over the settings'
};

/// --config, --instance, --log-level, --check-config, --version, --help. Nothing and an exit code
/// when there is nothing to run (help, version, a wrong flag: told on stderr).
struct ParsedFlags {
  std::optional<Options> options;
  bool check_only = false;  // --check-config: look at the settings, and end
  int exit_code = 0;
};
ParsedFlags ParseFlags(int argc, const char* const* argv, std::string_view service);

/// The program's version, as CMake knows it.
std::string_view Version();
/// The commit of the source that was configured for this build; empty when that was no checkout.
std::string_view Commit();

/// Something an operator should know; see daemon.v1.Problem.
struct Problem {
  std::string what;
  std::string hint;
};

/// The frame of one daemon. Made and destroyed on the main thread; a composition root takes from it
/// what its objects need. The order of a run: Create (settings, logging, directories, loop and pool
/// are up) → the App is made (recovery; AddService) → Run (listens, READY, serves until SIGTERM or
/// SIGINT, drains).
class Daemon {
 public:
  /// Loads the settings, takes the instance's lock, makes <run_root>/<service>, takes over the
  /// sockets that systemd hands over (socket activation): Run serves on them too.
  /// Confines the process, if there is a plan, before the first thread starts.
  /// kInvalidArgument: settings. kUnavailable: this instance runs already.
  static Result<std::unique_ptr<Daemon>> Create(const Options& options,
                                                const MakeConfinePlan& confine = nullptr);
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;
  ~Daemon();

  const Options& options() const;
  const settings::Settings& settings() const;
  const std::string& instance() const;
  loop::Loop& loop();
  work::Pool& pool();
  metrics::Registry& metrics();
  /// Nothing: the process is not confined.
  const std::optional<os::Confined>& confined() const;

  /// Before Run; the service must outlive it.
  void AddService(grpc::Service* service);
  /// A socket beside <run_root>/<service>/<instance>.sock (crid: the CRI socket). Before Run.
  void AddSocket(const std::string& path);
  /// What Info answers as problems; called at each Info, on gRPC's threads: memory work only.
  void SetProblems(std::function<std::vector<Problem>()> problems);
  /// `fn` runs on the main thread when the drain begins: end streams, so that the server can.
  void OnDrain(std::function<void()> fn);
  /// What else a reload has to do than to change the log level, on pool threads. Before Run.
  void OnReload(Reloader::Part part);
  /// SIGHUP reloads all daemons of the node, together, instead of this one alone. Before Run.
  void LeadReloads();
  /// Leaves <run_root>/<service>/<instance>.records from now on: a mark for others that this
  /// instance may have records, also while it is stopped or dead, so that what it has is not taken
  /// for nobody's. It goes at the clean end of Run when `has_records` answers false (asked on the
  /// main thread, when all is quiet). Before Run and the first record.
  Status MarkRecords(std::function<bool()> has_records);
  /// The page of /metrics, made on a thread of the pool; `done` runs once, on any thread.
  /// kUnavailable while the daemon stops, kDeadlineExceeded when the pool is too busy.
  void RenderMetrics(const std::function<void(Result<std::string>)>& done);
  /// As SIGTERM does. Any thread.
  void RequestStop();

  /// Serves until told to stop; then: not ready, no new calls, at most 10 s for those in flight.
  /// However it ends, the daemon is quiet then (Quiesce). Ok after a clean drain;
  /// kDeadlineExceeded: see Quiesce.
  Status Run();

  /// Nothing of the frame calls into the App any more when it returns Ok: the pool has ended, after
  /// at most 5 s, metrics are not served, the loop stands still. Before an App is destroyed; Run
  /// does it, and so does an App's maker that fails half-way. Idempotent. kDeadlineExceeded: pool
  /// work is still under way, so nothing that it uses may be destroyed (Main leaves by _exit).
  Status Quiesce();

 private:
  struct Impl;
  explicit Daemon(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// A daemon's own part: made after the frame, gone before it.
class App {
 public:
  virtual ~App() = default;
};

/// What a program ends with whose settings are wrong: starting it again changes nothing. EX_CONFIG
/// of sysexits.h, which the units know.
inline constexpr int kWrongSettings = 78;

/// What only this daemon can say of settings that are valid in themselves: the files that they name
/// are there and in order. Changes nothing. Its error begins with the key.
using CheckSettings = std::function<Status(const settings::Settings&, const Options&)>;

/// The whole of main(): flags, frame, `make`, Run, exit code (0 clean, 1 failed, 2 wrong flags,
/// kWrongSettings). `check` is asked at each reload, and by --check-config.
///   int main(int argc, char** argv) { return daemon::Main(argc, argv, "rund", rund::MakeApp); }
int Main(int argc, const char* const* argv, std::string_view service,
         const std::function<Result<std::unique_ptr<App>>(Daemon&)>& make,
         const MakeConfinePlan& confine = nullptr, const CheckSettings& check = nullptr);

}  // namespace crisp::daemon
