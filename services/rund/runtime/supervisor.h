#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "libs/base/ids.h"
#include "libs/base/result.h"
#include "libs/os/pidfd.h"
#include "libs/os/proc_stat.h"
#include "libs/os/unique_fd.h"

namespace crisp::rund {

/// Sees containers end: watches the directory of exit files, and by pidfd the monitors that write
/// them (a killed monitor writes nothing), the loggers between them and their logs, and the pods'
/// pause processes. It has a thread of its own, because what follows an exit is stored before it is
/// told, which may block: the loop's handlers must not. Handlers run on that thread, one at a time;
/// exits of different containers come in the order in which they were written.
class Supervisor {
 public:
  struct Handlers {
    std::function<void(const ContainerId&)> on_exit_file;
    std::function<void(const ContainerId&)> on_monitor_gone;
    std::function<void(const ContainerId&)> on_logger_gone;
    std::function<void(const PodId&)> on_pause_gone;
  };

  /// The directory must exist. What is in it already is not told: ask after creating or adopting.
  static Result<std::unique_ptr<Supervisor>> Start(const std::string& exit_dir, Handlers handlers);
  /// Ends the thread, after the handler that is running.
  ~Supervisor();
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;

  /// One that has gone already is told like one that goes later. Any thread; a second call for the
  /// same id replaces the first.
  void WatchMonitor(const ContainerId& id, const os::ProcessId& monitor);
  void WatchLogger(const ContainerId& id, const os::ProcessId& logger);
  void WatchPause(const PodId& id, const os::ProcessId& pause);
  void Forget(const ContainerId& id);
  void Forget(const PodId& id);

 private:
  enum class Kind { kMonitor, kLogger, kPause };
  struct Watched {
    Kind kind = Kind::kMonitor;
    std::string id;
    os::PidFd process;  // invalid: gone already
  };
  Supervisor() = default;
  static std::string KeyFor(Kind kind, const std::string& id);
  void Watch(Kind kind, const std::string& id, const os::ProcessId& process);
  void Forget(const std::string& key);
  void Serve();
  void OnInotify();
  void OnGone(std::uint64_t token);

  Handlers handlers_;
  os::UniqueFd epoll_, inotify_, wake_;
  std::mutex mutex_;  // of what follows
  std::map<std::string, std::uint64_t> tokens_;
  std::map<std::uint64_t, Watched> watched_;
  std::uint64_t next_token_ = 10;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace crisp::rund
