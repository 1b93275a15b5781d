#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

struct sd_bus;
struct sd_bus_message;

namespace crisp::systemd {

/// A systemd and its bus in one, on a unix socket: it keeps units by name, and does as it is told
/// when a method is called.
class FakeSystemd {
 public:
  explicit FakeSystemd(std::string socket);
  FakeSystemd(const FakeSystemd&) = delete;
  FakeSystemd& operator=(const FakeSystemd&) = delete;
  ~FakeSystemd();

  std::string address() const { return "unix:path=" + socket_; }

  enum class Do {
    kAnswer,
    kHangUp,       // the connection breaks in place of the answer
    kDoAndHangUp,  // … after it was done
    kSayNothing,
    kRefuse,  // org.freedesktop.DBus.Error.AccessDenied
    kFailJob,
    kHoldJob,  // its end is told with the next ReleaseJobs()
  };
  /// For the next call of `method` only.
  void Next(const std::string& method, Do what);
  void ReleaseJobs();

  /// "StartTransientUnit a.slice", one for each call.
  std::vector<std::string> calls();
  /// What was set last: "a.slice/MemoryMax" → "t 100".
  std::map<std::string, std::string> properties();
  int connections();

 private:
  struct State {
    std::vector<std::string> calls;
    std::map<std::string, std::string> properties;
    std::map<std::string, Do> next;
    std::map<std::string, bool> units;
    bool release = false;
    bool ending = false;
    int connections = 0;
  };
  void Serve();
  void Talk(sd_bus* bus);
  int OnCall(sd_bus* bus, sd_bus_message* message);
  bool ReadProperties(sd_bus_message* message, const std::string& unit);
  int StartJob(sd_bus* bus, sd_bus_message* message, const std::string& unit, Do what);

  std::string socket_;
  int listener_ = -1;
  std::mutex mutex_;
  State state_;
  // The thread's own.
  bool hang_up_ = false;
  unsigned job_ = 0;
  std::vector<std::string> held_;
  std::thread thread_;
};

}  // namespace crisp::systemd
