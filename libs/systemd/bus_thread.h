#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "libs/base/call_context.h"
#include "libs/base/result.h"

struct sd_bus;
struct sd_bus_message;

namespace crisp::systemd {

/// The connection to systemd and the thread that it belongs to: sd-bus is not for many threads.
class BusThread {
 public:
  explicit BusThread(std::string address);
  BusThread(const BusThread&) = delete;
  BusThread& operator=(const BusThread&) = delete;
  ~BusThread();

  /// A method of the manager: its arguments, appended to the message; < 0 is -errno.
  using Append = std::function<int(sd_bus_message*)>;
  struct Request {
    const char* interface = nullptr;
    const char* method = nullptr;
    Append append;
    /// The answer is the path of a job, whose end is waited for.
    bool job = false;
  };
  /// The answer's first string or path; "" without one.
  Result<std::string> Call(const CallContext& cc, const Request& request);

 private:
  struct Pending;
  using PendingRef = std::shared_ptr<Pending>;

  void Serve();
  Status Connect();
  void Disconnect(const Status& why);
  void Send(const PendingRef& call);
  void OnReply(const PendingRef& call, sd_bus_message* reply);
  void OnJobRemoved(sd_bus_message* signal);
  static void Finish(const PendingRef& call, Result<std::string> outcome);

  const std::string address_;
  int wake_ = -1;  // an eventfd

  std::mutex mutex_;
  std::vector<PendingRef> queue_;
  bool ending_ = false;

  // The thread's own.
  sd_bus* bus_ = nullptr;
  std::map<Pending*, PendingRef> sent_;
  std::map<std::string, PendingRef> jobs_;  // by path

  std::thread thread_;
};

}  // namespace crisp::systemd
