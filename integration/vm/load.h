#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <semaphore>
#include <string>
#include <thread>
#include <vector>

#include "integration/harness/cri.h"
#include "libs/base/guarded.h"

namespace crisp::harness {

/// A node at work: pods with a network and a container come and go all the time, each in a thread
/// that does with it what a kubelet would, and tries again what failed; and somebody asks for lists
/// all the while. A call may fail while a daemon is away that it needs; every other failure is a
/// complaint, and so is a container that does not run when its time to be stopped has come. Never
/// uses Catch's macros: it is no test's thread.
class Load {
 public:
  struct Options {
    std::string handler;
    std::string image;
    int pods = 30;
    /// So many of them are being started or ended at the same time: emulated CPUs are slow.
    int at_a_time = 3;
  };
  struct Report {
    int pods = 0;     // that came and went
    int calls = 0;    // to end with an answer
    int excused = 0;  // failures while a daemon was away that the call needs
    std::vector<std::string> complaints;
    std::vector<std::string> ids;  // of all pods and containers
  };

  explicit Load(Options options);
  Load(const Load&) = delete;
  Load& operator=(const Load&) = delete;
  ~Load();

  /// Until so many more pods have come and gone; false when that takes too long.
  bool AwaitPods(int more) const;
  /// Calls that need `daemon` ("rund") may fail from now on, until the guard goes.
  std::shared_ptr<void> Away(const std::string& daemon);
  /// No more pods: returns when those that are there have been taken away.
  Report End();

 private:
  using Clock = std::chrono::steady_clock;
  using Needs = std::vector<std::string>;
  struct Window {
    std::string daemon;
    Clock::time_point end = Clock::time_point::max();
  };

  void Work(const std::stop_token& end, int number);
  void Ask(const std::stop_token& end);
  void OnePod(const cri::PodSandboxConfig& pod_config);
  cri::PodSandboxConfig PodConfig(int number, int round) const;
  cri::ContainerConfig ContainerConfig() const;
  /// One call, again and again until it succeeds, or gives up with a complaint.
  bool Succeeds(const std::string& name, const Needs& needs,
                const std::function<grpc::Status()>& call);
  bool Excused(const Needs& needs, Clock::time_point begin) const;
  void Complain(const std::string& text);

  const Options options_;
  const Cri cri_{"/run/crisp/crisp.sock"};
  std::counting_semaphore<> turns_;
  Guarded<Report> report_;
  Guarded<std::vector<std::shared_ptr<Window>>> windows_;
  std::vector<std::jthread> threads_;
};

}  // namespace crisp::harness
